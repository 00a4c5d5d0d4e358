"""The service's surroundings for tests of its HTTP side: engines, a clip and a bare wire."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from tempfile import SpooledTemporaryFile
from typing import Any

import httpx
from fastapi import FastAPI
from starlette.types import ASGIApp, Message

from tests.audio.clips import tone, wav
from whisper_serve.api.app import create_app
from whisper_serve.api.services import EngineStatus, Services
from whisper_serve.config import Config
from whisper_serve.engines.base import DecodeTask, EngineInfo, EngineLoad
from whisper_serve.jobs.orders import Orders
from whisper_serve.observability.context import current_request_id
from whisper_serve.pipeline import Transcriber
from whisper_serve.text.transcript import DecodeStats, Hypothesis, Segment, Word

# With a threshold like this a tone is speech too.
ALL_IS_SPEECH = {"threshold": 1e-6}
# Nobody needs a key.
OPEN = {"open": True}
CLIP = wav(tone(2.0))

WORDS = (
    Word(" Grüße,", 0.1, 0.6, 0.91234),
    Word(" Welt", 0.6, 1.0, 0.8),
    Word(" & <alle>.", 1.1, 1.9, 0.7),
)
SEGMENTS = (
    Segment(0.1, 1.0, " Grüße, Welt", WORDS[:2], (11, 12), 0.0, 0.2, -0.3, 1.1, 0.05),
    Segment(1.1, 1.9, " & <alle>.", WORDS[2:], (13,), 0.0, 0.2, -0.3, 1.1, 0.05),
)
TEXT = "Grüße, Welt & <alle>."
HEARD = Hypothesis(SEGMENTS, "de", 0.98765, DecodeStats(gpu_memory_gib=1.23456))

Settings = Mapping[str, Mapping[str, Any] | Sequence[str]]
Answer = Hypothesis | BaseException | Callable[[DecodeTask], Awaitable[Hypothesis]]


@dataclass
class FakePort:
    """Hears the same in every window; `tasks` holds what was asked."""

    answer: Answer = HEARD
    tasks: list[DecodeTask] = field(default_factory=list)

    async def transcribe(self, task: DecodeTask) -> Hypothesis:
        self.tasks.append(task)
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer if isinstance(self.answer, Hypothesis) else await self.answer(task)


@dataclass
class FakeEngines:
    """Says how the engines are, or raises."""

    answer: EngineStatus | Exception = field(
        default_factory=lambda: EngineStatus(
            EngineInfo("ctranslate2", "base", "cpu", "int8", multilingual=True, load_s=1.0),
            EngineLoad(waiting=3, waiting_s=41.23456, running=2, oldest_running_s=0.5),
        )
    )

    async def status(self) -> EngineStatus:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def app_with(
    port: FakePort | None = None,
    engines: FakeEngines | None = None,
    *,
    settings: Settings | None = None,
    send_request_id: bool = True,
    jobs: Orders | None = None,
) -> FastAPI:
    """The application, configured with `settings` by section."""
    config = Config.model_validate({"vad": ALL_IS_SPEECH, "auth": OPEN, **(settings or {})})
    port = port or FakePort()
    services = Services(
        config, Transcriber(port, config), port, engines or FakeEngines(), "key", jobs=jobs
    )
    return create_app(services, send_request_id=send_request_id)


@asynccontextmanager
async def client_of(app: ASGIApp) -> AsyncIterator[httpx.AsyncClient]:
    """A client of `app` that gets the answer a server would send."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


def is_failure(response: httpx.Response, status: int, code: str) -> bool:
    """The shape that every failure has; the first six fields are a promise."""
    body = response.json()
    promised = {"success": False, "text": "", "word_count": 0, "gpu_memory": 0.0}
    return (
        response.status_code == status
        and response.headers["content-type"] == "application/json"
        and list(body)[:6] == ["success", "text", "latency", "word_count", "gpu_memory", "error"]
        and promised.items() <= body.items()
        and isinstance(body["latency"], float)
        and isinstance(body["error"], str)
        and body["error"] != ""
        and body["code"] == code
        and isinstance(body["request_id"], str)
    )


class Wire:
    """One request by hand: gives `body` piece by piece, and then waits for the answer."""

    def __init__(self, body: Iterable[bytes], *, ends: bool = True) -> None:
        """`ends`: whether the last piece says so; else the client just goes away."""
        self._messages = self._requests(body, ends)
        self._ends = ends
        self.taken = 0
        self.status: int | None = None
        self.headers: dict[str, str] = {}
        self.body = b""

    def _requests(self, body: Iterable[bytes], ends: bool) -> Iterator[Message]:
        for piece in body:
            self.taken += len(piece)
            yield {"type": "http.request", "body": piece, "more_body": True}
        if ends:
            yield {"type": "http.request", "body": b"", "more_body": False}

    async def receive(self) -> Message:
        message = next(self._messages, None)
        if message is None and self._ends:
            await asyncio.Event().wait()
        return message or {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            self.body += message["body"]

    async def post(self, app: ASGIApp, headers: Mapping[str, str]) -> None:
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": "/transcribe",
            "raw_path": b"/transcribe",
            "query_string": b"",
            "root_path": "",
            "headers": [
                (name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()
            ],
            "client": ("127.0.0.1", 50_000),
            "server": ("127.0.0.1", 8_000),
        }
        await app(scope, self.receive, self.send)


class Spool(SpooledTemporaryFile[bytes]):
    """A temporary file that is remembered."""

    opened: list[Spool] = []  # noqa: RUF012 - emptied by the fixture

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.opened.append(self)


class Lines(logging.Handler):
    """Log records, each with the id of the request in which it was written."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.request_ids: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        self.request_ids.append(current_request_id())

    @property
    def messages(self) -> list[str]:
        return [record.getMessage() for record in self.records]
