"""Asking all replicas of a deployment."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from typing import Any

from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from whisper_serve.deadline import within

# What an answer may be instead of one.
SILENCE = (asyncio.TimeoutError, RayError, RayServeException)


async def asked_of_all(
    handle: DeploymentHandle, method: str, timeout_s: float
) -> Sequence[Awaitable[Any]]:
    """The answers that are to come, one for each replica that Serve knows, which may be dead or
    hang. Raises `asyncio.TimeoutError`, or what Ray and Serve raise when there are none."""
    # The public `results_async` gives nothing at all when one replica hangs.
    asked = await within(timeout_s, handle.broadcast(method)._fetch_replica_results_async())
    return [one.get_async() for one in asked]


async def first_answer(handle: DeploymentHandle, method: str, timeout_s: float) -> Any:
    """Of any replica. Raises as `asked_of_all`, and `asyncio.TimeoutError` when there is none."""
    return await within(timeout_s, _first(handle, method, timeout_s))


async def _first(handle: DeploymentHandle, method: str, timeout_s: float) -> Any:
    answers = await asked_of_all(handle, method, timeout_s)
    waiting = [asyncio.ensure_future(answer) for answer in answers]
    try:
        for answer in asyncio.as_completed(waiting):
            with suppress(*SILENCE):
                return await answer
        raise asyncio.TimeoutError
    finally:
        for each in waiting:
            each.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
