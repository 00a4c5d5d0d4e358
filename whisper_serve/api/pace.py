"""How slowly a request's body may come: whoever sends a byte a second holds a place for ever."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from whisper_serve.deadline import within
from whisper_serve.errors import UploadTooSlow

# Speech in a sparing codec, sent while it is spoken, comes at twice this rate.
LEAST_BYTES_PER_S = 1024
# A connection may stall for so long.
GRACE_S = 30.0


@dataclass(frozen=True, slots=True)
class UploadPace:
    """`timeout_s`: for the whole body, however much it is."""

    timeout_s: float
    grace_s: float = GRACE_S

    def allowed_s(self, received_bytes: int) -> float:
        """How long a client may be waited for, all in all, that has sent so much."""
        return min(self.timeout_s, self.grace_s + received_bytes / LEAST_BYTES_PER_S)


class UploadPaceMiddleware:
    """Raises `UploadTooSlow` in whoever reads the body. Only the time that is spent waiting for the
    client counts, and nothing does once the body is there."""

    def __init__(self, app: ASGIApp, *, pace: UploadPace) -> None:
        self._app = app
        self._pace = pace

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            receive = _Body(receive, self._pace).receive
        await self._app(scope, receive, send)


class _Body:
    def __init__(self, receive: Receive, pace: UploadPace) -> None:
        self._receive = receive
        self._pace = pace
        self._received = 0
        self._waited_s = 0.0
        self._is_whole = False

    async def receive(self) -> Message:
        if self._is_whole:
            return await self._receive()
        allowed_s = self._pace.allowed_s(self._received)
        began = time.monotonic()
        try:
            message = await within(allowed_s - self._waited_s, self._next())
        except asyncio.TimeoutError as exc:
            raise UploadTooSlow(allowed_s) from exc
        self._waited_s += time.monotonic() - began
        self._received += len(message.get("body", b""))
        self._is_whole = not message.get("more_body", False)
        return message

    async def _next(self) -> Message:
        return await self._receive()
