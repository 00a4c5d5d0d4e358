"""Silero VAD: the probability of speech in every 32 ms of audio.

The network is the ONNX file that faster-whisper ships; it runs on one CPU thread and keeps
its state between calls, so that audio may come in any pieces and is looked at once.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime

from whisper_serve.audio.pcm import Samples
from whisper_serve.audio.vad import FRAME_SAMPLES

PACKAGE, MODEL_FILE = "faster_whisper", "assets/silero_vad_v6.onnx"
CONTEXT_SAMPLES = 64
STATE_SHAPE = (1, 1, 128)
# Bounds the memory of one call: 2,000 frames are 64 s.
FRAMES_PER_RUN = 2_000

Probabilities = npt.NDArray[np.float32]


class SileroVad:
    """Gives one probability per whole frame; `finish` pads the last one with silence."""

    def __init__(self) -> None:
        self._session = _session()
        self._h = np.zeros(STATE_SHAPE, np.float32)
        self._c = np.zeros(STATE_SHAPE, np.float32)
        self._context = np.zeros(CONTEXT_SAMPLES, np.float32)
        self._rest = np.zeros(0, np.int16)

    def push(self, samples: Samples) -> Probabilities:
        """`samples`: int16 at 16 kHz, shape (n,), any n. Returns shape (frames,)."""
        pending = np.concatenate([self._rest, samples])
        whole = len(pending) // FRAME_SAMPLES * FRAME_SAMPLES
        frames, self._rest = pending[:whole].reshape(-1, FRAME_SAMPLES), pending[whole:].copy()
        parts = [
            self._run(frames[first : first + FRAMES_PER_RUN].astype(np.float32) / 32768.0)
            for first in range(0, len(frames), FRAMES_PER_RUN)
        ]
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def finish(self) -> Probabilities:
        if not len(self._rest):
            return np.zeros(0, np.float32)
        return self.push(np.zeros(FRAME_SAMPLES - len(self._rest), np.int16))

    def _run(self, frames: npt.NDArray[np.float32]) -> Probabilities:
        # Each frame is seen with the last samples of the one before it.
        before = np.vstack([self._context, frames[:-1, -CONTEXT_SAMPLES:]])
        self._context = frames[-1, -CONTEXT_SAMPLES:].copy()
        output, self._h, self._c = self._session.run(
            None, {"input": np.hstack([before, frames]), "h": self._h, "c": self._c}
        )
        probabilities: Probabilities = np.asarray(output, np.float32).reshape(-1)
        return probabilities


@lru_cache(maxsize=1)
def _session() -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.inter_op_num_threads = 1
    options.intra_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    return onnxruntime.InferenceSession(_model_path(), options, providers=["CPUExecutionProvider"])


def _model_path() -> Path:
    """Looked up without importing the package, which would load CTranslate2 too."""
    spec = find_spec(PACKAGE)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / MODEL_FILE
