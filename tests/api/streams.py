"""Live streams for tests: an engine that understands test speech, clients of both kinds (a
real socket, and the bare other end of a stream), and a server that must leave nothing behind.
"""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import uvicorn
from fastapi import APIRouter, FastAPI
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.api.fakes import FakeEngines
from tests.streaming.speaker import heard_words, speech
from whisper_serve.api.admission import Admission
from whisper_serve.api.auth.gate import Gate
from whisper_serve.api.auth.middleware import AuthMiddleware
from whisper_serve.api.error_handlers import install_error_handlers
from whisper_serve.api.live import Timing
from whisper_serve.api.middleware import RequestContextMiddleware
from whisper_serve.api.peer import Incoming, PeerGone
from whisper_serve.api.services import Services
from whisper_serve.audio.pcm import Samples
from whisper_serve.config import AuthConfig, Config
from whisper_serve.engines.base import DecodeTask
from whisper_serve.pipeline import Transcriber
from whisper_serve.streaming.messages import ServerMessage, StreamConfig
from whisper_serve.text.transcript import DecodeStats, Hypothesis, Segment

# Far longer than anything here takes.
PATIENCE_S = 10.0
HASTY = Timing(config_s=0.2, ack_every_s=0.02, longest_wait_s=0.05, last_words_s=0.3)
COST = DecodeStats(encoded_s=0.1, decoded_s=0.2)

Trouble = BaseException | Callable[[DecodeTask], Awaitable[None]]


@dataclass
class Engine:
    """Understands the speech of `speaker`. Calls number 0, 1, ... meet `troubles` before they
    are answered: an exception to raise, something to wait for, or None; behind these, all
    calls meet `trouble`."""

    troubles: Sequence[Trouble | None] = ()
    trouble: Trouble | None = None
    tasks: list[DecodeTask] = field(default_factory=list)
    given_up: int = 0

    async def transcribe(self, task: DecodeTask) -> Hypothesis:
        number = len(self.tasks)
        self.tasks.append(task)
        trouble = self.troubles[number] if number < len(self.troubles) else self.trouble
        try:
            if isinstance(trouble, BaseException):
                raise trouble
            if trouble is not None:
                await trouble(task)
        except asyncio.CancelledError:
            self.given_up += 1
            raise
        return hear(task)


def hear(task: DecodeTask) -> Hypothesis:
    """What is said behind the prefix."""
    words = heard_words(task.samples, {})[len(task.prefix.split()) :]
    segments = (Segment(0.0, task.duration_s, "").with_words(words),) if words else ()
    return Hypothesis(segments, task.language or "en", 0.9, COST)


async def for_ever(task: DecodeTask) -> None:
    await asyncio.Event().wait()


def words(count: int, *, pause_s: float = 0.1, spoken_s: float = 0.4) -> Samples:
    """Speech that says "w0 w1 ...", half a second a word unless told otherwise."""
    return speech([(pause_s, spoken_s)] * count)


def quiet(duration_s: float) -> Samples:
    return np.zeros(round(duration_s * 16_000), np.int16)


def said(count: int) -> str:
    return " ".join(f"w{number}" for number in range(count))


# The bare other end of a stream


class ScriptedPeer:
    """A client without a socket. It is there until it `leaves`."""

    def __init__(self, config: Mapping[str, Any] | None = None, *, is_lenient: bool = True) -> None:
        self.is_lenient = is_lenient
        self.sent: list[ServerMessage] = []
        self._config = StreamConfig.parse({"vad": False, **(config or {})})
        self._incoming: asyncio.Queue[Incoming | Exception] = asyncio.Queue()
        self._news = asyncio.Event()
        self.reads = asyncio.Event()
        self.reads.set()
        self.is_gone = False

    def says(self, *incoming: Incoming | Samples | Exception) -> None:
        for item in incoming:
            self._incoming.put_nowait(item.tobytes() if isinstance(item, np.ndarray) else item)

    def leaves(self) -> None:
        self.says(None)

    async def configuration(self) -> StreamConfig:
        return self._config

    async def receive(self) -> Incoming:
        item = await self._incoming.get()
        if isinstance(item, Exception):
            raise item
        return item

    async def send(self, message: ServerMessage) -> None:
        await self.reads.wait()
        if self.is_gone:
            raise PeerGone
        self.sent.append(message)
        self._news.set()

    async def hears(self, kind: type, count: int = 1) -> Any:
        """Message number `count` of this kind, waited for."""

        async def wait() -> Any:
            while len(found := self.all(kind)) < count:
                self._news.clear()
                await self._news.wait()
            return found[count - 1]

        return await asyncio.wait_for(wait(), PATIENCE_S)

    def all(self, kind: type) -> list[Any]:
        return [message for message in self.sent if isinstance(message, kind)]


# A real socket


