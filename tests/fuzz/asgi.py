"""The application called as a server calls it, with no server in between."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from starlette.types import ASGIApp, Message, Scope

PATIENCE_S = 20.0
Headers = Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Target:
    """What a client asks for, as it stands in the first line of a request."""

    path: bytes
    query: bytes = b""

    def scope(self, kind: str, headers: Headers) -> Scope:
        return {
            "type": kind,
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "path": unquote(self.path.decode("ascii", "replace")),
            "raw_path": self.path,
            "query_string": self.query,
            "root_path": "",
            "headers": [(name.lower(), value) for name, value in headers],
            "client": ("127.0.0.1", 50_000),
            "server": ("127.0.0.1", 8_000),
            "state": {},
        }


@dataclass(frozen=True, slots=True)
class Request:
    """`pieces` of a body; a client that does not `stay` is gone behind the last of them."""

    method: str
    target: Target
    headers: Headers = ()
    pieces: Sequence[bytes] = ()
    stays: bool = True


@dataclass(slots=True)
class Answer:
    """What came back; `complete` when its end was told."""

    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    complete: bool = False


async def ask(app: ASGIApp, request: Request) -> Answer:
    """One request. Raises what the application raises, which a server could only log."""
    exchange = _Exchange(request)
    scope = request.target.scope("http", request.headers)
    scope.update(method=request.method, scheme="http")
    await asyncio.wait_for(app(scope, exchange.receive, exchange.send), PATIENCE_S)
    return exchange.answer


class _Exchange:
    def __init__(self, request: Request) -> None:
        self.answer = Answer()
        self._stays = request.stays
        self._incoming = [
            {"type": "http.request", "body": piece, "more_body": True} for piece in request.pieces
        ]
        if request.stays:
            self._incoming.append({"type": "http.request", "body": b"", "more_body": False})
        self._over = asyncio.Event()

    async def receive(self) -> Message:
        await asyncio.sleep(0)
        if self._incoming:
            return self._incoming.pop(0)
        if self._stays:
            await self._over.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        answer = self.answer
        assert not answer.complete, f"behind the end of an answer: {message}"
        if message["type"] == "http.response.start":
            assert answer.status is None, "an answer began twice"
            answer.status = message["status"]
            answer.headers = {
                n.decode("latin-1"): v.decode("latin-1") for n, v in message["headers"]
            }
        elif message["type"] == "http.response.body":
            assert answer.status is not None, "an answer has no beginning"
            answer.body += message.get("body", b"")
            answer.complete = not message.get("more_body", False)
        if answer.complete:
            self._over.set()


@dataclass(frozen=True, slots=True)
class Pause:
    """A client that does nothing for so long; 0: only lets all others go first."""

    seconds: float = 0.0


Frame = str | bytes | Pause


@dataclass(frozen=True, slots=True, repr=False)
class Call:
    """A client of a WebSocket: its `frames`, and then it leaves, or `stays` until it is closed."""

    target: Target
    frames: Sequence[Frame] = ()
    headers: Headers = ()
    subprotocols: Sequence[str] = ()
    stays: bool = False

    def __repr__(self) -> str:
        """Frames of audio are long."""
        frames = ", ".join(f"{frame!r:.200}" for frame in self.frames)
        facts = f"{self.headers!r:.200}, {self.subprotocols!r}, stays={self.stays}"
        return f"Call({self.target!r:.200}, [{frames}], {facts})"


@dataclass(slots=True)
class Played:
    """What a client saw: `denial` instead of a stream, or `sent` and the code of its close."""

    sent: list[str] = field(default_factory=list)
    denial: Answer | None = None
    close_code: int | None = None


async def play(app: ASGIApp, call: Call) -> Played:
    """One stream. Raises what the application raises."""
    stream = _Stream(call)
    scope = call.target.scope("websocket", call.headers)
    extensions: dict[str, Any] = {"websocket.http.response": {}}
    scope.update(scheme="ws", subprotocols=list(call.subprotocols), extensions=extensions)
    await asyncio.wait_for(app(scope, stream.receive, stream.send), PATIENCE_S)
    return stream.played


class _Stream:
    def __init__(self, call: Call) -> None:
        self.played = Played()
        self._stays = call.stays
        self._incoming: list[Frame] = list(call.frames)
        self._began = self._gone = False
        self._closed = asyncio.Event()

    async def receive(self) -> Message:
        if not self._began:
            self._began = True
            return {"type": "websocket.connect"}
        await asyncio.sleep(0)
        while self._incoming and not self._closed.is_set():
            frame = self._incoming.pop(0)
            if not isinstance(frame, Pause):
                kind = "text" if isinstance(frame, str) else "bytes"
                return {"type": "websocket.receive", kind: frame}
            await asyncio.sleep(frame.seconds)
        if self._stays:
            await self._closed.wait()
        self._gone = True
        return {"type": "websocket.disconnect", "code": 1006}

    async def send(self, message: Message) -> None:
        kind, played = message["type"], self.played
        assert not self._closed.is_set(), f"behind the close: {message}"
        if kind == "websocket.http.response.start":
            status = message["status"]
            headers = {n.decode("latin-1"): v.decode("latin-1") for n, v in message["headers"]}
            played.denial = Answer(status, headers)
        elif kind == "websocket.http.response.body":
            assert played.denial is not None
            played.denial.body += message.get("body", b"")
        elif kind == "websocket.close":
            played.close_code = message.get("code", 1000)
            assert len((message.get("reason") or "").encode()) <= 123, "too long for a close frame"
            self._closed.set()
        elif kind == "websocket.send":
            message["text"].encode()  # a server cannot write half a character
            if self._gone:
                raise OSError("the client is gone")
            played.sent.append(message["text"])
