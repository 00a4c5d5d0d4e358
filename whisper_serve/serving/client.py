"""The engine replicas as the pipeline sees them: deadlines, retries and plain errors.

Everything that Ray raises is translated here; nothing above this module knows of it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle, DeploymentResponse

from whisper_serve.api.services import EngineStatus
from whisper_serve.engines.base import DecodeTask
from whisper_serve.errors import (
    DeadlineExceeded,
    EngineFailed,
    EngineUnavailable,
    Overloaded,
    WhisperServeError,
)
from whisper_serve.text.transcript import Hypothesis

logger = logging.getLogger(__name__)

# A window is asked for again when its replica dies under it, but one that kills every
# replica it meets must not kill them all.
MAX_ATTEMPTS = 3
RETRY_AFTER_S = 5.0
STATUS_TIMEOUT_S = 2.0


class ReplicaClient:
    """Implements `Transcribes` and `ChecksEngines` over a handle to the engine replicas."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = handle

    async def transcribe(self, task: DecodeTask) -> Hypothesis:
        expires_at = time.monotonic() + task.timeout_s
        for attempt in range(1, MAX_ATTEMPTS + 1):
            remaining = expires_at - time.monotonic()
            try:
                hypothesis: Hypothesis = await _answer(
                    self._replicas_for(task).transcribe.remote(task), remaining
                )
            except asyncio.TimeoutError as exc:
                raise DeadlineExceeded(task.timeout_s) from exc
            except RayActorError as exc:
                logger.warning("a replica died, attempt %d of %d: %s", attempt, MAX_ATTEMPTS, exc)
            except (RayError, RayServeException) as exc:
                raise _translated(exc) from exc
            else:
                return hypothesis
        raise EngineUnavailable(RETRY_AFTER_S)

    def _replicas_for(self, task: DecodeTask) -> DeploymentHandle:
        """Those that have the task's model come first."""
        if not task.model:
            return self._handle
        return self._handle.options(multiplexed_model_id=task.model)

    async def status(self) -> EngineStatus:
        try:
            status: EngineStatus = await _answer(self._handle.status.remote(), STATUS_TIMEOUT_S)
        except (asyncio.TimeoutError, RayError, RayServeException) as exc:
            raise EngineUnavailable(RETRY_AFTER_S) from exc
        return status


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
