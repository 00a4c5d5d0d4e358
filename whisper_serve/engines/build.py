"""From a plan to a running engine."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from whisper_serve.engines.base import SAMPLE_RATE, DecodeTask, Engine, TemperaturePolicy
from whisper_serve.engines.decoder import WindowDecoder
from whisper_serve.engines.threaded import ThreadedEngine
from whisper_serve.engines.weights import Kind, Source, Weights, ensure_weights

if TYPE_CHECKING:
    from whisper_serve.engines.ctranslate2_engine import CTranslate2Backend
    from whisper_serve.engines.torch_whisper.backend import TorchBackend

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """What to load and how to run it; all choices are made, nothing is `auto`.

    `workers` windows are decoded at once, each on `threads_per_worker` CPUs.
    """

    model: str
    model_dir: Path
    sources: tuple[Source, ...]
    engine: str
    device: str
    compute_type: str
    workers: int
    max_queued: int
    threads_per_worker: int = 1

    @property
    def weights_kind(self) -> Kind:
        return "openai" if self.engine == "torch" else "ctranslate2"


def fetch_weights(options: EngineOptions, *, progress: bool) -> Weights:
    """Raises `WeightsError`."""
    return ensure_weights(
        options.model,
        options.weights_kind,
        model_dir=options.model_dir,
        sources=options.sources,
        progress=progress,
    )


def build_engine(options: EngineOptions) -> Engine:
    """Load the model, which blocks for seconds, and start the engine.

    An engine has its process to itself: this sets how many threads torch computes on. Raises
    `WeightsError`, and `ConfigError` when this machine cannot compute as chosen.
    """
    began = time.monotonic()
    # By default torch takes all CPUs in each of the workers, which it works for with either
    # engine: spectrograms are its work too.
    torch.set_num_threads(options.threads_per_worker)
    weights = fetch_weights(options, progress=False)
    decoder = _decoder(options, weights)
    decoder.decode(warm_up_task())
    logger.info(
        "loaded %s on %s with %s (%s) in %.1f s",
        weights.name,
        decoder.info.device,
        decoder.info.engine,
        decoder.info.compute_type,
        time.monotonic() - began,
    )
    return ThreadedEngine(decoder, workers=options.workers, max_queued=options.max_queued)


def warm_up_task() -> DecodeTask:
    """A window that takes every step, which is slow the first time: its prefix is text even
    where the model hears silence, and so its words are aligned."""
    policy = TemperaturePolicy(temperatures=(0.0,), no_speech_threshold=1.0)
    return DecodeTask(np.zeros(SAMPLE_RATE, np.int16), prefix="Hello", temperature=policy)


def _decoder(options: EngineOptions, weights: Weights) -> WindowDecoder[Any]:
    if options.engine == "torch":
        return WindowDecoder(_torch_backend(options, weights))
    return WindowDecoder(_ctranslate2_backend(options, weights))


def _ctranslate2_backend(options: EngineOptions, weights: Weights) -> CTranslate2Backend:
    from whisper_serve.engines.ctranslate2_engine import CTranslate2Backend  # noqa: PLC0415

    return CTranslate2Backend(
        weights.path,
        name=weights.name,
        device=options.device,
        compute_type=options.compute_type,
        workers=options.workers,
        threads_per_worker=options.threads_per_worker,
    )


def _torch_backend(options: EngineOptions, weights: Weights) -> TorchBackend:
    from whisper_serve.engines.checkpoints import (  # noqa: PLC0415
        read_ctranslate2,
        read_openai_checkpoint,
    )
    from whisper_serve.engines.torch_whisper.backend import TorchBackend  # noqa: PLC0415
    from whisper_serve.engines.torch_whisper.model import load_model  # noqa: PLC0415

    began = time.monotonic()
    reads = read_openai_checkpoint if weights.kind == "openai" else read_ctranslate2
    checkpoint = reads(weights.path)
    model = load_model(checkpoint, options.device, options.compute_type)
    return TorchBackend(model, name=weights.name, load_s=time.monotonic() - began)
