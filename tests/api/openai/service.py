"""The whole application on a real socket, and OpenAI's own clients to speak with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Literal

import openai
from fastapi import FastAPI
from openai import AsyncOpenAI, OpenAI

from tests.api.fakes import ALL_IS_SPEECH, CLIP, OPEN, FakeEngines, FakePort
from tests.api.streams import PATIENCE_S, running
from whisper_serve.api.app import create_app
from whisper_serve.api.services import Services
from whisper_serve.config import Config
from whisper_serve.pipeline import Transcriber
from whisper_serve.ports import Transcribes

Kind = Literal["sync", "async"]
Endpoint = Literal["transcriptions", "translations"]


def app_around(port: Transcribes, settings: Mapping[str, Any] | None = None) -> FastAPI:
    config = Config.model_validate({"vad": ALL_IS_SPEECH, "auth": OPEN, **(settings or {})})
    return create_app(Services(config, Transcriber(port, config), port, FakeEngines(), "key"))


@asynccontextmanager
async def serving(
    port: Transcribes | None = None,
    settings: Mapping[str, Any] | None = None,
    prepare: Callable[[FastAPI], None] = lambda _app: None,
) -> AsyncIterator[str]:
    """The address of a running service, for a client's `base_url`. When it stops, no task that
    a request started may be left."""
    app = app_around(port or FakePort(), settings)
    prepare(app)
    async with running(app) as at:
        yield f"http://127.0.0.1:{at}/v1"


def patient(url: str) -> AsyncOpenAI:
    """A client that does not try again."""
    return AsyncOpenAI(api_key="any", base_url=url, max_retries=0, timeout=PATIENCE_S)


async def ask(
    url: str,
    kind: Kind = "async",
    endpoint: Endpoint = "transcriptions",
    *,
    file: bytes = CLIP,
    model: str = "whisper-1",
    **fields: Any,
) -> Any:
    """What the client makes of the answer; of a stream the list of its events. Raises what the
    client raises."""
    sent = {"file": ("speech.wav", file), "model": model, **fields}
    if kind == "sync":
        return await asyncio.to_thread(_ask, url, endpoint, sent)
    async with patient(url) as client:
        answer = await getattr(client.audio, endpoint).create(**sent)
        return [event async for event in answer] if fields.get("stream") else answer


def _ask(url: str, endpoint: Endpoint, sent: Mapping[str, Any]) -> Any:
    with OpenAI(api_key="any", base_url=url, max_retries=0, timeout=PATIENCE_S) as client:
        answer = getattr(client.audio, endpoint).create(**sent)
        return [*answer] if sent.get("stream") else answer


async def refused(url: str, kind: Kind = "async", **asked: Any) -> openai.APIStatusError:
    """The exception that the client raises."""
    try:
        answer = await ask(url, kind, **asked)
    except openai.APIStatusError as exc:
        return exc
    raise AssertionError(f"it was answered: {answer}")
