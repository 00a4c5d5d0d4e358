"""A stream's WebSocket from the handshake to the close, whatever is spoken on it."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import NamedTuple

from fastapi import WebSocket, WebSocketDisconnect

from whisper_serve.api.admission import Admission
from whisper_serve.api.auth.bill import bill_of
from whisper_serve.api.auth.callers import ANYONE, caller_of
from whisper_serve.api.auth.credentials import SUBPROTOCOL, offered_by
from whisper_serve.api.course import Course
from whisper_serve.api.delays import StreamMeter
from whisper_serve.api.failures import Failure, answer_failure
from whisper_serve.api.live import MAX_FRAME_BYTES, Timing, converse
from whisper_serve.api.measuring import route_of
from whisper_serve.api.peer import Peer, PeerGone
from whisper_serve.api.services import Services
from whisper_serve.errors import (
    Draining,
    FrameTooBig,
    Overloaded,
    QuotaExceeded,
    StorageUnavailable,
    TooManyStreams,
    WhisperServeError,
)
from whisper_serve.observability.context import bound

logger = logging.getLogger(__name__)

# Text is read by the JSON parser at once; the largest that makes sense has a tenth of this.
MAX_TEXT_CHARS = 1 << 18
# What servers raise when the client is not there any more.
GONE = (WebSocketDisconnect, RuntimeError, OSError)


class Closing(NamedTuple):
    """The close frame of a stream."""

    code: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Dialect:
    """What is special about the clients of a route. `idle_timeout_s`: as configured without one.
    `closing`: the close frame for a close code of `errors.py`."""

    make_peer: Callable[[Connection], Peer]
    max_text_chars: int = MAX_TEXT_CHARS
    idle_timeout_s: float | None = None
    subprotocol: str | None = None
    closing: Callable[[int], Closing] = Closing


class Connection:
    """The frames of a WebSocket that was accepted."""

    def __init__(self, socket: WebSocket, max_text_chars: int = MAX_TEXT_CHARS) -> None:
        self._socket = socket
        self._max_text_chars = max_text_chars

    async def receive(self) -> str | bytes | None:
        """The next frame, None when the client is gone. Raises `FrameTooBig`."""
        message = await self._socket.receive()
        if message["type"] == "websocket.disconnect":
            return None
        data: bytes | None = message.get("bytes")
        text: str = message.get("text") or ""
        for frame, limit in ((data or b"", MAX_FRAME_BYTES), (text, self._max_text_chars)):
            if len(frame) > limit:
                raise FrameTooBig(limit)
        return text if data is None else bytes(data)

    async def send(self, text: str) -> None:
        """Raises `PeerGone`."""
        try:
            await self._socket.send_text(text)
        except GONE as exc:
            raise PeerGone from exc


async def serve(
    socket: WebSocket,
    dialect: Dialect,
    *,
    services: Services,
    admission: Admission,
    timing: Timing,
) -> None:
    """Admit the client, or refuse it with an HTTP answer; then serve its stream."""
    session_id = uuid.uuid4().hex
    socket.state.course = course = Course()
    with bound(session_id=session_id), ExitStack() as place:
        try:
            place.enter_context(_place(socket, admission))
            place.enter_context(services.door.admit_stream())
            await bill_of(socket).require_rest()
        except (Draining, Overloaded, TooManyStreams, QuotaExceeded, StorageUnavailable) as exc:
            await deny(socket, exc)
            return
        try:
            await socket.accept(dialect.subprotocol or _own_subprotocol(socket))
        except GONE:
            return
        meter = StreamMeter(services.metrics, route_of(socket.scope))
        with meter.stream():
            code = meter.code = await converse(
                dialect.make_peer(Connection(socket, dialect.max_text_chars)),
                config=services.config,
                port=services.port,
                session_id=session_id,
                timing=timing,
                door=services.door,
                idle_timeout_s=dialect.idle_timeout_s,
                meter=meter,
                course=course,
                bill=bill_of(socket),
            )
        if code is not None:
            await _close(socket, dialect.closing(code), timing.last_words_s)


def _place(socket: WebSocket, admission: Admission) -> AbstractContextManager[None]:
    caller = caller_of(socket)
    if caller is ANYONE:
        return admission.admit(client_of(socket))
    return admission.admit_caller(caller.name, caller.max_streams)


def _own_subprotocol(socket: WebSocket) -> str | None:
    return SUBPROTOCOL if SUBPROTOCOL in offered_by(socket) else None


async def _close(socket: WebSocket, closing: Closing, timeout_s: float) -> None:
    try:
        # A client that does not read lets nothing more through.
        await asyncio.wait_for(socket.close(*closing), timeout_s)
    except (*GONE, asyncio.TimeoutError):
        logger.debug("the client was gone before its stream was closed")


async def deny(socket: WebSocket, exc: WhisperServeError) -> None:
    """Refuse the handshake with an HTTP answer in the shape of the path's other errors."""
    try:
        await socket.send_denial_response(answer_failure(Failure.of(exc, socket), socket))
    except GONE:
        logger.debug("the client was gone before it was refused")


def client_of(socket: WebSocket) -> str:
    return socket.client.host if socket.client else ""
