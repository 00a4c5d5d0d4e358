"""An engine that decodes one window per worker thread, in order of urgency.

The simplest engine that keeps the contract of `Engine`: a bounded queue by lanes, deadlines
answered without decoding, cancelled windows skipped.
"""

from __future__ import annotations

import heapq
import logging
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Protocol

from whisper_serve.engines.base import DecodeTask, EngineInfo, EngineLoad
from whisper_serve.errors import (
    DeadlineExceeded,
    EngineFailed,
    EngineUnavailable,
    Overloaded,
    WhisperServeError,
)
from whisper_serve.observability.context import bound_request_id
from whisper_serve.text.transcript import Hypothesis

logger = logging.getLogger(__name__)

Outcome = Hypothesis | WhisperServeError | None

# What a refused client is told when nothing is known yet about how long windows take.
FIRST_RETRY_S = 1.0


class Decodes(Protocol):
    """Decodes one window in the calling thread."""

    @property
    def info(self) -> EngineInfo: ...

    def decode(self, task: DecodeTask) -> Hypothesis: ...

    def close(self) -> None: ...


@dataclass(order=True, slots=True)
class Job:
    """A window in the queue; the more urgent lane first, then first come first served."""

    lane: int
    number: int
    task: DecodeTask = field(compare=False)
    future: Future[Hypothesis] = field(compare=False)
    queued_at: float = field(compare=False)

    @property
    def expires_at(self) -> float:
        return self.queued_at + self.task.timeout_s


class ThreadedEngine:
    """`decoder` is called from `workers` threads at once."""

    def __init__(self, decoder: Decodes, *, workers: int, max_queued: int) -> None:
        self._decoder = decoder
        self._max_queued = max_queued
        self._queue: list[Job] = []
        self._running: dict[int, float] = {}
        self._numbers = 0
        self._mean_s = FIRST_RETRY_S
        self._closed = False
        self._changed = threading.Condition()
        self._workers = [
            threading.Thread(target=self._work, args=(index,), name=f"engine-{index}", daemon=True)
            for index in range(workers)
        ]
        for worker in self._workers:
            worker.start()

    @property
    def info(self) -> EngineInfo:
        return self._decoder.info

    def submit(self, task: DecodeTask) -> Future[Hypothesis]:
        future: Future[Hypothesis] = Future()
        with self._changed:
            if self._closed:
                future.set_exception(EngineUnavailable(FIRST_RETRY_S))
            elif len(self._waiting()) >= self._max_queued:
                future.set_exception(Overloaded(self._retry_after_s()))
            else:
                self._numbers += 1
                job = Job(task.lane.value, self._numbers, task, future, time.monotonic())
                heapq.heappush(self._queue, job)
                self._changed.notify()
        return future

    def load(self) -> EngineLoad:
        with self._changed:
            began = min(self._running.values(), default=None)
            oldest = 0.0 if began is None else time.monotonic() - began
            return EngineLoad(len(self._waiting()), len(self._running), oldest)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            abandoned, self._queue = self._queue, []
            self._changed.notify_all()
        for job in abandoned:
            job.future.cancel()
        for worker in self._workers:
            worker.join()
        self._decoder.close()

    def _waiting(self) -> list[Job]:
        """The queue without the windows that nobody waits for any more."""
        if any(job.future.cancelled() for job in self._queue):
            self._queue = [job for job in self._queue if not job.future.cancelled()]
            heapq.heapify(self._queue)
        return self._queue

    def _retry_after_s(self) -> float:
        """When half of the queue will be done."""
        return max(FIRST_RETRY_S, self._mean_s * len(self._queue) / len(self._workers) / 2)

    def _work(self, index: int) -> None:
        while (job := self._next_job(index)) is not None:
            outcome = self._outcome(job)
            with self._changed:
                del self._running[index]
            _answer(job.future, outcome)

    def _next_job(self, index: int) -> Job | None:
        with self._changed:
            while not self._queue and not self._closed:
                self._changed.wait()
            if self._closed:
                return None
            self._running[index] = time.monotonic()
            return heapq.heappop(self._queue)

    def _outcome(self, job: Job) -> Outcome:
        """What to answer; None when nobody waits for it any more. Never raises."""
        if not job.future.set_running_or_notify_cancel():
            return None
        began = time.monotonic()
        if began >= job.expires_at:
            return DeadlineExceeded(job.task.timeout_s)
        with bound_request_id(job.task.request_id or "-"):
            try:
                hypothesis = self._decoder.decode(job.task)
                self._mean_s += (time.monotonic() - began - self._mean_s) / 8
                return _queued(hypothesis, began - job.queued_at)
            except WhisperServeError as exc:
                return exc
            # A broken decode must not end the worker; a panic of Rust is no Exception.
            except BaseException as exc:
                logger.exception("a window could not be decoded")
                return EngineFailed(f"{type(exc).__name__}: {exc}")


def _answer(future: Future[Hypothesis], outcome: Outcome) -> None:
    if isinstance(outcome, Hypothesis):
        future.set_result(outcome)
    elif outcome is not None:
        future.set_exception(outcome)


def _queued(hypothesis: Hypothesis, seconds: float) -> Hypothesis:
    return replace(hypothesis, stats=replace(hypothesis.stats, queued_s=seconds))
