"""From a plan to a running engine."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from whisper_serve.engines.base import CPU_ROWS, SAMPLE_RATE, DecodeTask, Engine, TemperaturePolicy
from whisper_serve.engines.batch_worker import BatchWorker
from whisper_serve.engines.intake import Limits
from whisper_serve.engines.padding import Padding
from whisper_serve.engines.threaded import ThreadedEngine, Worker
from whisper_serve.engines.weights import Kind, Source, Weights, ensure_weights
from whisper_serve.errors import WhisperServeError

logger = logging.getLogger(__name__)

# Of one batch: more makes it no faster, and others would wait long for its end.
BATCH_AUDIO_S = 120.0


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """What to load and how to run it; all choices are made, nothing is `auto`.

    `workers` decode side by side, each on `threads_per_worker` CPUs and up to `rows` windows
    together. `device_share`: how much of one GPU's memory the engine may use.
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
    rows: int = CPU_ROWS
    device_share: float = 1.0
    padding: Padding = field(default_factory=Padding)

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
    # By default torch takes all CPUs in each of the workers, which it works for with either
    # engine: spectrograms are its work too.
    torch.set_num_threads(options.threads_per_worker)
    weights = fetch_weights(options, progress=False)
    worker = _worker(options, weights)
    engine = ThreadedEngine(worker, _limits(options), threads=_threads(options))
    began = time.monotonic()
    try:
        engine.submit(warm_up_task()).result()
    except WhisperServeError:
        engine.close()
        raise
    logger.info(
        "%s on %s with %s (%s): weights loaded in %.1f s, warm after %.1f s",
        weights.name,
        engine.info.device,
        engine.info.engine,
        engine.info.compute_type,
        engine.info.load_s,
        time.monotonic() - began,
    )
    return engine


def warm_up_task() -> DecodeTask:
    """A window that takes every step, which is slow the first time."""
    policy = TemperaturePolicy(temperatures=(0.0,), no_speech_threshold=1.0)
    return DecodeTask(np.zeros(SAMPLE_RATE, np.int16), prefix="Hello", temperature=policy)


def _limits(options: EngineOptions) -> Limits:
    return Limits(
        max_queued=options.max_queued,
        rows=options.rows,
        audio_s=BATCH_AUDIO_S,
        file_rows=max(1, options.rows * options.workers // 2),
    )


def _threads(options: EngineOptions) -> int:
    """The torch engine's one thread steps all its rows."""
    return 1 if options.engine == "torch" else options.workers


def _worker(options: EngineOptions, weights: Weights) -> Worker:
    if options.engine == "torch":
        return _torch_worker(options, weights)
    return _ctranslate2_worker(options, weights)


def _ctranslate2_worker(options: EngineOptions, weights: Weights) -> Worker:
    from whisper_serve.engines.ctranslate2_engine import CTranslate2Backend  # noqa: PLC0415

    backend = CTranslate2Backend(
        weights.path,
        name=weights.name,
        device=options.device,
        compute_type=options.compute_type,
        workers=options.workers,
        threads_per_worker=options.threads_per_worker,
    )
    return BatchWorker(backend, options.padding, rows=options.rows)


def _torch_worker(options: EngineOptions, weights: Weights) -> Worker:
    from whisper_serve.engines.torch_whisper.engine import torch_worker  # noqa: PLC0415
    from whisper_serve.engines.torch_whisper.mapped_weights import load_weights  # noqa: PLC0415

    began = time.monotonic()
    model = load_weights(weights, options.model_dir, options.device, options.compute_type)
    return torch_worker(
        model,
        name=weights.name,
        load_s=time.monotonic() - began,
        padding=options.padding,
        gpu_share=options.device_share,
        max_rows=options.rows,
    )
