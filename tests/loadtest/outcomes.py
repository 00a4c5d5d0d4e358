"""Outcomes as a load test has them, without a load."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from benchmarks.corpus import Passage
from loadtest.outcome import Outcome, Refusal, Timed

BEGAN = 10_000.0
SAID = "ever tried ever failed no matter try again fail better"
STREAM = Outcome(
    kind="LiveStream",
    name="talk",
    due_at=BEGAN,
    passages=(Passage(0.0, 10.0, SAID),),
    audio_s=10.0,
    text=SAID,
    waited_s=1.0,
    connect_s=0.5,
    ended_s=12.0,
    took_s=11.0,
    first_word_s=2.0,
    tail_s=1.0,
    shown=(Timed(4.0, 0.5),),
    word_finals=(Timed(5.0, 3.0),),
    finals=(Timed(5.0, 0.75), Timed(11.5, 0.25)),
    late_s=(0.001, 0.002, 0.003),
)


def stream(*, begins: float = 0.0, **changes: Any) -> Outcome:
    """A stream that was due `begins` after the load test began and went well, but for what
    `changes`."""
    return replace(STREAM, due_at=BEGAN + begins, **changes)


def delayed(delays_s: Sequence[float]) -> Outcome:
    """A stream with final texts of these delays."""
    return stream(finals=tuple(Timed(5.0, delay_s) for delay_s in delays_s))


def refused(*since: float, begins: float = 0.0) -> Outcome:
    """One that was never let in, and knows when to come back."""
    return Outcome(
        kind="LiveStream",
        name="talk",
        due_at=BEGAN + begins,
        fault="not admitted: 503",
        refusals=tuple(Refusal(each, 503, 5.0) for each in since),
    )


def file(took_s: float = 2.0, text: str = SAID, fault: str = "") -> Outcome:
    return Outcome(
        kind="FileUpload",
        name="talk",
        due_at=BEGAN,
        fault=fault,
        passages=STREAM.passages,
        audio_s=10.0,
        text=text,
        ended_s=took_s,
        took_s=took_s,
    )
