"""A service on a real socket, Deepgram's own clients of it, and a reader of what they are told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from deepgram import AsyncDeepgramClient, DeepgramClient
from deepgram.environment import DeepgramClientEnvironment
from fastapi import FastAPI

from tests.api.fakes import ALL_IS_SPEECH, FakeEngines
from tests.api.streams import HASTY, PATIENCE_S, Engine, Server, is_over, running
from whisper_serve.api.admission import Admission
from whisper_serve.api.auth.gate import Gate
from whisper_serve.api.auth.middleware import AuthMiddleware
from whisper_serve.api.deepgram.failures import deepgram_failure
from whisper_serve.api.deepgram.routes import listen_router
from whisper_serve.api.error_handlers import install_error_handlers
from whisper_serve.api.middleware import RequestContextMiddleware
from whisper_serve.api.services import Services
from whisper_serve.config import AuthConfig, Config
from whisper_serve.pipeline import Transcriber
from whisper_serve.ports import Transcribes

BARE = {"encoding": "linear16", "sample_rate": 16_000}
# The SDK looks for old names of things in the library below it.
OLD_NAMES = "ignore:websockets.*is deprecated:DeprecationWarning"


def environment_of(url: str) -> DeepgramClientEnvironment:
    """`url`: that of the service, as `http://...`."""
    live = url.replace("http", "ws", 1)
    return DeepgramClientEnvironment(base=url, production=live, agent=live, agent_rest=url)


@dataclass
class ListenServer(Server):
    """A running service; `url` is that of its live streams."""

    @property
    def http_url(self) -> str:
        return self.url.replace("ws", "http", 1)

    @asynccontextmanager
    async def sdk(self) -> AsyncIterator[AsyncDeepgramClient]:
        async with httpx.AsyncClient(timeout=PATIENCE_S) as http:
            yield AsyncDeepgramClient(
                api_key="any", environment=environment_of(self.http_url), httpx_client=http
            )

    @contextmanager
    def blocking_sdk(self) -> Iterator[DeepgramClient]:
        """For another thread than the server's."""
        with httpx.Client(timeout=PATIENCE_S) as http:
            yield DeepgramClient(
                api_key="any", environment=environment_of(self.http_url), httpx_client=http
            )


def app_of(
    port: Transcribes, settings: Mapping[str, Any], admission: Admission | None = None
) -> FastAPI:
    config = Config.model_validate({"vad": ALL_IS_SPEECH, **settings})
    services = Services(config, Transcriber(port, config), port, FakeEngines(), "key")
    app = FastAPI()
    app.add_middleware(AuthMiddleware, gate=Gate(AuthConfig(open=True)))
    app.add_middleware(RequestContextMiddleware, send_id=True)
    install_error_handlers(app, {"/v1/listen": deepgram_failure})
    app.include_router(listen_router(services, admission or Admission(10, 10), timing=HASTY))
    return app


@asynccontextmanager
async def listening(
    engine: Engine | None = None, *, limit: int = 10, settings: Mapping[str, Any] | None = None
) -> AsyncIterator[ListenServer]:
    """A server on a real socket of this machine. When it stops, no stream may be counted any
    more, and no task may run."""
    admission = Admission(limit, limit)
    app = app_of(engine or Engine(), settings or {}, admission)
    async with running(app) as port:
        yield ListenServer(f"ws://127.0.0.1:{port}", admission)
        await asyncio.wait_for(is_over(admission), PATIENCE_S)
