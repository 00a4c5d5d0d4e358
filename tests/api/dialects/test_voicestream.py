"""Clients of VoiceStreamAI get what they always got, once for each utterance."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import numpy as np
import pytest

from tests.api.streams import HASTY, Client, Engine, for_ever, quiet, serving, words
from tests.streaming.speaker import Ears
from whisper_serve.api import live
from whisper_serve.api.dialects.routes import dialects_router
from whisper_serve.errors import EngineFailed

server = partial(serving, partial(dialects_router, timing=HASTY))
# What the browser client of that system sends when its user presses a button.
CONFIG = {
    "sampleRate": 44_100,
    "bufferSize": 4096,
    "channels": 1,
    "language": "english",
    "processing_strategy": "silence_at_end_of_chunk",
    "processing_args": {"chunk_length_seconds": 3, "chunk_offset_seconds": 0.1},
}
PAUSE = quiet(1.0)


def config(**data: Any) -> dict[str, Any]:
    return {"type": "config", "data": data}


@pytest.fixture(autouse=True)
def ears(monkeypatch: pytest.MonkeyPatch) -> None:
    """Voice activity detection that takes the speech of these tests for speech."""
    monkeypatch.setattr(live, "SileroVad", Ears)


@asynccontextmanager
async def client(engine: Engine | None = None, **settings: Any) -> AsyncIterator[Client]:
    async with (
        server(engine, **settings) as running,
        running.client(path="/stream/voicestream") as connected,
    ):
        yield connected


async def test_an_utterance_comes_after_its_pause_in_the_words_of_that_system() -> None:
    async with client() as stream:
        await stream.send(config(**CONFIG), words(3), PAUSE)
        utterance = await stream.read()
    assert utterance == {
        "language": "en",
        "language_probability": 0.9,
        "text": "w0 w1 w2",
        "words": [
            {"word": " w0", "start": 0.1, "end": 0.5, "probability": 0.9},
            {"word": " w1", "start": 0.6, "end": 1.0, "probability": 0.9},
            {"word": " w2", "start": 1.1, "end": 1.5, "probability": 0.9},
        ],
        "processing_time": 0.3,
    }


async def test_each_utterance_comes_once_and_nothing_else() -> None:
    three = np.concatenate([words(9)[first : first + 24_000] for first in (0, 24_000, 48_000)])
    async with client() as stream:
        for first in (0, 24_000, 48_000):
            await stream.send(three[first : first + 24_000], PAUSE)
        heard = [await stream.read() for _ in range(3)]
        await stream.send(quiet(5.0))
        await asyncio.sleep(5 * HASTY.ack_every_s)
        await stream.close()
        await stream.closed()
    assert [m["text"] for m in stream.messages] == ["w0 w1 w2", "w3 w4 w5", "w6 w7 w8"]
    # Times are those of the stream.
    assert [m["words"][0]["start"] for m in heard] == [0.1, 2.6, 5.1]


async def test_unbroken_speech_comes_before_it_ends() -> None:
    async with client() as stream:
        await stream.send(words(40))
        utterance = await stream.read()
    assert utterance["text"].startswith("w0 w1")
    assert utterance["words"][-1]["end"] <= 15.0


async def test_audio_may_come_before_any_configuration() -> None:
    engine = Engine()
    async with client(engine) as stream:
        await stream.send(words(2), PAUSE)
        assert (await stream.read())["text"] == "w0 w1"
        await stream.send(config(language="german"), words(4)[16_000:], PAUSE)
        assert (await stream.read())["language"] == "de"
        await stream.send(config(language=None), words(6)[32_000:], PAUSE)
        assert (await stream.read())["text"] == "w4 w5"
    assert [task.language for task in engine.tasks][:2] == [None, "de"]


@pytest.mark.parametrize("language", ["German", "german", "de", "de-DE"])
async def test_a_language_has_a_name_or_a_code(language: str) -> None:
    async with client() as stream:
        await stream.send(config(language=language), words(2), PAUSE)
        assert (await stream.read())["language"] == "de"


async def test_what_the_sound_card_does_is_not_what_is_sent() -> None:
    """Clients of that system tell the rate of the card, and send 16 kHz."""
    async with client() as stream:
        await stream.send(config(sampleRate=48_000, channels=2), words(2), PAUSE)
        assert (await stream.read())["text"] == "w0 w1"


async def test_a_configuration_that_names_no_language_keeps_it() -> None:
    async with client() as stream:
        await stream.send(config(language="de"), config(), words(2), PAUSE)
        assert (await stream.read())["language"] == "de"


async def test_numbers_may_be_text_as_early_clients_send_them() -> None:
    args = {"chunk_length_seconds": "3", "chunk_offset_seconds": "0.1"}
    async with client() as stream:
        await stream.send(config(processing_args=args, chunk_length_seconds="3"), words(2), PAUSE)
        assert (await stream.read())["text"] == "w0 w1"


@pytest.mark.parametrize(
    ("wrong", "code", "named"),
    [
        ("hello", "invalid_message", "JSON"),
        ("[]", "invalid_message", "object"),
        ({"type": "end"}, "invalid_message", "config"),
        ({"type": "config"}, "invalid_parameter", "data"),
        (config(language="klingon"), "invalid_parameter", "language"),
        (config(language=3), "invalid_parameter", "language"),
        (config(processing_strategy="magic"), "invalid_parameter", "processing_strategy"),
        (
            config(processing_args={"chunk_length_seconds": 0}),
            *("invalid_parameter", "chunk_length_seconds"),
        ),
        (
            config(processing_args={"chunk_length_seconds": "long"}),
            *("invalid_parameter", "chunk_length_seconds"),
        ),
    ],
)
async def test_a_wrong_message_is_told_and_has_no_effect(wrong: Any, code: str, named: str) -> None:
    async with client() as stream:
        await stream.send(words(2)[:8000], wrong, words(2)[8000:], PAUSE)
        error = await stream.read()
        assert (error["type"], error["code"]) == ("error", code)
        assert named in error["message"]
        assert (await stream.read())["text"] == "w0 w1"


async def test_an_engine_that_fails_is_told_and_loses_nothing() -> None:
    async with client(Engine([EngineFailed("")] * 3)) as stream:
        await stream.send(words(2), PAUSE)
        assert await stream.read() == {
            "type": "error",
            "code": "engine_failed",
            "message": "the transcription failed inside the engine",
        }
        await stream.send(quiet(1.5))
        assert (await stream.read())["text"] == "w0 w1"


async def test_a_fault_of_ours_ends_the_stream_with_an_error() -> None:
    async with client(Engine(trouble=ValueError("secret"))) as stream:
        await stream.send(words(2), PAUSE)
        assert await stream.closed() == 1011
    assert [message["code"] for message in stream.messages] == ["internal_error"]


async def test_who_is_silent_for_too_long_is_closed() -> None:
    async with client(idle_timeout_s=0.1) as stream:
        assert await stream.closed() == 4408
    assert [message["code"] for message in stream.messages] == ["stream_idle"]


@pytest.mark.parametrize("trouble", [None, for_ever])
async def test_a_client_may_vanish_at_any_time(trouble: Any) -> None:
    async with server(Engine(trouble=trouble)) as running:
        for frames in ([], [config()], [words(2)], [words(2), PAUSE]):
            async with running.client(path="/stream/voicestream") as stream:
                await stream.send(*frames)
                stream.vanish()
