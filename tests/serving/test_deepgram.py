"""Deepgram's own client, a real recording and real weights, through the running service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from deepgram import AsyncDeepgramClient
from deepgram.core.api_error import ApiError
from deepgram.errors import BadRequestError
from deepgram.listen.v1.types import (
    ListenV1Metadata,
    ListenV1Results,
    ListenV1SpeechStarted,
    ListenV1UtteranceEnd,
)
from deepgram.types import ListenV1Response
from whisper.normalizers import EnglishTextNormalizer

from tests.api.deepgram.service import BARE, OLD_NAMES, environment_of
from tests.conftest import SAMPLE_WORDS
from tests.serving.conftest import REQUEST_TIMEOUT_S, Service
from whisper_serve.audio.decode import decode
from whisper_serve.audio.pcm import SAMPLE_RATE, Samples, seconds

pytestmark = [
    pytest.mark.server,
    pytest.mark.weights,
    pytest.mark.filterwarnings(OLD_NAMES),
]
normalize = EnglishTextNormalizer()


@pytest.fixture
def service(real: Service) -> Service:
    return real


@pytest.fixture(scope="module")
def speech(sample: Path) -> Samples:
    with sample.open("rb") as file:
        return decode(file, accepted=(".wav",), max_duration_s=60.0)


@asynccontextmanager
async def sdk(service: Service) -> AsyncIterator[AsyncDeepgramClient]:
    async with httpx.AsyncClient(timeout=REQUEST_TIMEOUT_S) as http:
        environment = environment_of(service.url)
        yield AsyncDeepgramClient(api_key="any", environment=environment, httpx_client=http)


async def streamed(service: Service, audio: Samples, *, pace: float, **query: Any) -> list[Any]:
    """All that a client is told of a stream, sent `pace` times as fast as it is spoken."""
    async with (
        sdk(service) as client,
        client.listen.v1.connect(model="nova-3", **BARE, **query) as connection,
    ):

        async def send() -> None:
            for first in range(0, len(audio), 1_600):
                await connection.send_media(audio[first : first + 1_600].tobytes())
                await asyncio.sleep(0.1 / pace)
            await connection.send_close_stream()

        sending = asyncio.create_task(send())
        heard = [message async for message in connection]
        await sending
    return heard


def transcript(result: ListenV1Results) -> str:
    return result.channel.alternatives[0].transcript


async def test_a_recording_gives_its_words(service: Service, sample: Path) -> None:
    recording = await asyncio.to_thread(sample.read_bytes)
    async with sdk(service) as client:
        answer = await client.listen.v1.media.transcribe_file(
            request=recording, model="nova-3", smart_format=True, detect_language=True
        )
    assert isinstance(answer, ListenV1Response)
    [channel] = answer.results.channels
    assert channel.detected_language == "en"
    assert channel.alternatives is not None
    [alternative] = channel.alternatives
    assert normalize(alternative.transcript) == SAMPLE_WORDS
    assert alternative.confidence is not None
    assert 0.5 < alternative.confidence <= 1.0
    words = alternative.words or []
    assert [word.word for word in words] == SAMPLE_WORDS.split()
    assert all(0 <= (word.start or 0) <= (word.end or 0) for word in words)


async def test_bare_audio_without_formatting_gives_bare_words(
    service: Service, speech: Samples
) -> None:
    async with sdk(service) as client:
        answer = await client.listen.v1.media.transcribe_file(
            request=speech.tobytes(),
            language="en-US",
            encoding="linear16",
            request_options={"additional_query_parameters": {"sample_rate": SAMPLE_RATE}},
        )
    assert isinstance(answer, ListenV1Response)
    assert answer.metadata.duration == pytest.approx(seconds(len(speech)), abs=0.001)
    [alternative] = answer.results.channels[0].alternatives or []
    assert alternative.transcript == SAMPLE_WORDS


async def test_speech_comes_out_while_it_is_spoken(service: Service, speech: Samples) -> None:
    pause = np.zeros(3 * SAMPLE_RATE, np.int16)
    audio = np.concatenate([speech, pause])
    heard = await streamed(
        service,
        audio,
        pace=2.0,
        language="en",
        smart_format=True,
        interim_results=True,
        utterance_end_ms=1_000,
        vad_events=True,
        endpointing=300,
    )
    metadata = heard[-1]
    assert isinstance(metadata, ListenV1Metadata)
    assert metadata.duration == pytest.approx(seconds(len(audio)), abs=0.001)
    assert any(isinstance(message, ListenV1SpeechStarted) for message in heard)
    assert any(isinstance(message, ListenV1UtteranceEnd) for message in heard)
    results = [message for message in heard if isinstance(message, ListenV1Results)]
    finals = [result for result in results if result.is_final]
    assert any(not result.is_final and transcript(result) for result in results)
    assert any(result.speech_final for result in finals)
    assert normalize(" ".join(map(transcript, finals))) == SAMPLE_WORDS
    ends = [round(result.start + result.duration, 3) for result in finals]
    assert [result.start for result in finals] == [0.0, *ends[:-1]]
    assert ends[-1] <= metadata.duration


async def test_a_client_may_ask_for_what_was_said_so_far(service: Service, speech: Samples) -> None:
    async with (
        sdk(service) as client,
        client.listen.v1.connect(model="nova-3", endpointing=False, **BARE) as connection,
    ):
        await connection.send_media(speech.tobytes())
        await connection.send_finalize()
        heard: list[Any] = []
        while not (heard and getattr(heard[-1], "from_finalize", False)):
            heard.append(await asyncio.wait_for(connection.recv(), REQUEST_TIMEOUT_S))
        await connection.send_close_stream()
        rest = [message async for message in connection]
    assert " ".join(filter(None, map(transcript, heard))) == SAMPLE_WORDS
    assert isinstance(rest[-1], ListenV1Metadata)


async def test_what_is_not_supported_is_refused_by_name(service: Service, sample: Path) -> None:
    recording = await asyncio.to_thread(sample.read_bytes)
    async with sdk(service) as client:
        with pytest.raises(BadRequestError) as refused:
            await client.listen.v1.media.transcribe_file(request=recording, diarize=True)
        with pytest.raises(ApiError) as denied:
            async with client.listen.v1.connect(model="nova-3", diarize=True, **BARE):
                pass
    assert isinstance(refused.value.body, dict)
    assert refused.value.body["err_code"] == "INVALID_QUERY_PARAMETER"
    assert "diarize" in refused.value.body["err_msg"]
    assert denied.value.status_code == 400
