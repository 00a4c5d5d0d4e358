"""A `/stream` that follows `docs/protocol.md`, hears without a network, and breaks when told.

What is spoken is made of blocks of `BLOCK_S`, each of one value; a block of the value 7 is the
word "w7", and 0 is silence. So a server that got audio from a wrong place hears something else.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

RATE = 8_000
BLOCK_S = 0.25
CONFIG = {"sample_rate": RATE, "chunk_duration": 1.0, "overlap": 0.25}
DEFAULTS = {"policy": "chunk", "sample_rate": 16_000, "chunk_duration": 5.0, "overlap": 0.5}
WAIT_S = 10.0


def spoken(values: Sequence[int], rate: int = RATE) -> bytes:
    """The audio that says `values`, 16-bit mono."""
    return np.repeat(np.asarray(values, "<i2"), round(BLOCK_S * rate)).tobytes()


def text_of(values: Sequence[int]) -> str:
    return " ".join(f"w{value}" for value in values if value)


class Hearer:
    """One connection, without I/O: frames go in, messages come out.

    Every second of audio the blocks that ended 0.25 s before are made final; a resume point
    reaches back `reach_s`, as the real service's does.
    """

    def __init__(
        self, *, max_backlog_s: float = 60.0, idle_timeout_s: float = 30.0, reach_s: float = 0.6
    ) -> None:
        self.limits = {
            "max_backlog_s": max_backlog_s,
            "idle_timeout_s": idle_timeout_s,
            "max_frame_bytes": 2**24,
        }
        self.config: dict[str, Any] = {}
        self.most_waiting_s = 0.0
        self._reach_s = reach_s
        self._pcm = b""
        self._origin = self._committed = self._windowed = 0.0
        self._said = ""
        self._text: list[str] = []
        self._words = 0

    def text(self, frame: str) -> list[dict[str, Any]]:
        message = json.loads(frame)
        match message.pop("type"):
            case "config":
                return [self._begin(message)]
            case "keepalive":
                return [self._ack()]
            case "end":
                return [*self._window(0.0), self._done()]
        raise AssertionError(frame)

    def audio(self, frame: bytes) -> list[dict[str, Any]]:
        self._pcm += frame
        waiting_s = self.received_s - self._committed
        self.most_waiting_s = max(self.most_waiting_s, waiting_s)
        if self.received_s - self._windowed < self.config["chunk_duration"]:
            return []
        return self._window(self.config["overlap"])

    @property
    def received_s(self) -> float:
        return self._origin + len(self._pcm) // 2 / self._rate

    @property
    def _rate(self) -> int:
        return int(self.config["sample_rate"])

    def _begin(self, config: dict[str, Any]) -> dict[str, Any]:
        self.config = {**DEFAULTS, **config}
        resume = config.get("resume") or {"committed_until": 0.0, "audio_from": 0.0, "context": ""}
        self._origin = resume["audio_from"]
        self._committed = self._windowed = resume["committed_until"]
        self._said = resume["context"]
        return {
            "type": "ready",
            "session_id": "s",
            "protocol": 1,
            "config": {key: value for key, value in self.config.items() if key != "resume"},
            "limits": self.limits,
        }

    def _window(self, overlap_s: float) -> list[dict[str, Any]]:
        """What is final once the audio up to now is decoded, and an ack."""
        self._windowed = self.received_s
        words, end = [], self._committed
        while end + BLOCK_S <= self.received_s - overlap_s + 1e-9:
            first = round((end - self._origin) * self._rate)
            last = first + round(BLOCK_S * self._rate)
            block = np.frombuffer(self._pcm[2 * first : 2 * last], "<i2")
            if block.any():
                value = block[0] if (block == block[0]).all() else "?"
                fields = {"word": f"w{value}", "start": end, "end": end + BLOCK_S}
                words.append({**fields, "probability": 1.0})
            end += BLOCK_S
        self._committed = end
        return [*self._finals(words), self._ack()]

    def _finals(self, words: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if not words:
            return []
        text = "".join(f" {word['word']}" for word in words)
        text = text if self._said else text.lstrip()
        self._said = (self._said + text)[-20:]
        self._text.append(text)
        self._words += len(words)
        return [
            {"type": "partial", "start": 0.0, "end": 0.0, "text": "maybe"},
            {
                "type": "final",
                "start": words[0]["start"],
                "end": words[-1]["end"],
                "text": text,
                "words": words,
                "language": "en",
                "language_probability": 1.0,
                "processing_time": 0.01,
                "committed_until": self._committed,
                "resume": self._resume(),
            },
        ]

    def _ack(self) -> dict[str, Any]:
        return {
            "type": "ack",
            "received_until": self.received_s,
            "committed_until": self._committed,
            "lag": self.received_s - self._committed,
            "resume": self._resume(),
        }

    def _resume(self) -> dict[str, Any]:
        audio_from = max(self._origin, self._committed - self._reach_s)
        return {
            "committed_until": round(self._committed, 5),
            "audio_from": round(audio_from, 5),
            "context": self._said,
            "words": [],
        }

    def _done(self) -> dict[str, Any]:
        return {
            "type": "done",
            "text": "".join(self._text),
            "duration": self.received_s,
            "words": self._words,
            "statistics": {"windows": 1},
        }


@dataclass(frozen=True)
class Fault:
    """What happens to one connection.

    It ends once `after` messages were sent: with the close code `code`, without one when that
    is None, or it falls `silent`. `error` is sent before, `messages` behind `ready`. `deny`
    answers the handshake with a status.
    """

    after: int = 0
    code: int | None = None
    silent: bool = False
    error: tuple[str, str] | None = None
    messages: tuple[dict[str, Any], ...] = ()
    deny: int | None = None
    retry_after: str | None = None
    body: bytes = b""


HEALTHY = Fault(after=10**9)


@dataclass
class ScriptedServer:
    """`faults` befall the connections in their order; those behind them are healthy."""

    faults: Sequence[Fault] = ()
    hearer: dict[str, float] = field(default_factory=dict)
    url: str = ""
    port: int = 0
    hearers: list[Hearer] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    frames: list[str | bytes] = field(default_factory=list)
    close_codes: list[int] = field(default_factory=list)

    @property
    def resumes(self) -> list[Any]:
        """The resume objects of the connections."""
        return [hearer.config.get("resume") for hearer in self.hearers]

    def deny(self, connection: ServerConnection, request: Request) -> Response | None:
        self.requests.append(request)
        fault = self._fault(len(self.requests))
        connection.fault = fault  # type: ignore[attr-defined]
        if fault.deny is None:
            return None
        headers = Headers({"Content-Length": str(len(fault.body))})
        if fault.retry_after is not None:
            headers["Retry-After"] = fault.retry_after
        return Response(fault.deny, "Denied", headers, fault.body)

    def _fault(self, number: int) -> Fault:
        return self.faults[number - 1] if number <= len(self.faults) else HEALTHY

    async def handle(self, socket: ServerConnection) -> None:
        hearer = Hearer(**self.hearer)
        self.hearers.append(hearer)
        try:
            await self._converse(socket, hearer, socket.fault)  # type: ignore[attr-defined]
        except ConnectionClosed:
            pass
        finally:
            self.close_codes.append(socket.close_code or 0)

    async def _converse(self, socket: ServerConnection, hearer: Hearer, fault: Fault) -> None:
        sent = 0
        async for frame in socket:
            self.frames.append(frame)
            given = hearer.text(frame) if isinstance(frame, str) else hearer.audio(frame)
            for message in [*given, *(fault.messages if len(given) and not sent else ())]:
                if sent >= fault.after:
                    await self._break(socket, fault)
                    return
                await socket.send(json.dumps({**message, "seq": sent}))
                sent += 1
            if given and given[-1]["type"] == "done":
                await socket.close()

    async def _break(self, socket: ServerConnection, fault: Fault) -> None:
        if fault.error is not None:
            code, message = fault.error
            error = {"type": "error", "code": code, "message": message, "fatal": True}
            await socket.send(json.dumps(error))
        if fault.silent:
            await socket.wait_closed()
        elif fault.code is None:
            socket.transport.abort()
        else:
            await socket.close(fault.code)


@contextmanager
def running(*faults: Fault, port: int = 0, **hearer: float) -> Iterator[ScriptedServer]:
    """A server in a thread of its own, so that tests may block."""
    server = ScriptedServer(faults, hearer)
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def live() -> None:
        over = asyncio.Event()
        async with serve(
            server.handle,
            "127.0.0.1",
            port,
            process_request=server.deny,
            compression=None,
            max_queue=None,  # or a close frame would wait behind what nobody reads
        ) as sockets:
            server.port = next(iter(sockets.sockets)).getsockname()[1]
            server.url = f"http://127.0.0.1:{server.port}"
            started.set_result((asyncio.get_running_loop(), over))
            await over.wait()

    thread = threading.Thread(target=lambda: asyncio.run(live()))
    thread.start()
    try:
        loop, over = started.result(WAIT_S)
        try:
            yield server
        finally:
            loop.call_soon_threadsafe(over.set)
    finally:
        thread.join(WAIT_S)
