"""Live streams with keys: how they are shown, and what they allow."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from tests.api.auth.holders import BOSS, RADIO, STREAMER, UNKNOWN, bearer, settings
from tests.api.fakes import ALL_IS_SPEECH, FakeEngines
from tests.api.streams import (
    HASTY,
    Client,
    Engine,
    running,
    said,
    words,
)
from whisper_serve.api.app import create_app
from whisper_serve.api.auth.usage import AudioInMemory, CountsAudio
from whisper_serve.api.routes import stream
from whisper_serve.api.services import Services
from whisper_serve.config import Config
from whisper_serve.pipeline import Transcriber

NO_VAD = {"type": "config", "vad": False}


@asynccontextmanager
async def serving(
    usage: CountsAudio | None = None, engine: Engine | None = None, **radio: Any
) -> AsyncIterator[str]:
    """The address of the whole application's streams."""
    config = Config.model_validate({"vad": ALL_IS_SPEECH, **settings(**radio)})
    engine = engine or Engine()
    services = Services(
        config,
        Transcriber(engine, config),
        engine,
        FakeEngines(),
        "key",
        usage=usage or AudioInMemory(),
    )
    async with running(create_app(services)) as port:
        yield f"ws://127.0.0.1:{port}"


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "Timing", lambda: HASTY)


@asynccontextmanager
async def opened(
    url: str, key: str = "", offered: Sequence[str] = (), path: str = "/stream"
) -> AsyncIterator[ClientConnection]:
    async with connect(
        url + path,
        additional_headers=bearer(key) if key else {},
        subprotocols=[Subprotocol(name) for name in offered] or None,
        proxy=None,
        close_timeout=1,
    ) as connection:
        yield connection


async def refused(url: str, key: str = "", **how: Any) -> tuple[int, dict[str, Any]]:
    """Status and body of a handshake that is not accepted."""
    with pytest.raises(InvalidStatus) as caught:
        async with opened(url, key, **how):
            pass
    body: dict[str, Any] = json.loads(caught.value.response.body or b"")
    return caught.value.response.status_code, body


async def test_a_key_opens_a_stream_in_whichever_way_it_is_shown() -> None:
    async with serving() as url:
        async with opened(url, STREAMER) as connection:
            assert connection.subprotocol is None
        offered = ["whisper-serve", f"whisper-serve.key.{STREAMER}"]
        async with opened(url, offered=offered) as connection:
            assert connection.subprotocol == "whisper-serve"
        async with opened(url, offered=["token", STREAMER], path="/v1/listen") as connection:
            assert connection.subprotocol == "token"


@pytest.mark.parametrize(
    ("key", "status", "code"),
    [("", 401, "invalid_api_key"), (UNKNOWN, 401, "invalid_api_key"), (BOSS, 403, "scope_missing")],
    ids=["none", "unknown", "without scope"],
)
async def test_others_are_refused_before_the_handshake(key: str, status: int, code: str) -> None:
    async with serving() as url:
        found, body = await refused(url, key)
        listened, told = await refused(url, key, path="/v1/listen")
    assert (found, body["code"]) == (status, code)
    assert body["request_id"]
    assert listened == status
    assert {"err_code", "err_msg", "request_id"} == set(told)


async def test_a_key_has_its_streams_at_once() -> None:
    async with serving(max_streams=2) as url, AsyncExitStack() as streams:
        for _ in range(2):
            await streams.enter_async_context(opened(url, RADIO))
        status, body = await refused(url, RADIO)
        assert (status, body["code"]) == (429, "too_many_streams")
        async with opened(url, STREAMER):
            pass


# The day's audio


async def client_at(connection: ClientConnection) -> Client:
    client = Client(connection)
    await client.send(NO_VAD)
    assert (await client.read())["type"] == "ready"
    return client


async def test_a_stream_is_charged_for_what_it_said() -> None:
    usage = AudioInMemory()
    async with serving(usage, daily_audio_s=100.0) as url, opened(url, RADIO) as connection:
        client = await client_at(connection)
        await client.send(words(9), {"type": "end"})
        assert (await client.until("done"))["text"] == said(9)
        assert await client.closed() == 1000
    assert list(usage._totals.values()) == [pytest.approx(4.5, abs=0.05)]


async def test_a_stream_that_has_used_up_the_day_hears_all_of_it_and_ends() -> None:
    async with serving(daily_audio_s=15.0) as url:
        async with opened(url, RADIO) as connection:
            client = await client_at(connection)
            speech, twelve_s = words(64), 12 * 16_000
            await client.send(speech[:twelve_s])
            await client.until("ack", received_until=12.0)
            await client.send(speech[twelve_s:])
            error = await client.until("error", code="quota_exceeded")
            assert error["fatal"] is True
            assert await client.closed() == 1008
            heard = client.text.split()
        # What came up to the moment when it was counted is all there, and in order.
        assert heard[:24] == said(24).split()
        assert heard == said(len(heard)).split()
        status, body = await refused(url, RADIO)
    assert (status, body["code"]) == (429, "quota_exceeded")


async def test_a_stream_that_breaks_off_is_charged_for_what_became_final() -> None:
    """All else comes again in the stream that takes its place."""

    async def never(_task: object) -> None:
        await asyncio.Event().wait()

    usage = AudioInMemory()
    engine = Engine(trouble=never)
    async with serving(usage, engine, daily_audio_s=100.0) as url:
        async with opened(url, RADIO) as connection:
            client = await client_at(connection)
            await client.send(words(30))
            await client.until("ack", received_until=15.0)
            client.vanish()
        async with opened(url, RADIO) as connection:
            await client_at(connection)
    assert list(usage._totals.values()) == [0.0]
