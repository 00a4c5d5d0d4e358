"""16 kHz mono int16 samples, the one form in which audio travels inside the service."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

SAMPLE_RATE = 16_000

Samples = npt.NDArray[np.int16]  # shape (n,), 16 kHz, mono


def seconds(n_samples: int) -> float:
    return n_samples / SAMPLE_RATE


def to_samples(time_s: float) -> int:
    return round(time_s * SAMPLE_RATE)
