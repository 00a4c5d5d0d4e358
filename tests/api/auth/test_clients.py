"""OpenAI's and Deepgram's own clients, with right and wrong keys, over real sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import openai
import pytest
from deepgram import AsyncDeepgramClient
from deepgram.core.api_error import ApiError
from openai import AsyncOpenAI

from tests.api.auth.holders import BOSS, RADIO, STREAMER, UNKNOWN, settings
from tests.api.deepgram.service import OLD_NAMES, environment_of
from tests.api.fakes import CLIP, HEARD, FakePort
from tests.api.openai.service import serving
from tests.api.streams import PATIENCE_S
from whisper_serve.errors import EngineFailed
from whisper_serve.ports import Transcribes

pytestmark = pytest.mark.filterwarnings(OLD_NAMES)
TRANSCRIPTION = {"intent": "transcription"}


@asynccontextmanager
async def sdk(
    key: str, *, port: Transcribes | None = None, **radio: Any
) -> AsyncIterator[AsyncOpenAI]:
    async with serving(port, settings(**radio)) as url, openai_at(url, key) as client:
        yield client


def openai_at(url: str, key: str) -> AsyncOpenAI:
    return AsyncOpenAI(
        api_key=key,
        base_url=url,
        websocket_base_url=url.replace("http", "ws", 1),
        max_retries=0,
        timeout=PATIENCE_S,
    )


async def transcribed(client: AsyncOpenAI, **fields: Any) -> Any:
    return await client.audio.transcriptions.create(
        file=("speech.wav", CLIP), model="whisper-1", **fields
    )


async def test_the_right_key_is_served() -> None:
    async with sdk(RADIO) as client:
        assert (await transcribed(client)).text
        assert (await client.models.list()).data


async def test_a_wrong_key_is_an_authentication_error() -> None:
    async with sdk(UNKNOWN) as client:
        with pytest.raises(openai.AuthenticationError) as refused:
            await transcribed(client)
    assert refused.value.code == "invalid_api_key"
    assert refused.value.request_id


async def test_a_key_for_something_else_is_denied() -> None:
    async with sdk(STREAMER) as client:
        with pytest.raises(openai.PermissionDeniedError) as refused:
            await transcribed(client)
    assert refused.value.code == "scope_missing"


async def test_too_many_requests_are_a_rate_limit_error() -> None:
    async with sdk(RADIO, requests_per_minute=1) as client:

        async def ask_often() -> None:
            for _ in range(4):  # a minute of the clock may begin meanwhile
                await client.models.list()

        with pytest.raises(openai.RateLimitError) as refused:
            await ask_often()
    assert refused.value.code == "rate_limit_exceeded"
    assert int(refused.value.response.headers["retry-after"]) >= 1


async def test_more_audio_than_a_day_has_is_a_rate_limit_error() -> None:
    engines = FakePort()
    async with sdk(RADIO, port=engines, daily_audio_s=5.0) as client:
        await transcribed(client)
        await transcribed(client)
        asked = len(engines.tasks)
        for more in ({}, {"stream": True}):
            with pytest.raises(openai.RateLimitError) as refused:
                await transcribed(client, **more)
            assert refused.value.code == "insufficient_quota"
            assert 1 <= int(refused.value.response.headers["retry-after"]) <= 86_400
    assert len(engines.tasks) == asked, "engines worked for what was refused"


async def test_what_fails_for_our_fault_costs_nothing() -> None:
    engines = FakePort(EngineFailed("broken"))
    async with sdk(RADIO, port=engines, daily_audio_s=3.0) as client:
        for more in ({}, {"stream": True}):
            with pytest.raises(openai.InternalServerError):
                await transcribed(client, **more)
        engines.answer = HEARD
        await transcribed(client)
        with pytest.raises(openai.RateLimitError):
            await transcribed(client)


async def test_what_was_streamed_is_charged() -> None:
    async with sdk(RADIO, daily_audio_s=3.0) as client:
        events = [event async for event in await transcribed(client, stream=True)]
        assert events[-1].type == "transcript.text.done"
        with pytest.raises(openai.RateLimitError):
            await transcribed(client)


# Realtime


async def test_an_ephemeral_key_opens_what_its_key_may() -> None:
    async with serving(settings=settings()) as url:
        async with openai_at(url, STREAMER) as client:
            secret = await client.realtime.client_secrets.create(session={"type": "transcription"})
        async with openai_at(url, secret.value) as browser:
            async with browser.realtime.connect(extra_query=TRANSCRIPTION) as connection:
                assert (await connection.recv()).type == "session.created"
            with pytest.raises(openai.AuthenticationError):
                await browser.models.list()
            with pytest.raises(openai.AuthenticationError):
                await browser.realtime.client_secrets.create(session={"type": "transcription"})
        async with openai_at(url, BOSS) as client:
            with pytest.raises(openai.PermissionDeniedError):
                await client.realtime.client_secrets.create(session={"type": "transcription"})


# Deepgram


@asynccontextmanager
async def deepgram(key: str) -> AsyncIterator[AsyncDeepgramClient]:
    async with serving(settings=settings()) as url, deepgram_at(url, api_key=key) as client:
        yield client


@asynccontextmanager
async def deepgram_at(url: str, **shown: str) -> AsyncIterator[AsyncDeepgramClient]:
    environment = environment_of(url.removesuffix("/v1"))
    async with httpx.AsyncClient(timeout=PATIENCE_S) as http:
        yield AsyncDeepgramClient(environment=environment, httpx_client=http, **shown)


async def test_deepgram_s_client_is_served_with_the_right_key() -> None:
    async with deepgram(RADIO) as client:
        answer = await client.listen.v1.media.transcribe_file(request=CLIP)
    assert answer.results.channels


@pytest.mark.parametrize(
    ("key", "status", "code"),
    [(UNKNOWN, 401, "INVALID_AUTH"), (STREAMER, 403, "INSUFFICIENT_PERMISSIONS")],
    ids=["unknown", "without scope"],
)
async def test_deepgram_s_client_is_refused(key: str, status: int, code: str) -> None:
    async with deepgram(key) as client:
        with pytest.raises(ApiError) as refused:
            await client.listen.v1.media.transcribe_file(request=CLIP)
    assert (refused.value.status_code, refused.value.body["err_code"]) == (status, code)


async def test_deepgram_s_client_gets_a_token_and_a_browser_uses_it() -> None:
    async with serving(settings=settings()) as url:
        async with deepgram_at(url, api_key=RADIO) as client:
            granted = await client.auth.v1.tokens.grant(ttl_seconds=60)
        assert granted.expires_in == 60
        async with deepgram_at(url, access_token=granted.access_token) as page:
            answer = await page.listen.v1.media.transcribe_file(request=CLIP)
            assert answer.results.channels
            with pytest.raises(ApiError) as refused:
                await page.auth.v1.tokens.grant()
    assert refused.value.status_code == 401


@pytest.mark.parametrize("ttl_seconds", [0, 601, 1.5])
async def test_deepgram_s_lifetime_has_its_bounds(ttl_seconds: float) -> None:
    async with deepgram(RADIO) as client:
        with pytest.raises(ApiError) as refused:
            await client.auth.v1.tokens.grant(ttl_seconds=ttl_seconds)
    assert refused.value.status_code == 400
    assert "ttl_seconds" in refused.value.body["err_msg"]


async def test_deepgram_s_default_lifetime_is_half_a_minute() -> None:
    async with deepgram(RADIO) as client:
        assert (await client.auth.v1.tokens.grant()).expires_in == 30
