"""`WS /stream`: live audio in, text out while it is spoken."""

from __future__ import annotations

import asyncio
import json
from functools import partial

from fastapi import APIRouter, WebSocket

from whisper_serve.api.admission import Admission
from whisper_serve.api.connection import Connection, Dialect, serve
from whisper_serve.api.live import Timing
from whisper_serve.api.peer import Incoming, PeerGone
from whisper_serve.api.services import Services
from whisper_serve.deadline import within
from whisper_serve.streaming.messages import (
    Configure,
    ServerMessage,
    StreamConfig,
    parse_message,
    wire,
)


class NativePeer:
    """A client that speaks `docs/protocol.md`. One that sends nothing for `config_timeout_s`
    gets the defaults."""

    is_lenient = True

    def __init__(self, connection: Connection, *, config_timeout_s: float) -> None:
        self._connection = connection
        self._config_timeout_s = config_timeout_s
        self._seq = 0
        self._had_text = False
        self._pending: Incoming = None

    async def configuration(self) -> StreamConfig:
        """What the first frame says. One that is no configuration waits for `receive`."""
        try:
            first = await within(self._config_timeout_s, self.receive())
        except asyncio.TimeoutError:
            return StreamConfig()
        if first is None:
            raise PeerGone
        if isinstance(first, Configure):
            return StreamConfig.parse(first.values)
        self._pending = first
        return StreamConfig()

    async def receive(self) -> Incoming:
        if self._pending is not None:
            pending, self._pending = self._pending, None
            return pending
        frame = await self._connection.receive()
        if not isinstance(frame, str):
            return frame
        first, self._had_text = not self._had_text, True
        return parse_message(frame, first=first)

    async def send(self, message: ServerMessage) -> None:
        fields = wire(message, self._seq)
        await self._connection.send(json.dumps(fields, separators=(",", ":"), ensure_ascii=False))
        self._seq += 1


def stream_router(
    services: Services, admission: Admission, *, timing: Timing | None = None
) -> APIRouter:
    timing = timing or Timing()
    router = APIRouter()
    native = Dialect(partial(NativePeer, config_timeout_s=timing.config_s))

    @router.websocket("/v1/stream")
    @router.websocket("/stream")
    async def stream(socket: WebSocket) -> None:
        await serve(socket, native, services=services, admission=admission, timing=timing)

    return router
