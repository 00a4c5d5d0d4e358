"""Decoding in batches: the steps of several windows are answered together.

For engines whose calls take a batch and give it back whole. A window that wants more than one
decode, because its outcome was suspicious, is put back into the queue half done, so that the
others are answered without waiting for it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from whisper_serve.engines.base import DecodeTask, EngineInfo, bound_to
from whisper_serve.engines.fallback import Candidate
from whisper_serve.engines.intake import Intake
from whisper_serve.engines.padding import Padding
from whisper_serve.engines.scheduler import Job
from whisper_serve.engines.shape import ModelShape
from whisper_serve.engines.steps import (
    Align,
    DetectLanguage,
    Encode,
    Encoded,
    Generate,
    Step,
    Steps,
    decode_window,
)
from whisper_serve.engines.word_times import Alignment
from whisper_serve.errors import EngineFailed, WhisperServeError
from whisper_serve.text.transcript import Hypothesis

logger = logging.getLogger(__name__)

Outcome = Hypothesis | WhisperServeError
# What is decoded once more is decoded with its like.
AGAIN = "again"
# The order in which a window's steps follow each other.
PASS = (Encode, DetectLanguage, Generate, Align)


class Backend(Protocol):
    """A loaded network. Its methods block, take steps of one kind, and answer each of them in
    order; several threads may call them."""

    @property
    def info(self) -> EngineInfo: ...

    @property
    def shape(self) -> ModelShape: ...

    def encode(self, steps: Sequence[Encode]) -> Sequence[Encoded]: ...

    def detect_language(self, steps: Sequence[DetectLanguage]) -> Sequence[tuple[str, float]]: ...

    def generate(self, steps: Sequence[Generate]) -> Sequence[Candidate]: ...

    def align(self, steps: Sequence[Align]) -> Sequence[Alignment]: ...

    def close(self) -> None: ...


@dataclass(slots=True)
class Row:
    """One window and the step it waits for; `outcome` once there are no more."""

    steps: Steps[Hypothesis]
    task: DecodeTask
    step: Step | None = None
    outcome: Outcome | None = None

    def send(self, answer: Any) -> None:
        """Go on with the `answer` to the last step; None begins."""
        self.step = None
        try:
            self.step = self.steps.send(answer)
        except StopIteration as done:
            self.outcome = done.value
        except WhisperServeError as exc:
            self.outcome = exc
        # Whatever broke must not take the other windows with it; a panic of Rust is no Exception.
        except BaseException as exc:  # noqa: BLE001
            self.fail(exc)

    def fail(self, exc: BaseException) -> None:
        with bound_to(self.task):
            logger.error("a window could not be decoded", exc_info=exc)
        self.step = None
        if isinstance(exc, WhisperServeError):
            self.outcome = exc
        else:
            self.outcome = EngineFailed(f"{type(exc).__name__}: {exc}")


class BatchWorker:
    """Decodes with `backend`, `rows` windows at a time in each thread."""

    def __init__(self, backend: Backend, padding: Padding, *, rows: int) -> None:
        self._backend = backend
        self._padding = padding
        self._rows = rows

    @property
    def info(self) -> EngineInfo:
        return self._backend.info

    def company(self, task: DecodeTask) -> object:
        return self._padding.frames(task), task.beam_size

    def work(self, intake: Intake) -> None:
        while (jobs := intake.take(self._rows, wait=True)) is not None:
            # What is decoded again takes longest: let the others not wait for it.
            fresh = [job for job in jobs if job.steps is None]
            again = [job for job in jobs if job.steps is not None]
            self._pass(fresh, intake)
            self._pass(again, intake)

    def close(self) -> None:
        self._backend.close()

    def _pass(self, jobs: Sequence[Job], intake: Intake) -> None:
        """Take `jobs` through the steps once; what wants more then waits for its next turn."""
        rows = {job: job.steps or self._begun(job) for job in jobs}
        for kind in PASS:
            self._advance([row for row in rows.values() if isinstance(row.step, kind)])
            rows = _without_done(rows, intake)
        # Backwards: each goes to the front of its line.
        for job, row in reversed(rows.items()):
            job.steps, job.company = row, AGAIN
            intake.put_back(job)

    def _begun(self, job: Job) -> Row:
        steps = decode_window(job.task, self._backend.shape, self._padding)
        row = Row(steps, job.task)
        row.send(None)
        return row

    def _advance(self, rows: Sequence[Row]) -> None:
        """Answer the steps, all of one kind, that `rows` wait for. When that fails, each is
        tried by itself: one may be at fault, or they were too many for the memory."""
        if not rows:
            return
        try:
            steps = [row.step for row in rows]
            answered = [*zip(rows, _answers(self._backend, steps), strict=True)]
        except BaseException as exc:  # noqa: BLE001  # a panic of Rust is no Exception
            if len(rows) == 1:
                rows[0].fail(exc)
            else:
                for row in rows:
                    self._advance([row])
        else:
            for row, answer in answered:
                row.send(answer)


def decode_alone(backend: Backend, padding: Padding, task: DecodeTask) -> Hypothesis:
    """One window by itself, in the calling thread. Raises what is wrong with it."""
    steps = decode_window(task, backend.shape, padding)
    answer = None
    while True:
        try:
            step = steps.send(answer)
        except StopIteration as done:
            hypothesis: Hypothesis = done.value
            return hypothesis
        [answer] = _answers(backend, [step])


def _answers(backend: Backend, steps: Sequence[Any]) -> Sequence[Any]:
    """The answers to `steps`, which are all of one kind."""
    match steps[0]:
        case Encode():
            return backend.encode(steps)
        case DetectLanguage():
            return backend.detect_language(steps)
        case Generate():
            return backend.generate(steps)
        case _:
            return backend.align(steps)


def _without_done(rows: dict[Job, Row], intake: Intake) -> dict[Job, Row]:
    """The rows that go on; the others are answered, and those that nobody waits for too."""
    going_on = {}
    for job, row in rows.items():
        if row.outcome is None and not job.abandoned:
            going_on[job] = row
        else:
            intake.answer(job, row.outcome or EngineFailed("abandoned"))
    return going_on
