"""Clients that send blobs of WAV or bare samples get plain text."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.api.streams import (
    HASTY,
    PATIENCE_S,
    Client,
    Engine,
    for_ever,
    is_over,
    quiet,
    serving,
    words,
)
from tests.audio.clips import raw_wav
from tests.streaming.speaker import Ears
from whisper_serve.api import live
from whisper_serve.api.dialects.routes import dialects_router
from whisper_serve.audio.pcm import Samples
from whisper_serve.engines.base import DecodeTask

server = partial(serving, partial(dialects_router, timing=HASTY))
SPEECH = np.concatenate([words(3), quiet(1.0)])
METADATA = {"samplewidth": 2, "framerate": 16_000, "channels": 1}


@pytest.fixture(autouse=True)
def ears(monkeypatch: pytest.MonkeyPatch) -> None:
    """Voice activity detection that takes the speech of these tests for speech."""
    monkeypatch.setattr(live, "SileroVad", Ears)


@asynccontextmanager
async def client(engine: Engine | None = None, **settings: Any) -> AsyncIterator[Client]:
    async with server(engine, **settings) as running, running.client(path="/stream/me") as stream:
        yield stream


def blobs(samples: Samples) -> list[bytes]:
    """A blob for each second."""
    return [samples[first : first + 16_000].tobytes() for first in range(0, len(samples), 16_000)]


def stereo(samples: Samples) -> Samples:
    return np.repeat(samples, 2)


def header(*, rate: int = 16_000, channels: int = 1) -> bytes:
    """As a recorder writes it that does not know how long it will record."""
    return raw_wav(b"", rate=rate, channels=channels, size=0xFFFFFFFF)


async def text(stream: Client) -> str:
    """The next that is not just the sign that the server is there."""
    while True:
        if (message := await stream.read_text()) != " ":
            return message


async def refusal(stream: Client) -> tuple[dict[str, Any], int]:
    """The error, and the code of the close behind it."""
    error = json.loads(await text(stream))
    with pytest.raises(ConnectionClosed) as closed:
        await stream.read_text()
    assert closed.value.rcvd is not None
    return error, closed.value.rcvd.code


async def test_text_comes_after_a_pause_as_it_is() -> None:
    six = np.concatenate([SPEECH, words(6)[24_000:], quiet(1.0)])
    async with client() as stream:
        await stream.send(*blobs(six))
        assert await text(stream) == "w0 w1 w2"
        # Clients put the pieces side by side.
        assert await text(stream) == " w3 w4 w5"


async def test_a_space_tells_that_the_server_is_there() -> None:
    async with client() as stream:
        for blob in blobs(quiet(3.0)):
            await stream.send(blob)
            assert await stream.read_text() == " "


async def test_unbroken_speech_comes_before_it_ends() -> None:
    async with client() as stream:
        await stream.send(*blobs(words(40)))
        assert (await text(stream)).startswith("w0 w1 w2")


@pytest.mark.parametrize("with_metadata", [True, False])
@pytest.mark.parametrize("each", [True, False], ids=["each blob", "the first blob"])
async def test_a_header_is_not_heard(each: bool, with_metadata: bool) -> None:
    engine = Engine()
    async with client(engine) as stream:
        for number, blob in enumerate(blobs(SPEECH)):
            if with_metadata:
                await stream.send(METADATA)
            await stream.send((header() if each or number == 0 else b"") + blob)
        assert await text(stream) == "w0 w1 w2"
    assert len(engine.tasks[-1].samples) <= len(SPEECH)


async def test_a_header_tells_the_channels_whatever_metadata_says() -> None:
    """A client is known that guesses them from the blob's length, and the first time wrong."""
    async with client() as stream:
        for number, blob in enumerate(blobs(stereo(SPEECH))):
            await stream.send({**METADATA, "channels": number % 3 / 2 + 1 if number else 1})
            await stream.send(blob if number else header(channels=2) + blob)
        assert await text(stream) == "w0 w1 w2"


async def test_metadata_tells_what_bare_samples_are() -> None:
    async with client() as stream:
        await stream.send({**METADATA, "channels": 2}, *blobs(stereo(SPEECH)))
        assert await text(stream) == "w0 w1 w2"


