"""OpenAI's own client speaks with the real service: what was said comes out."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import pytest
from openai import AsyncOpenAI
from openai.types.realtime import RealtimeTranscriptionSessionCreateRequestParam
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from whisper.normalizers import EnglishTextNormalizer

from tests.api.openai.realtime.lines import COMPLETED, DELTA, heard, transcripts
from tests.api.openai.realtime.voices import encoded, pieces
from tests.conftest import SAMPLE_WORDS
from tests.serving.conftest import Service
from whisper_serve.audio.decode import decode
from whisper_serve.audio.pcm import SAMPLE_RATE, Samples

pytestmark = [pytest.mark.server, pytest.mark.weights]
normalize = EnglishTextNormalizer()
PATIENCE_S = 60.0
TRANSCRIPTION = {"intent": "transcription"}
MANUAL: RealtimeTranscriptionSessionCreateRequestParam = {
    "type": "transcription",
    "audio": {"input": {"turn_detection": None}},
}


@pytest.fixture
def service(real: Service) -> Service:
    return real


@pytest.fixture(scope="module")
def recording(sample: Path) -> Samples:
    with sample.open("rb") as file:
        speech = decode(file, accepted=(".wav",), max_duration_s=60.0)
    return np.concatenate([speech, np.zeros(SAMPLE_RATE, np.int16)])


def at_rate(samples: Samples, rate: int) -> Samples:
    times = np.arange(len(samples) * rate // SAMPLE_RATE) * (SAMPLE_RATE / rate)
    resampled: Samples = np.interp(times, np.arange(len(samples)), samples).astype(np.int16)
    return resampled


@asynccontextmanager
async def client_of(service: Service, key: str = "any") -> AsyncIterator[AsyncOpenAI]:
    url = f"{service.url}/v1"
    async with AsyncOpenAI(
        api_key=key, base_url=url, websocket_base_url=url.replace("http", "ws", 1), max_retries=0
    ) as client:
        yield client


async def append(connection: Any, data: bytes) -> None:
    for piece in pieces(data, [9_600]):
        await connection.input_audio_buffer.append(audio=base64.b64encode(piece).decode())


async def test_a_recording_comes_out_turn_by_turn(service: Service, recording: Samples) -> None:
    async with (
        client_of(service) as client,
        client.realtime.connect(extra_query=TRANSCRIPTION) as connection,
    ):
        await connection.session.update(
            session={
                "type": "transcription",
                "audio": {
                    "input": {"turn_detection": {"type": "server_vad", "silence_duration_ms": 900}}
                },
            }
        )
        await append(connection, at_rate(recording, 24_000).tobytes())
        told = await heard(connection, COMPLETED, 2, patience_s=PATIENCE_S)
    first, last = (normalize(text) for text in transcripts(told))
    assert jiwer.wer(SAMPLE_WORDS, f"{first} {last}") < 0.1
    assert last == "fail again fail better"
    for event in told:
        if event["type"] == COMPLETED:
            deltas = [e for e in told if e["type"] == DELTA and e["item_id"] == event["item_id"]]
            assert "".join(e["delta"] for e in deltas) == event["transcript"]
            assert event["usage"]["seconds"] > 2.0


@pytest.mark.parametrize("kind", ["audio/pcmu", "audio/pcma"])
async def test_a_telephone_is_understood(service: Service, recording: Samples, kind: Any) -> None:
    data = encoded(at_rate(recording, 8_000), kind)
    async with (
        client_of(service) as client,
        client.realtime.connect(extra_query=TRANSCRIPTION) as connection,
    ):
        await connection.session.update(
            session={
                "type": "transcription",
                "audio": {
                    "input": {
                        "format": {"type": kind},
                        "transcription": {"model": "whisper-1", "language": "en"},
                        "turn_detection": None,
                    }
                },
            }
        )
        await append(connection, data)
        await connection.input_audio_buffer.commit()
        told = await heard(connection, COMPLETED, patience_s=PATIENCE_S)
    (transcript,) = transcripts(told)
    assert normalize(transcript) == SAMPLE_WORDS


async def test_commits_are_answered_one_by_one(service: Service, recording: Samples) -> None:
    data = at_rate(recording, 24_000).tobytes()
    async with (
        client_of(service) as client,
        client.realtime.connect(extra_query=TRANSCRIPTION) as connection,
    ):
        await connection.session.update(session=MANUAL)
        for _ in range(3):
            await append(connection, data)
            await connection.input_audio_buffer.commit()
        told = await heard(connection, COMPLETED, 3, patience_s=PATIENCE_S)
    # The text before them is context, and now and then changes a word.
    heard_texts = [normalize(text) for text in transcripts(told)]
    assert jiwer.wer([SAMPLE_WORDS] * 3, heard_texts) < 0.1
    assert all(text.endswith("fail better") for text in heard_texts)


async def test_a_browser_s_key_opens_its_session(service: Service, recording: Samples) -> None:
    async with client_of(service) as client:
        secret = await client.realtime.client_secrets.create(session=MANUAL)
    async with client_of(service, secret.value) as browser, browser.realtime.connect() as talk:
        await append(talk, at_rate(recording, 24_000).tobytes())
        await talk.input_audio_buffer.commit()
        told = await heard(talk, COMPLETED, patience_s=PATIENCE_S)
    (transcript,) = transcripts(told)
    assert normalize(transcript) == SAMPLE_WORDS


@pytest.mark.parametrize(
    ("query", "key", "status"),
    [
        ("", "any", 400),
        ("?intent=transcription&model=gpt-9", "any", 404),
        ("?intent=transcription", "ek_wrong", 401),
    ],
)
async def test_refusals_are_answers_of_http(
    service: Service, query: str, key: str, status: int
) -> None:
    url = f"{service.url.replace('http', 'ws', 1)}/v1/realtime{query}"
    headers = {"Authorization": f"Bearer {key}"}
    with pytest.raises(InvalidStatus) as refused:
        async with connect(url, additional_headers=headers, proxy=None):
            pass
    assert refused.value.response.status_code == status
    assert b'"error"' in (refused.value.response.body or b"")


async def test_a_browser_s_subprotocol_is_accepted(service: Service) -> None:
    async with client_of(service) as client:
        secret = await client.realtime.client_secrets.create(session=MANUAL)
    offered: list[Any] = ["realtime", f"openai-insecure-api-key.{secret.value}"]
    url = f"{service.url.replace('http', 'ws', 1)}/v1/realtime"
    async with connect(url, subprotocols=offered, proxy=None) as connection:
        assert connection.subprotocol == "realtime"
        assert "session.created" in str(await asyncio.wait_for(connection.recv(), PATIENCE_S))
