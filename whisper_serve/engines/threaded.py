"""The engine that the service sees: a queue, and threads that decode from it."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from typing import Protocol

from whisper_serve.engines.base import DecodeTask, EngineInfo, EngineLoad
from whisper_serve.engines.intake import Intake, Limits
from whisper_serve.engines.scheduler import Job
from whisper_serve.text.transcript import Hypothesis


class Worker(Protocol):
    """Decodes what it takes from an intake, in as many threads as call `work`."""

    @property
    def info(self) -> EngineInfo: ...

    def company(self, task: DecodeTask) -> object:
        """Windows of which this is the same are worth decoding together."""
        ...

    def work(self, intake: Intake) -> None:
        """Take windows and answer them until there are no more. Never raises."""
        ...

    def close(self) -> None: ...


class ThreadedEngine:
    """`worker` decodes in `threads` threads, within `limits`."""

    def __init__(self, worker: Worker, limits: Limits, *, threads: int = 1) -> None:
        self._worker = worker
        self._intake = Intake(limits)
        self._threads = [
            threading.Thread(
                target=worker.work, args=(self._intake,), name=f"engine-{index}", daemon=True
            )
            for index in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def info(self) -> EngineInfo:
        return self._worker.info

    def submit(self, task: DecodeTask) -> Future[Hypothesis]:
        job = Job(task, time.monotonic(), self._worker.company(task))
        self._intake.offer(job)
        return job.future

    def load(self) -> EngineLoad:
        return self._intake.load()

    def close(self) -> None:
        self._intake.close()
        for thread in self._threads:
            thread.join()
        self._worker.close()
