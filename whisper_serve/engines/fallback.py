"""Whisper's rules for trusting a decode: try again hotter, give up, or call it silence.

Source: `whisper/transcribe.py`, `decode_with_fallback`, of openai-whisper.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from whisper_serve.engines.base import TemperaturePolicy


@dataclass(frozen=True, slots=True)
class Candidate:
    """The outcome of one decode; `tokens` hold timestamps and no end of text."""

    tokens: tuple[int, ...]
    text: str
    avg_logprob: float
    no_speech_prob: float
    temperature: float

    @property
    def compression_ratio(self) -> float:
        return compression_ratio(self.text)


def compression_ratio(text: str) -> float:
    """How much zlib shrinks `text`; a text that repeats itself is above 2.4."""
    data = text.encode()
    return len(data) / len(zlib.compress(data))


def likeliest(candidates: Sequence[Candidate], policy: TemperaturePolicy) -> Candidate:
    """The likeliest candidate that does not repeat itself, or else the likeliest of all."""
    steady = [c for c in candidates if not repeats_itself(c, policy)]
    return max(steady or candidates, key=lambda c: c.avg_logprob)


def is_acceptable(candidate: Candidate, policy: TemperaturePolicy) -> bool:
    return candidate.avg_logprob >= policy.logprob_threshold and not repeats_itself(
        candidate, policy
    )


def repeats_itself(candidate: Candidate, policy: TemperaturePolicy) -> bool:
    return candidate.compression_ratio > policy.compression_ratio_threshold


def is_silence(candidate: Candidate, policy: TemperaturePolicy) -> bool:
    return (
        candidate.no_speech_prob > policy.no_speech_threshold
        and candidate.avg_logprob < policy.logprob_threshold
    )
