"""How late a live stream's text comes, from what was sent and received and when.

All times `at` are of one clock; `began` is when the stream's first sample was spoken.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from whisper_serve.audio.pcm import to_samples
from whisper_serve.text.normalize import normalize_word

TOLD = ("final", "partial", "error", "warning")


@dataclass(frozen=True, slots=True)
class Sent:
    """Pieces of `piece` samples each that were sent at the times `at`."""

    began: float
    piece: int
    at: list[float] = field(default_factory=list)

    def when(self, time_s: float) -> float:
        """When the last sample before `time_s` of the stream was sent."""
        number = -(-to_samples(time_s) // self.piece) - 1
        return self.at[min(max(number, 0), len(self.at) - 1)]

    def lags(self) -> list[float]:
        """How long after it was spoken each piece was sent."""
        piece_s = self.piece / to_samples(1.0)
        return [at - self.began - number * piece_s for number, at in enumerate(self.at, 1)]


@dataclass(frozen=True, slots=True)
class Word:
    """A final word: its end in the stream, and when it was final and first shown."""

    text: str
    end_s: float
    final_at: float
    shown_at: float | None


@dataclass(frozen=True, slots=True)
class Answers:
    """Messages of a stream as they came: (at, message)."""

    messages: list[tuple[float, dict[str, Any]]]

    @classmethod
    def parse(cls, received: Sequence[tuple[float, str]]) -> Answers:
        parsed = [(at, json.loads(text)) for at, text in received]
        return cls([(at, message) for at, message in parsed if message["type"] in TOLD])

    def of(self, kind: str) -> Iterator[tuple[float, dict[str, Any]]]:
        return ((at, message) for at, message in self.messages if message["type"] == kind)

    @property
    def text(self) -> str:
        return "".join(message["text"] for _, message in self.of("final"))

    def final_delays(self, sent: Sent) -> list[float]:
        """Of each `final`: from when the last sample of its window was sent until it came.

        `resume.position` tells where windows for final text have been decoded up to, which is
        the end of the window that the message comes from.
        """
        return [at - sent.when(message["resume"]["position"]) for at, message in self.of("final")]

    def words(self) -> list[Word]:
        """`shown_at` is None when nothing was shown before it was final."""
        shown = list(self._shown())
        final = [(at, word) for at, message in self.of("final") for word in message["words"]]
        return [
            Word(word["word"], word["end"], at, _first_shown(shown, number, word["word"]))
            for number, (at, word) in zip(count(), final)
        ]

    def _shown(self) -> Iterator[tuple[float, list[str]]]:
        """All words on the screen, each time that they change."""
        final: list[str] = []
        for at, message in self.messages:
            if message["type"] == "final":
                final += [normalize_word(word["word"]) for word in message["words"]]
            elif message["type"] == "partial":
                yield at, final + [normalize_word(word) for word in message["text"].split()]


def _first_shown(shown: Sequence[tuple[float, list[str]]], number: int, word: str) -> float | None:
    """When the stream's word `number` was first seen in its place."""
    wanted = [normalize_word(word)]
    return next((at for at, words in shown if words[number : number + 1] == wanted), None)


def final_word_delays(words: Sequence[Word], began: float) -> list[float]:
    """From the end of each word in the audio until it was final."""
    return [max(0.0, word.final_at - began - word.end_s) for word in words]


def shown_word_delays(words: Sequence[Word], began: float) -> list[float]:
    """From the end of each word in the audio until it was first shown, final or not."""
    return [
        max(0.0, min(word.final_at, word.shown_at or word.final_at) - began - word.end_s)
        for word in words
    ]
