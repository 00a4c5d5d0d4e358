"""Speech at the rates of the Realtime API that survives encoding and resampling.

Each word is a run of samples of one level; what resampling does to its edges is too short to be
a word.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from tests.api.streams import COST, Engine
from tests.streaming.speaker import Ears
from whisper_serve.audio.encodings import pcm_encoding
from whisper_serve.audio.pcm import Samples, seconds
from whisper_serve.engines.base import DecodeTask
from whisper_serve.streaming.listener import Probabilities
from whisper_serve.text.transcript import Hypothesis, Segment, Word

LEVEL = 1_000
MAX_WORDS = 12
SHORTEST_WORD_S = 0.1
LAWS = {"audio/pcmu": "mulaw", "audio/pcma": "alaw"}


def speech(*numbers: int, rate: int = 24_000, pause_s: float = 0.1, word_s: float = 0.4) -> Samples:
    """Says "w0 w1 ..." for 0, 1, ..., half a second a word unless told otherwise."""
    assert all(number < MAX_WORDS for number in numbers)
    parts = [part for n in numbers for part in (quiet(pause_s, rate), _word(n, word_s, rate))]
    return np.concatenate(parts) if parts else np.zeros(0, np.int16)


def quiet(duration_s: float, rate: int = 24_000) -> Samples:
    return np.zeros(round(duration_s * rate), np.int16)


def joined(*parts: Samples) -> Samples:
    return np.concatenate(parts)


def _word(number: int, duration_s: float, rate: int) -> Samples:
    return np.full(round(duration_s * rate), LEVEL * (number + 1), np.int16)


def encoded(samples: Samples, kind: str) -> bytes:
    """As bytes of a format of the API."""
    if kind == "audio/pcm":
        return samples.astype("<i2").tobytes()
    levels = pcm_encoding(LAWS[kind]).read(bytes(range(256))) * 32_768
    order = np.argsort(levels, kind="stable")
    between = (levels[order][1:] + levels[order][:-1]) / 2
    return order[np.searchsorted(between, samples)].astype(np.uint8).tobytes()


def append(audio: bytes | Samples) -> dict[str, Any]:
    data = audio.tobytes() if isinstance(audio, np.ndarray) else audio
    return {"type": "input_audio_buffer.append", "audio": base64.b64encode(data).decode()}


def pieces(data: bytes, sizes: Sequence[int]) -> Iterator[bytes]:
    """`data` in pieces of `sizes`, over and over."""
    at = turn = 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        yield data[at : at + size]
        at, turn = at + size, turn + 1


class DullEars(Ears):
    """Take no notice of what is left of a word's edge."""

    def push(self, samples: Samples) -> Probabilities:
        return super().push(np.where(np.abs(samples) > LEVEL // 2, samples, 0).astype(np.int16))


@dataclass
class DullEngine(Engine):
    """Understands this speech as `Engine` does that of `speaker`."""

    async def transcribe(self, task: DecodeTask) -> Hypothesis:
        await super().transcribe(task)
        return hear(task)


def hear(task: DecodeTask) -> Hypothesis:
    """What is said behind the prefix."""
    words = [*_words(task.samples)][len(task.prefix.split()) :]
    segments = (Segment(0.0, task.duration_s, "").with_words(words),) if words else ()
    return Hypothesis(segments, task.language or "en", 0.9, COST)


def _words(samples: Samples) -> Iterator[Word]:
    at = 0
    for level, run in groupby(np.round(samples / LEVEL).astype(int).tolist()):
        length = len([*run])
        if level and seconds(length) >= SHORTEST_WORD_S:
            yield Word(f" w{level - 1}", seconds(at), seconds(at + length), 0.9)
        at += length


def said(numbers: Iterable[int]) -> str:
    return " ".join(f"w{number}" for number in numbers)
