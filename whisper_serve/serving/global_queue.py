"""The way to a cluster's workers from any process of the same Ray."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from functools import lru_cache

import ray
from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from whisper_serve.engines.base import DecodeTask
from whisper_serve.errors import EngineUnavailable
from whisper_serve.serving.client import RETRY_AFTER_S, ReplicaClient
from whisper_serve.text.transcript import Hypothesis


@dataclass(frozen=True, slots=True)
class GlobalAsrQueue:
    """Takes jobs for the workers of the Serve application `app`; can be sent to other processes.

    `language`: code of what is spoken where a stream says nothing else, None to detect it.
    """

    app: str
    language: str | None = None

    def submit(self, task: DecodeTask) -> Future[Hypothesis]:
        """Have one window decoded.

        The future is this job's alone, so that no answer can reach another one. It raises
        `DeadlineExceeded` after `task.timeout_s`, `Overloaded` when too many wait already,
        `EngineUnavailable` when there are no workers, `EngineFailed` or `InvalidParameter`.
        Cancelling it takes the window out of the worker's queue.
        """
        return asyncio.run_coroutine_threadsafe(self._ask(task), _loop())

    async def _ask(self, task: DecodeTask) -> Hypothesis:
        if not ray.is_initialized():
            raise EngineUnavailable(RETRY_AFTER_S)
        try:
            client = _client(self.app)
        except (RayError, RayServeException) as exc:
            raise EngineUnavailable(RETRY_AFTER_S) from exc
        return await client.transcribe(task)


@lru_cache(maxsize=8)
def _client(app: str) -> ReplicaClient:
    """One for each application and process: a handle brings threads and connections, and a
    process may be sent the same queue many times."""
    return ReplicaClient(serve.get_app_handle(app))


@lru_cache(maxsize=1)
def _loop() -> asyncio.AbstractEventLoop:
    """Where the process's jobs wait for their answers. Those who wait for a job may be in an
    event loop of their own, where Serve's handles refuse to block."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="asr-jobs", daemon=True).start()
    return loop
