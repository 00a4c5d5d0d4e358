"""A peer of the Realtime API without a socket, and what is told over it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

from fastapi import WebSocket

from tests.api.fakes import FakeEngines
from tests.api.openai.realtime.voices import DullEngine
from tests.api.streams import HASTY, PATIENCE_S, Engine
from whisper_serve.api.connection import Connection
from whisper_serve.api.live import converse
from whisper_serve.api.openai.catalog import Catalog
from whisper_serve.api.openai.realtime.configuration import SessionConfig
from whisper_serve.api.openai.realtime.peer import RealtimePeer
from whisper_serve.api.services import Services
from whisper_serve.config import Config
from whisper_serve.pipeline import Transcriber
from whisper_serve.streaming.messages import Final, ResumePoint
from whisper_serve.text.transcript import Word

Told = dict[str, Any]
TEXT = "conversation.item.input_audio_transcription"
DELTA, COMPLETED, FAILED = f"{TEXT}.delta", f"{TEXT}.completed", f"{TEXT}.failed"
STARTED, STOPPED = "input_audio_buffer.speech_started", "input_audio_buffer.speech_stopped"
COMMITTED, CLEARED = "input_audio_buffer.committed", "input_audio_buffer.cleared"
COMMIT, CLEAR = {"type": "input_audio_buffer.commit"}, {"type": "input_audio_buffer.clear"}
MANUAL: dict[str, Any] = {"turn_detection": None}


class Line(Connection):
    """The frames between a client and its peer; `told` are those that the client got."""

    def __init__(self) -> None:
        super().__init__(cast("WebSocket", None))
        self._frames: asyncio.Queue[str | bytes | None] = asyncio.Queue()
        self._news = asyncio.Event()
        self.told: list[Told] = []

    def says(self, *events: Mapping[str, Any] | str | bytes | None) -> None:
        for event in events:
            self._frames.put_nowait(json.dumps(event) if isinstance(event, Mapping) else event)

    def leaves(self) -> None:
        self.says(None)

    async def receive(self) -> str | bytes | None:
        return await self._frames.get()

    async def send(self, text: str) -> None:
        self.told.append(json.loads(text))
        self._news.set()

    async def hears(self, kind: str, count: int = 1) -> Told:
        """Event number `count` of this kind, waited for."""

        async def wait() -> Told:
            while len(found := self.all(kind)) < count:
                self._news.clear()
                await self._news.wait()
            return found[count - 1]

        return await asyncio.wait_for(wait(), PATIENCE_S)

    def all(self, kind: str) -> list[Told]:
        return [event for event in self.told if event["type"] == kind]

    @property
    def kinds(self) -> list[str]:
        return [event["type"] for event in self.told]


def update(**values: Any) -> dict[str, Any]:
    """`audio.input` of the session."""
    return {"type": "session.update", "session": {"audio": {"input": values}}}


def session(**values: Any) -> SessionConfig:
    return SessionConfig().updated({"audio": {"input": values}})


def services_of(engine: Engine | None = None, **settings: Any) -> Services:
    config = Config.model_validate(settings)
    engine = engine or Engine()
    return Services(config, Transcriber(engine, config), engine, FakeEngines(), "key")


def peer_at(
    line: Line, config: SessionConfig | None = None, *, is_beta: bool = False, max_s: float = 60.0
) -> RealtimePeer:
    return RealtimePeer(
        line,
        config or SessionConfig(),
        session_id="sess_1",
        is_beta=is_beta,
        catalog=Catalog(services_of(models=["tiny.en"])),
        max_backlog_s=max_s,
    )


async def heard(
    connection: Any, kind: str, count: int = 1, *, patience_s: float = PATIENCE_S
) -> list[Told]:
    """What OpenAI's client is told up to event number `count` of this kind."""
    told: list[Told] = []

    async def listen() -> None:
        async for event in connection:
            told.append(event.to_dict())
            if [each["type"] for each in told].count(kind) == count:
                return

    await asyncio.wait_for(listen(), patience_s)
    return told


@asynccontextmanager
async def conversing(
    engine: Engine | None = None, config: SessionConfig | None = None, **streaming: Any
) -> AsyncIterator[Line]:
    """A client of a real stream. `streaming`: settings."""
    line = Line()
    services = services_of(engine or DullEngine(), streaming=streaming)
    stream = asyncio.create_task(
        converse(
            peer_at(line, config, max_s=services.config.streaming.max_backlog_s),
            config=services.config,
            port=services.port,
            session_id="1",
            timing=HASTY,
        )
    )
    try:
        yield line
    finally:
        line.leaves()
        await asyncio.wait_for(stream, PATIENCE_S)


def final(text: str) -> Final:
    words = tuple(Word(f" {word}", 0.0, 0.1, 0.5) for word in text.split())
    return Final(text, words, "en", 1.0, 0.0, ResumePoint(committed_until=0.0))


def anonymous(told: Sequence[Told]) -> list[Told]:
    """Without what differs each time: items get numbers in the order of their appearance."""
    names: dict[str, int] = {}

    def number(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: number(part) for key, part in value.items() if key != "event_id"}
        if isinstance(value, list):
            return [number(part) for part in value]
        if isinstance(value, str) and value.startswith("item_"):
            return names.setdefault(value, len(names))
        return value

    return [number(event) for event in told]


def transcripts(told: Sequence[Told]) -> list[str]:
    """In the order of the conversation, as `previous_item_id` tells it."""
    texts = {e["item_id"]: e["transcript"] for e in told if e["type"] == COMPLETED}
    behind = {e["previous_item_id"]: e["item_id"] for e in told if e["type"] == COMMITTED}
    ordered, at = [], behind.get(None)
    while at is not None:
        ordered.append(texts.get(at, ""))
        at = behind.get(at)
    return ordered