@pytest.mark.parametrize(
    "told", [header(rate=48_000), {**METADATA, "framerate": 48_000}], ids=["header", "metadata"]
)
async def test_another_rate_is_honoured(told: Any) -> None:
    windows: asyncio.Queue[DecodeTask] = asyncio.Queue()
    async with client(Engine(trouble=windows.put)) as stream:
        await stream.send(told, *blobs(np.repeat(SPEECH, 3)))
        window = await asyncio.wait_for(windows.get(), PATIENCE_S)
    assert 1.5 < window.duration_s < 2.5


async def test_a_header_may_come_in_pieces() -> None:
    data = header(channels=2) + stereo(SPEECH).tobytes()
    async with client() as stream:
        await stream.send(data[:3], data[3:20], data[20:44], data[44:45], data[45:])
        assert await text(stream) == "w0 w1 w2"


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({**METADATA, "samplewidth": 4}, "samplewidth"),
        ({**METADATA, "framerate": 96_000}, "framerate"),
        ({**METADATA, "framerate": 4_000}, "framerate"),
        ({**METADATA, "channels": 6}, "channels"),
        ({**METADATA, "channels": 1.5}, "channels"),
        ({**METADATA, "channels": "many"}, "channels"),
        ("hello", "JSON"),
        ("[]", "object"),
        (raw_wav(b"", bits=24) + bytes(600), "24 bits"),
        (header(rate=96_000) + bytes(600), "sample_rate"),
        (header(channels=6) + bytes(600), "channels"),
        (b"RIFF\0\0\0\0WAVEdata\0\0\0\0", "WAV header"),
    ],
)
@pytest.mark.parametrize("before", [[], [b"\0\0"]], ids=["at first", "later"])
async def test_what_cannot_be_is_refused(wrong: Any, named: str, before: list[bytes]) -> None:
    async with client() as stream:
        await stream.send(*before, wrong)
        error, code = await refusal(stream)
    assert code == 1008
    assert error["type"] == "error"
    assert set(error) == {"type", "code", "message"}
    assert named in error["message"] or (before and "cannot change" in error["message"])


async def test_the_format_cannot_change() -> None:
    for change in (header(channels=2) + bytes(4), {**METADATA, "framerate": 8_000}):
        async with client() as stream:
            await stream.send(b"\0\0", change)
            error, code = await refusal(stream)
        assert (code, error["code"]) == (1008, "invalid_parameter")
        assert "cannot change" in error["message"]


async def test_who_says_nothing_is_closed() -> None:
    async with client(idle_timeout_s=0.1) as stream:
        error, code = await refusal(stream)
    assert (code, error["code"]) == (4408, "stream_idle")


async def test_two_clients_of_one_name_do_not_mix() -> None:
    async with server() as running:
        async with (
            running.client(path="/stream/me") as one,
            running.client(path="/stream/me") as other,
        ):
            for first in range(0, len(SPEECH), 16_000):
                piece = SPEECH[first : first + 16_000]
                await one.send(piece)
                await other.send(np.where(piece, piece + 50, 0).astype(np.int16))
            assert await text(one) == "w0 w1 w2"
            assert await text(other) == "w50 w51 w52"
        async with running.client(path="/stream/me") as again:
            await again.send(words(1), quiet(1.0))
            assert await text(again) == "w0"


@pytest.mark.parametrize("client_id", ["a" * 129, "a%20b", "%00", "a%0Ab", "ä", "%2e%2e%2f"])
async def test_a_name_that_is_none_is_refused_before_the_handshake(client_id: str) -> None:
    async with server() as running:
        with pytest.raises(InvalidStatus) as refused:
            async with running.client(path=f"/stream/{client_id}"):
                pass
        response = refused.value.response
        if "2f" in client_id:  # no such route
            assert response.status_code == 403
            return
        assert response.status_code == 400
        assert json.loads(response.body or b"")["code"] == "invalid_parameter"


@pytest.mark.parametrize("trouble", [None, for_ever])
async def test_a_client_may_vanish_at_any_time(trouble: Any) -> None:
    async with server(Engine(trouble=trouble)) as running:
        for frames in ([], [METADATA], [b"RIFF"], [header()], [SPEECH]):
            async with running.client(path="/stream/me") as stream:
                await stream.send(*frames)
                stream.vanish()
            await is_over(running.admission)


async def test_a_full_service_refuses_these_too() -> None:
    async with server(limit=1) as running, running.client(path="/stream/me"):
        for path in ("/stream/other", "/stream/voicestream"):
            with pytest.raises(InvalidStatus) as refused:
                async with running.client(path=path):
                    pass
            assert refused.value.response.status_code == 503
            assert refused.value.response.headers["Retry-After"]
        await asyncio.sleep(0)
