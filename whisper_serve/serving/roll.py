"""Whether Serve is stopping this replica, which it tells nobody.

Serve stops a replica when it is replaced, when there are to be fewer, or when its health is bad:
it sends it no more requests, and ends it when it has none or its time is over. What it does tell
is which replicas a broadcast reaches. So the replicas of a deployment call the roll, each for
itself; one that was on it and is no longer is being stopped. A controller that is away changes
nothing, since the last known roll holds until it is back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import DeploymentUnavailableError, RayServeException
from ray.serve.handle import DeploymentHandle

logger = logging.getLogger(__name__)

CALL_EVERY_S = 2.0
ANSWER_S = 5.0
# Calls in a row without this replica; one might have been made just before it was put on the roll.
MISSED = 2


class Roll:
    """Decides from roll calls whether the replica `name` has been taken off."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._was_there = False
        self._missed = 0

    def called(self, answers: Sequence[object]) -> bool:
        """`answers`: the names of those who answered, and an exception for each who did not.
        Returns whether this replica is being stopped."""
        if self._name in answers:
            self._was_there, self._missed = True, 0
        elif not any(isinstance(answer, BaseException) for answer in answers):
            self._missed += 1
        return self._was_there and self._missed >= MISSED


async def taken_off() -> None:
    """Until Serve stops the replica that this runs in, whose method `name` gives its tag."""
    context = serve.get_replica_context()
    roll = Roll(context.replica_tag)
    peers = await asyncio.to_thread(
        serve.get_deployment_handle, context.deployment, context.app_name
    )
    while not roll.called(await _call(peers)):  # noqa: ASYNC110 - nothing tells
        await asyncio.sleep(CALL_EVERY_S)


async def _call(peers: DeploymentHandle) -> Sequence[object]:
    try:
        called = peers.broadcast("name")
        names: list[object] = await called.results_async(timeout_s=ANSWER_S, return_exceptions=True)
    except DeploymentUnavailableError:  # all of them are
        return []
    except (RayError, RayServeException, TimeoutError) as exc:
        return [exc]
    return names
