"""The engine replicas as the pipeline sees them: deadlines, retries and plain errors.

Everything that Ray raises is translated here; nothing above this module knows of it.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ray.exceptions import RayActorError, RayError, RayTaskError, TaskCancelledError
from ray.serve.exceptions import BackPressureError, RayServeException, RequestCancelledError
from ray.serve.handle import DeploymentHandle, DeploymentResponse

from whisper_serve.api.services import EngineStatus
from whisper_serve.engines.base import DecodeTask
from whisper_serve.errors import (
    DeadlineExceeded,
    EngineFailed,
    EngineUnavailable,
    InvalidRequest,
    Overloaded,
    WhisperServeError,
)
from whisper_serve.serving.breaker import Breaker
from whisper_serve.serving.broadcast import SILENCE, first_answer
from whisper_serve.text.transcript import Hypothesis

logger = logging.getLogger(__name__)

# A window is asked for again when its replica dies under it, but one that kills every
# replica it meets must not kill them all.
MAX_ATTEMPTS = 3
# Before another attempt, twice as long before the next.
BACKOFF_S = 0.1
RETRY_AFTER_S = 5.0
# For the engine that is asked first, and then for any of them.
STATUS_TIMEOUT_S, ANY_STATUS_TIMEOUT_S = 1.0, 2.0
# What a call raises that was given up by whoever asked.
CANCELLED = (TaskCancelledError, RequestCancelledError)


class ReplicaClient:
    """Implements `Transcribes` and `ChecksEngines` over a handle to the engine replicas.

    Each model has one of the `breakers`. While it is open, requests fail at once with
    `EngineUnavailable`. What is the engines' fault counts for it: replicas that die, decodes that
    break, no replicas at all. A window that waited too long or found the queue full says nothing
    about them; one that an engine answered, even with a refusal, says that they are well.
    """

    def __init__(
        self,
        handle: DeploymentHandle,
        *,
        make_breaker: Callable[[], Breaker] = Breaker,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._handle = handle
        self.breakers: defaultdict[str, Breaker] = defaultdict(make_breaker)
        self._chance = chance

    async def transcribe(self, task: DecodeTask) -> Hypothesis:
        expires_at = time.monotonic() + task.timeout_s
        for attempt in range(1, MAX_ATTEMPTS + 1):
            try:
                return _counted(await self._attempt(task, expires_at), attempt)
            except asyncio.TimeoutError as exc:
                raise DeadlineExceeded(task.timeout_s) from exc
            except RayActorError as exc:
                logger.warning("a replica died, attempt %d of %d: %s", attempt, MAX_ATTEMPTS, exc)
            except (RayError, RayServeException) as exc:
                raise _translated(exc) from exc
            if attempt < MAX_ATTEMPTS and not await self._pause(attempt, expires_at):
                raise DeadlineExceeded(task.timeout_s)
        raise EngineUnavailable(RETRY_AFTER_S)

    async def _attempt(self, task: DecodeTask, expires_at: float) -> Hypothesis:
        """Raises what Ray raises, and `EngineUnavailable` when the breaker is open."""
        breaker = self.breakers[task.model]
        now = time.monotonic()
        if (wait_s := breaker.wait_s(now)) > 0:
            raise EngineUnavailable(wait_s)
        try:
            response = self._replicas_for(task).transcribe.remote(task)
            hypothesis: Hypothesis = await _answer(response, expires_at - now)
        except BaseException as exc:
            _learn(breaker, exc)
            raise
        breaker.succeeded()
        return hypothesis

    async def _pause(self, attempt: int, expires_at: float) -> bool:
        """Whether there is time for another attempt, so that a replica that takes another's place
        does not get all of its windows at the same instant."""
        pause_s = BACKOFF_S * 2 ** (attempt - 1) * (0.5 + self._chance() / 2)
        if time.monotonic() + pause_s >= expires_at:
            return False
        await asyncio.sleep(pause_s)
        return True

    def _replicas_for(self, task: DecodeTask) -> DeploymentHandle:
        """Those that have the task's model come first."""
        if not task.model:
            return self._handle
        return self._handle.options(multiplexed_model_id=task.model)

    async def status(self) -> EngineStatus:
        """Of an engine that answers; so one on a machine that is gone, which may take a while to be
        known, does not speak for all."""
        try:
            return await self._status()
        except SILENCE as exc:
            raise EngineUnavailable(RETRY_AFTER_S) from exc

    async def _status(self) -> EngineStatus:
        try:
            status: EngineStatus = await _answer(self._handle.status.remote(), STATUS_TIMEOUT_S)
        except (asyncio.TimeoutError, RayActorError):
            status = await first_answer(self._handle, "status", ANY_STATUS_TIMEOUT_S)
        return status


def _learn(breaker: Breaker, exc: BaseException) -> None:
    error = exc
    if isinstance(exc, (RayError, RayServeException)) and not isinstance(exc, CANCELLED):
        error = _translated(exc)
    if isinstance(error, (EngineFailed, EngineUnavailable)):
        breaker.failed(time.monotonic())
    elif isinstance(error, InvalidRequest):
        breaker.succeeded()
    else:
        breaker.learned_nothing()


def _counted(hypothesis: Hypothesis, attempts: int) -> Hypothesis:
    return replace(hypothesis, stats=replace(hypothesis.stats, attempts=attempts))


async def _answer(response: DeploymentResponse, timeout_s: float) -> Any:
    """The response's value; when nobody waits for it any more, the replica is told."""
    try:
        return await asyncio.wait_for(_value(response), timeout_s)
    except (asyncio.TimeoutError, asyncio.CancelledError):
        response.cancel()
        raise


async def _value(response: DeploymentResponse) -> Any:
    return await response


def _translated(exc: Exception) -> WhisperServeError:
    if isinstance(exc, RayTaskError):
        cause = exc.cause
        return cause if isinstance(cause, WhisperServeError) else EngineFailed(repr(cause))
    if isinstance(exc, BackPressureError):
        return Overloaded(exc.retry_after_s or RETRY_AFTER_S)
    if isinstance(exc, RayServeException):
        return EngineUnavailable(RETRY_AFTER_S)
    return EngineFailed(repr(exc))
