"""One load test of Locust: what its users say, what came of it, and how it ends.

It ends when all users have left, when its time is over, or when somebody stops it. Then nobody
says more, and the streams that are open get the time to hear their last words. With workers the
master asks each of them to come to its end, and waits for what it heard until then, so that its
percentiles are of all samples.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gevent
from gevent.event import Event

from loadtest.outcome import Outcome, outcome_of
from loadtest.settings import Settings
from loadtest.speech import Speech, find_speech

if TYPE_CHECKING:  # importing Locust changes how the whole process waits
    from locust.env import Environment

LOOK_EVERY_S = 0.2
# What the way from a worker may take, and a stream's closing.
GRACE_S = 10.0
NO_TEXT = "no text"


@lru_cache(maxsize=1)
def speech_of(corpus: Path | None, length_s: float) -> Sequence[Speech]:
    """The same for each test of one process. Raises `NoSpeech`."""
    return find_speech(corpus, length_s)


class Session:
    """`outcomes`: all that are known here. A worker has `unsent` ones."""

    def __init__(self, environment: Environment, settings: Settings) -> None:
        self.settings = settings
        self.ending = Event()
        self.began = time.time()
        self.outcomes: list[Outcome] = []
        self.unsent: list[Outcome] = []
        self.trouble: list[str] = []
        self._environment = environment
        self._turns = count(getattr(environment.runner, "worker_index", 0))

    def next_speech(self) -> Speech:
        found = speech_of(self.settings.corpus, self.settings.seconds)
        return found[next(self._turns) % len(found)]

    def add(self, outcome: Outcome) -> None:
        """One of ours."""
        self.outcomes.append(outcome)
        self.unsent.append(outcome)
        for row in rows_of(outcome):
            self._environment.events.request.fire(**row)

    def take_unsent(self) -> list[dict[str, Any]]:
        taken, self.unsent = self.unsent, []
        return [outcome.as_json() for outcome in taken]

    def take_in(self, reported: Iterable[Mapping[str, Any]]) -> None:
        """From a worker."""
        self.outcomes += [outcome_of(each) for each in reported]

    @property
    def patience_s(self) -> float:
        """How long its end may take."""
        return self.settings.last_words_s + GRACE_S

    def finish(self, users: Callable[[], int]) -> None:
        """Blocks until nobody of `users` is left, or patience is over."""
        self.ending.set()
        wait_until(lambda: not users(), self.patience_s)


def wait_until(is_so: Callable[[], bool], limit_s: float) -> bool:
    """Whether it came about in time."""
    deadline = time.monotonic() + limit_s
    while not is_so() and time.monotonic() < deadline:
        gevent.sleep(LOOK_EVERY_S)
    return is_so()


def rows_of(outcome: Outcome) -> Iterable[dict[str, Any]]:
    """Events for Locust's own tables, in which times are milliseconds and rounded."""
    for refusal in outcome.refusals:
        yield _row(outcome, f"refused with {refusal.status}", refusal.since)
    if outcome.is_cut:
        return
    if outcome.connect_s is not None:
        yield _row(outcome, "handshake", outcome.connect_s)
    if outcome.first_word_s is not None:
        yield _row(outcome, "first word", outcome.first_word_s)
    for final in outcome.finals:
        yield _row(outcome, "final text", final.s)
    fault = outcome.fault or ("" if outcome.text.strip() else NO_TEXT)
    whole = _row(outcome, "whole", outcome.took_s or outcome.ended_s or 0.0)
    yield {**whole, "exception": fault or None, "response_length": len(outcome.text)}


def _row(outcome: Outcome, name: str, seconds: float) -> dict[str, Any]:
    return {
        "request_type": outcome.kind,
        "name": name,
        "response_time": 1000 * seconds,
        "response_length": 0,
        "exception": None,
        "context": {},
    }


@dataclass
class Workers:
    """What a master knows of its workers: how many outcomes came of each, and what those that
    have come to their end say how many there were."""

    came: dict[str, int] = field(default_factory=dict)
    had: dict[str, int] = field(default_factory=dict)

    def reported(self, worker: str, number: int) -> None:
        self.came[worker] = self.came.get(worker, 0) + number

    def finished(self, worker: str, number: int) -> None:
        self.had[worker] = number

    def missing(self, asked: Iterable[str]) -> list[str]:
        """What is wrong with the figures, in words."""
        silent = [worker for worker in asked if worker not in self.had]
        lost = sum(number - self.came.get(worker, 0) for worker, number in self.had.items())
        found = [f"worker {worker} did not tell what it had heard" for worker in silent]
        return found + ([f"{lost} outcomes of workers never arrived"] if lost else [])
