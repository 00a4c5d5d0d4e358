"""A decoded token sequence, cut where Whisper put its timestamps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from whisper.tokenizer import Tokenizer

from whisper_serve.engines.word_times import SECONDS_PER_FRAME


@dataclass(frozen=True, slots=True)
class TokenSpan:
    """Text tokens that were spoken between `start` and `end`, seconds in the window."""

    start: float
    end: float
    tokens: tuple[int, ...]


def split_at_timestamps(
    tokens: Sequence[int], tokenizer: Tokenizer, duration_s: float
) -> list[TokenSpan]:
    """Spans in order; one that lacks a timestamp reaches to its neighbour or to the window's
    edge. Every text token of `tokens` is in exactly one span."""
    spans: list[TokenSpan] = []
    start, text = 0.0, []
    for token in tokens:
        if token < tokenizer.eot:
            text.append(token)
        elif token >= tokenizer.timestamp_begin:
            time = min((token - tokenizer.timestamp_begin) * SECONDS_PER_FRAME, duration_s)
            if text:
                spans.append(TokenSpan(start, max(start, time), tuple(text)))
                text = []
            start = max(start, time)
    if text:
        spans.append(TokenSpan(start, duration_s, tuple(text)))
    return spans
