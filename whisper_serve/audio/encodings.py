"""Bare encodings of audio: bytes to numbers, with no header to tell what they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float32]  # shape (n,), full scale is 1


@dataclass(frozen=True, slots=True)
class PcmEncoding:
    """`read` takes whole values, of `value_bytes` each, and gives one float for each."""

    value_bytes: int
    read: Callable[[bytes], Values]


def pcm_encoding(name: str) -> PcmEncoding:
    """Raises `ValueError` for a name that is not known."""
    encodings = {
        "pcm_s16le": PcmEncoding(2, _read_s16le),
        "pcm_f32le": PcmEncoding(4, _read_f32le),
        "mulaw": PcmEncoding(1, _read_mulaw),
        "alaw": PcmEncoding(1, _read_alaw),
    }
    if name not in encodings:
        raise ValueError(f"{name!r} is not a known encoding; known: {', '.join(encodings)}")
    return encodings[name]


def tamed(values: Values) -> tuple[Values, int]:
    """`values` with silence for NaN and the rest clipped to ±1, and how many that changed."""
    with np.errstate(invalid="ignore"):  # A signalling NaN makes even comparisons warn.
        fine = np.abs(values) <= 1.0
        n_bad = len(values) - int(np.count_nonzero(fine))
        if n_bad:
            values = np.nan_to_num(np.clip(values, -1.0, 1.0), nan=0.0)
    return values, n_bad


def _read_s16le(data: bytes) -> Values:
    return np.frombuffer(data, "<i2") * np.float32(1 / 32768)


def _read_f32le(data: bytes) -> Values:
    return np.frombuffer(data, "<f4").astype(np.float32, copy=False)


def _read_mulaw(data: bytes) -> Values:
    return _mulaw_values()[np.frombuffer(data, np.uint8)]


def _read_alaw(data: bytes) -> Values:
    return _alaw_values()[np.frombuffer(data, np.uint8)]


@cache
def _mulaw_values() -> Values:
    """What each of the 256 bytes stands for. Source: ITU-T G.711, table 2."""
    codes = ~np.arange(256, dtype=np.uint8)
    magnitudes = (((codes & 15) << 3).astype(np.int32) + 132 << (codes >> 4 & 7)) - 132
    return _signed(magnitudes, codes & 128 != 0)


@cache
def _alaw_values() -> Values:
    """What each of the 256 bytes stands for. Source: ITU-T G.711, table 1."""
    codes = np.arange(256, dtype=np.uint8) ^ 0x55
    exponents = (codes >> 4 & 7).astype(np.int32)
    steps = ((codes & 15).astype(np.int32) << 4) + 8
    magnitudes = np.where(exponents == 0, steps, steps + 256 << np.maximum(exponents - 1, 0))
    return _signed(magnitudes, codes & 128 == 0)


def _signed(magnitudes: npt.NDArray[np.int32], negative: npt.NDArray[np.bool_]) -> Values:
    return (np.where(negative, -magnitudes, magnitudes) / 32768).astype(np.float32)