class Client:
    """A client of a real server; `messages` are those that were read."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self.messages: list[dict[str, Any]] = []

    async def send(self, *frames: Mapping[str, Any] | str | bytes | Samples) -> None:
        """What the server does not want to hear any more is not sent."""
        with suppress(ConnectionClosed):
            for frame in frames:
                if isinstance(frame, np.ndarray):
                    await self._connection.send(frame.tobytes())
                else:
                    text = json.dumps(frame) if isinstance(frame, Mapping) else frame
                    await self._connection.send(text)

    async def read(self) -> dict[str, Any]:
        frame = await asyncio.wait_for(self._connection.recv(), PATIENCE_S)
        message: dict[str, Any] = json.loads(frame)
        self.messages.append(message)
        return message

    async def read_text(self) -> str:
        return str(await asyncio.wait_for(self._connection.recv(), PATIENCE_S))

    async def until(self, kind: str, **fields: object) -> dict[str, Any]:
        """The next message with this type and these fields."""
        while True:
            message = await self.read()
            if message["type"] == kind and fields.items() <= message.items():
                return message

    async def closed(self) -> int:
        """Read all that still comes; the close code."""
        with suppress(ConnectionClosed):
            while True:
                await self.read()
        return self._connection.close_code or 0

    async def close(self) -> None:
        await self._connection.close()

    def vanish(self) -> None:
        """Without a word, as a client does whose machine dies."""
        self._connection.transport.abort()

    def all(self, kind: str) -> list[dict[str, Any]]:
        return [message for message in self.messages if message["type"] == kind]

    @property
    def text(self) -> str:
        """The transcript, as the protocol says how to put it together."""
        return "".join(message["text"] for message in self.all("final"))


@dataclass
class Server:
    """A running service for live streams."""

    url: str
    admission: Admission

    @asynccontextmanager
    async def client(
        self, config: Mapping[str, Any] | None = None, path: str = "/stream"
    ) -> AsyncIterator[Client]:
        """A client that is connected; with a `config` it has said it and read `ready`."""
        async with connect(
            self.url + path,
            ping_interval=None,
            compression=None,
            max_size=None,
            close_timeout=1,
            proxy=None,
        ) as connection:
            client = Client(connection)
            if config is not None:
                await client.send({"type": "config", **config})
                assert (await client.read())["type"] == "ready"
            yield client


Routers = Callable[[Services, Admission], APIRouter]


@asynccontextmanager
async def serving(
    make_router: Routers,
    engine: Engine | None = None,
    *,
    limit: int = 10,
    limit_per_client: int = 10,
    ws_max_size: int = 32 * 2**20,
    **streaming: object,
) -> AsyncIterator[Server]:
    """A server on a real socket of this machine. `streaming`: settings. When it stops, no
    stream may be counted any more, and no task may run."""
    # However slowly a test's engine answers, nobody is refused for it.
    config = Config.model_validate({"streaming": {"max_answer_s": None, **streaming}})
    engine = engine or Engine()
    admission = Admission(limit, limit_per_client)
    app = FastAPI()
    app.add_middleware(AuthMiddleware, gate=Gate(AuthConfig(open=True)))
    app.add_middleware(RequestContextMiddleware, send_id=True)
    install_error_handlers(app, {})
    services = Services(config, Transcriber(engine, config), engine, FakeEngines(), "key")
    app.include_router(make_router(services, admission))
    async with running(app, ws_max_size=ws_max_size) as port:
        yield Server(f"ws://127.0.0.1:{port}", admission)
        await asyncio.wait_for(is_over(admission), PATIENCE_S)


@asynccontextmanager
async def running(app: FastAPI, *, ws_max_size: int = 32 * 2**20) -> AsyncIterator[int]:
    """`app` on a real socket of this machine; gives its port. When it stops, no task may be left
    that a client started."""
    before = asyncio.all_tasks()
    listening = socket.create_server(("127.0.0.1", 0))
    settings = uvicorn.Config(app, lifespan="off", log_config=None, ws_max_size=ws_max_size)
    settings.load()
    server = uvicorn.Server(settings)
    server.lifespan = settings.lifespan_class(settings)
    await server.startup(sockets=[listening])
    try:
        yield listening.getsockname()[1]
        await nothing_left(before)
    finally:
        # Its own shutdown sleeps, for clients that are still there.
        for listener in server.servers:
            listener.close()


async def is_over(admission: Admission) -> None:
    """Wait until no stream is left."""
    while admission.streams:  # noqa: ASYNC110 - nothing tells when they are over
        await asyncio.sleep(0.005)


async def nothing_left(before: set[asyncio.Task[Any]]) -> None:
    """Wait until there are no more tasks than `before`."""
    deadline = time.monotonic() + PATIENCE_S
    while (left := asyncio.all_tasks() - before) and time.monotonic() < deadline:
        await asyncio.wait(left, timeout=0.1)
    assert asyncio.all_tasks() - before == set()
