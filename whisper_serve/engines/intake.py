"""The queue between those who submit windows and the threads that decode them."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, replace

from whisper_serve.engines.base import EngineLoad, Lane
from whisper_serve.engines.scheduler import Job, Room, Scheduler
from whisper_serve.errors import (
    DeadlineExceeded,
    EngineUnavailable,
    Overloaded,
    Superseded,
    WhisperServeError,
)
from whisper_serve.text.transcript import Hypothesis

logger = logging.getLogger(__name__)

# What a refused client is told when nothing is known yet about how fast windows leave.
FIRST_RETRY_S = 1.0
# Windows that leave tell how fast they do, the last this many most.
MEMORY = 16
# How soon places kept for live work are looked at again.
LOOK_AGAIN_S = 1.0


@dataclass(frozen=True, slots=True)
class Limits:
    """`max_queued`: windows that may wait in each lane. `rows`: windows that are decoded
    together by one thread, of at most `audio_s` seconds in all. `file_rows`: windows of files
    that are decoded at a time, by all threads, while there is live work."""

    max_queued: int
    rows: int
    audio_s: float = float("inf")
    file_rows: int | None = None


class Intake:
    """Thread-safe: any thread may `offer`, and each decoding thread takes and answers."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._scheduler = Scheduler()
        self._running: dict[Job, float] = {}
        self._left_at, self._gap_s = 0.0, FIRST_RETRY_S
        self._closed = False
        self._changed = threading.Condition()

    def offer(self, job: Job) -> None:
        """Let `job` wait; its future raises `Overloaded` when its lane is full."""
        older = None
        refusal: WhisperServeError | None = None
        with self._changed:
            expired = self._expired()
            if self._closed:
                refusal = EngineUnavailable(FIRST_RETRY_S)
            elif self._is_full_for(job):
                refusal = Overloaded(self._retry_after_s())
            else:
                older = self._scheduler.add(job, time.monotonic())
                self._changed.notify()
        _tell_expired(expired)
        if refusal is not None:
            _settle(job, refusal)
        if older is not None:
            _settle(older, Superseded())

    def take(self, rows: int, *, wait: bool) -> list[Job] | None:
        """Up to `rows` windows that somebody waits for. With `wait` it blocks until there is
        one. None when the engine is closing."""
        while True:
            with self._changed:
                if self._closed:
                    return None
                expired = self._expired()
                jobs = [] if expired else self._take(rows, wait=wait)
            # Outside of the lock: whoever is told may ask for something.
            _tell_expired(expired)
            if jobs or not (wait or expired):
                return jobs

    def answer(self, job: Job, outcome: Hypothesis | WhisperServeError) -> None:
        with self._changed:
            self._leave(job)
            if self._scheduler.waiting():
                self._changed.notify()
        if isinstance(outcome, Hypothesis):
            stats = replace(outcome.stats, queued_s=job.queued_s, batch_size=job.batch_size)
            outcome = replace(outcome, stats=stats)
        _settle(job, outcome)

    def put_back(self, job: Job) -> None:
        """Let a window that is half done wait for its next turn; `job.steps` holds what
        has been done."""
        with self._changed:
            self._running.pop(job, None)
            closed = self._closed
            waits = not closed and self._scheduler.put_back(job)
            self._changed.notify()
        if closed:
            _cancel(job)
        elif not waits:
            _settle(job, Superseded())

    def load(self) -> EngineLoad:
        with self._changed:
            expired = self._expired()
            began = min(self._running.values(), default=None)
            load = EngineLoad(
                waiting=self._scheduler.waiting(),
                waiting_s=self._scheduler.waiting_s(),
                running=len(self._running),
                oldest_running_s=0.0 if began is None else time.monotonic() - began,
                waiting_files=self._scheduler.waiting(Lane.FILE),
            )
        _tell_expired(expired)
        return load

    def close(self) -> None:
        """Refuse what comes from now on, and give up what waits."""
        with self._changed:
            self._closed = True
            abandoned = self._scheduler.remove(lambda _: True)
            self._changed.notify_all()
        for job in abandoned:
            _cancel(job)

    def _expired(self) -> list[Job]:
        """What nobody waits for, or should wait for any more; it is in the queue no longer."""
        now = time.monotonic()
        return self._scheduler.remove(lambda job: job.abandoned or now >= job.expires_at)

    def _is_full_for(self, job: Job) -> bool:
        full = self._scheduler.waiting(job.task.lane) >= self._limits.max_queued
        return full and self._scheduler.superseded_by(job) is None

    def _take(self, rows: int, *, wait: bool) -> list[Job]:
        """What can be taken now. With `wait`, and when there is nothing, it blocks until
        something may have changed."""
        room = self._room(rows)
        patience_s = self._patience_s(room) if wait else 0.0
        if patience_s <= 0 and (jobs := self._scheduler.take(room, time.monotonic())):
            return self._begun(jobs)
        if wait:
            self._changed.wait(patience_s if patience_s > 0 else self._idle_s())
        return []

    def _begun(self, jobs: list[Job]) -> list[Job]:
        now = time.monotonic()
        for job in jobs:
            self._running[job] = now
            if job.taken_at is None:
                job.taken_at, job.batch_size = now, len(jobs)
        return jobs

    def _room(self, rows: int) -> Room:
        limits = self._limits
        file_rows = limits.file_rows
        if file_rows is not None:
            running = sum(job.task.lane is Lane.FILE for job in self._running)
            file_rows = max(0, file_rows - running)
        return Room(min(rows, limits.rows), limits.audio_s, file_rows)

    def _patience_s(self, room: Room) -> float:
        if not self._scheduler.waiting():
            return 0.0
        return self._scheduler.patience_s(room, time.monotonic())

    def _idle_s(self) -> float | None:
        return LOOK_AGAIN_S if self._scheduler.waiting() else None

    def _leave(self, job: Job) -> None:
        self._running.pop(job, None)
        now = time.monotonic()
        if self._left_at:
            self._gap_s += (min(now - self._left_at, FIRST_RETRY_S) - self._gap_s) / MEMORY
        self._left_at = now

    def _retry_after_s(self) -> float:
        """When half of the queue will be done."""
        return max(FIRST_RETRY_S, self._gap_s * self._scheduler.waiting() / 2)


def _tell_expired(jobs: list[Job]) -> None:
    for job in jobs:
        _settle(job, DeadlineExceeded(job.task.timeout_s))


def _cancel(job: Job) -> None:
    job.future.cancel()
    # Tells those also who wait for many futures at once.
    job.future.set_running_or_notify_cancel()


def _settle(job: Job, outcome: Hypothesis | WhisperServeError) -> None:
    # False when it was cancelled: nobody wants to know.
    if not job.future.set_running_or_notify_cancel():
        return
    if isinstance(outcome, Hypothesis):
        job.future.set_result(outcome)
    else:
        job.future.set_exception(outcome)
