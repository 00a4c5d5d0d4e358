"""Whether Serve is stopping this replica, which it tells nobody, and for how long it may go on.

Serve stops a replica when it is replaced, when there are to be fewer, or when its health is bad:
it sends it no more requests, and ends it when it has none or its time is over. What it does tell
is which replicas a broadcast reaches. So the replicas of a deployment call the roll, each for
itself; one that was on it and is no longer is being stopped. A controller that is away changes
nothing, since the last known roll holds until it is back.

One that was taken off tells those that are on the roll what it still has, and hears from them when
the whole service stops: nobody else can reach it.
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
LEAVER_GONE_S = 3 * CALL_EVERY_S


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


class Handover:
    """Decides how much longer a replica that was taken off may go on: while others serve on, for
    as long as it likes; when they drain, as long as they; when there are none, `drain_timeout_s`,
    since then the service stops, or was stopped by somebody who did not wait."""

    def __init__(self, drain_timeout_s: float) -> None:
        self._drain_timeout_s = drain_timeout_s
        self._missed = 0

    def called(self, answers: Sequence[object]) -> float | None:
        """`answers`: of each on the roll the seconds until its drain is over, None when it does
        not drain, and an exception when it does not answer. Returns seconds from now; None: they
        tell nothing new."""
        drains = [answer for answer in answers if isinstance(answer, float)]
        if drains:
            return min(drains)
        self._missed = 0 if answers else self._missed + 1
        return self._drain_timeout_s if self._missed >= MISSED else None


class Leavers:
    """What those that were taken off have said that they still have under way."""

    def __init__(self) -> None:
        self._told: dict[str, tuple[float, int]] = {}

    def told(self, name: str, under_way: int, now: float) -> None:
        self._told[name] = (now, under_way)
        self._forget(now)

    def under_way(self, now: float) -> int:
        """One that has said nothing for some time is gone."""
        self._forget(now)
        return sum(under_way for _, under_way in self._told.values())

    def _forget(self, now: float) -> None:
        last = self._told.items()
        self._told = {name: told for name, told in last if now - told[0] <= LEAVER_GONE_S}


class Peers:
    """Those on the roll of the deployment whose replica this runs in."""

    def __init__(self, handle: DeploymentHandle, name: str) -> None:
        self._handle = handle
        self._name = name

    @classmethod
    async def here(cls) -> Peers:
        context = serve.get_replica_context()
        handle = await asyncio.to_thread(
            serve.get_deployment_handle, context.deployment, context.app_name
        )
        return cls(handle, context.replica_tag)

    async def taken_off(self) -> None:
        """Until Serve stops this replica. The method `name` of each gives its tag."""
        roll = Roll(self._name)
        while not roll.called(await self._call("name")):  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(CALL_EVERY_S)

    async def leave(self, under_way: int) -> Sequence[object]:
        """Tell them what this replica still has. What their method `leaving` answers."""
        return await self._call("leaving", self._name, under_way)

    async def _call(self, method: str, *arguments: object) -> Sequence[object]:
        try:
            called = self._handle.broadcast(method, *arguments)
            answers: list[object] = await called.results_async(
                timeout_s=ANSWER_S, return_exceptions=True
            )
        except DeploymentUnavailableError:  # all of them are
            return []
        except (RayError, RayServeException, TimeoutError) as exc:
            return [exc]
        return answers
