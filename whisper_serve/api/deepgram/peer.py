"""The other end of a live stream that speaks Deepgram's protocol."""

from __future__ import annotations

import asyncio
import hashlib
import json

from whisper_serve.api.connection import Closing, Connection
from whisper_serve.api.deepgram.answers import created_now
from whisper_serve.api.deepgram.results import LiveResults
from whisper_serve.api.live import LARGE_FRAME_BYTES
from whisper_serve.api.peer import Incoming
from whisper_serve.errors import (
    EmptyAudio,
    InvalidMessage,
    StreamIdle,
    UnreadableAudio,
    UnsupportedFormat,
)
from whisper_serve.streaming.messages import (
    ClientMessage,
    Done,
    End,
    Failed,
    Flush,
    Keepalive,
    ServerMessage,
    StreamConfig,
    json_object,
)

MESSAGES: dict[str, ClientMessage] = {
    "CloseStream": End(),
    "Finalize": Flush(),
    "KeepAlive": Keepalive(),
}
# A close frame has no room for more.
MAX_REASON_BYTES = 123
NO_AUDIO = {UnreadableAudio.code, UnsupportedFormat.code, EmptyAudio.code}


class Farewell:
    """How a stream is closed: with the close code of that API, and the failure as its reason."""

    def __init__(self) -> None:
        self._failure: Failed | None = None

    def note(self, failure: Failed) -> None:
        if failure.fatal:
            self._failure = failure

    def closing(self, code: int) -> Closing:
        if self._failure is None:
            return Closing(code)
        known, message = self._failure.code, self._failure.message
        if known == StreamIdle.code:
            return _closing(1011, f"NET-0001: {message}")
        if known in NO_AUDIO:
            return _closing(1008, f"DATA-0000: {message}")
        return _closing(code, message)


def _closing(code: int, reason: str) -> Closing:
    kept = reason.encode()[:MAX_REASON_BYTES]
    return Closing(code, kept.decode(errors="ignore"))


class ListenPeer:
    """A client that has said in the URL what it wants."""

    is_lenient = True

    def __init__(
        self,
        connection: Connection,
        *,
        config: StreamConfig,
        results: LiveResults,
        farewell: Farewell,
    ) -> None:
        self._connection = connection
        self._config = config
        self._results = results
        self._farewell = farewell
        self._created = created_now()
        self._audio = hashlib.sha256()
        self._ended = False

    async def configuration(self) -> StreamConfig:
        return self._config

    async def receive(self) -> Incoming:
        """Clients may end a stream twice and keep it alive behind its end; nothing of that is
        read any more."""
        frame = await self._connection.receive()
        while self._ended and frame is not None:
            await asyncio.sleep(0)
            frame = await self._connection.receive()
        if isinstance(frame, bytes) and frame:
            await self._count(frame)
            return frame
        if frame is None:
            return None
        message = control(frame) if isinstance(frame, str) else End()
        self._ended = isinstance(message, End)
        return message

    async def send(self, message: ServerMessage) -> None:
        if isinstance(message, Failed):
            self._farewell.note(message)
        if isinstance(message, Done):
            sha256 = self._audio.hexdigest()
            told: object = self._results.metadata(message, sha256=sha256, created=self._created)
        else:
            told = self._results.tell(message)
        if told is not None:
            await self._connection.send(json.dumps(told, separators=(",", ":"), ensure_ascii=False))

    async def _count(self, audio: bytes) -> None:
        if len(audio) > LARGE_FRAME_BYTES:
            await asyncio.to_thread(self._audio.update, audio)
        else:
            self._audio.update(audio)


def control(frame: str) -> ClientMessage:
    """A text frame. Raises `InvalidMessage`."""
    message = json_object(frame)
    kind = message.pop("type", None)
    known = MESSAGES.get(kind) if isinstance(kind, str) else None
    if known is None:
        names = ", ".join(MESSAGES)
        raise InvalidMessage(f"there is no message of type {str(kind)[:40]!r}; known: {names}")
    if isinstance(known, Flush) and message.get("channel") == 0:
        del message["channel"]  # all there is
    if message:
        raise InvalidMessage(f"{kind!r} takes no {next(iter(message))[:40]!r}")
    return known
