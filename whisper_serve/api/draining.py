"""A process that is about to stop: nothing new comes in, and what is under way ends in time."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from whisper_serve.api.failures import Failure, answer_failure
from whisper_serve.errors import Draining

# Until another process may have taken over.
RETRY_AFTER_S = 2.0
# What asks for work; all else is answered at once, and told while the process drains.
WORK = {"POST", "PUT", "PATCH"}

Result = TypeVar("Result")


class Drain:
    """Whether the process is about to stop, and how much it has under way."""

    def __init__(self) -> None:
        self._begun, self._over = asyncio.Event(), asyncio.Event()
        self._ends: asyncio.TimerHandle | None = None
        self._held = 0

    def begin(self, timeout_s: float) -> None:
        """What is under way may go on for `timeout_s`. Said again, the shorter time counts. In a
        running loop only."""
        loop = asyncio.get_running_loop()
        self._begun.set()
        if self._ends is None or loop.time() + timeout_s < self._ends.when():
            if self._ends is not None:
                self._ends.cancel()
            self._ends = loop.call_later(timeout_s, self._over.set)

    @property
    def is_begun(self) -> bool:
        return self._begun.is_set()

    @property
    def left_s(self) -> float | None:
        """For how much longer what is under way may go on; None when nothing has to end."""
        if self._ends is None:
            return None
        return max(0.0, self._ends.when() - asyncio.get_running_loop().time())

    def require_open(self) -> None:
        """Raises `Draining`."""
        if self.is_begun:
            raise Draining(RETRY_AFTER_S)

    async def begun(self) -> None:
        await self._begun.wait()

    async def over(self) -> None:
        """Until what is under way has to end."""
        await self._over.wait()

    async def unless_over(self, work: Coroutine[Any, Any, Result]) -> Result:
        """What `work` gives. Raises `Draining` once the drain is over; `work` is cancelled then."""
        working, over = asyncio.ensure_future(work), asyncio.ensure_future(self.over())
        try:
            await asyncio.wait([working, over], return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                raise Draining(RETRY_AFTER_S)
            return working.result()
        finally:
            working.cancel()
            over.cancel()
            await asyncio.wait([working, over])

    @property
    def under_way(self) -> int:
        """Requests that ask for work, and streams."""
        return self._held

    @contextmanager
    def hold(self) -> Iterator[None]:
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1


class DrainMiddleware:
    """Counts what is under way. A request that is not done when the drain is over is given up,
    and answered 503; streams end by themselves. Plain ASGI."""

    def __init__(self, app: ASGIApp, *, drain: Drain) -> None:
        self._app = app
        self._drain = drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            with self._drain.hold():
                await self._app(scope, receive, send)
        elif scope["type"] == "http" and scope["method"] in WORK:
            with self._drain.hold():
                await self._until_over(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _until_over(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False

        async def watched(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._drain.unless_over(_run(self._app, scope, receive, watched))
        except Draining as exc:
            if has_begun:
                raise  # half an answer is out: the server has to break it off
            request = Request(scope)
            await answer_failure(Failure.of(exc, request), request)(scope, receive, send)


async def _run(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    await app(scope, receive, send)
