"""Every API gives the same text of the same recording: files all of them, streams all of them,
and both kinds up to what a stream cannot know."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import av
import httpx
import jiwer
import numpy as np
import pytest
from deepgram import AsyncDeepgramClient
from deepgram.listen.v1.types import ListenV1Results
from openai import AsyncOpenAI
from openai.resources.realtime.realtime import AsyncRealtimeConnection
from openai.types.realtime import RealtimeTranscriptionSessionCreateRequestParam
from whisper.normalizers import EnglishTextNormalizer

from tests.api.deepgram.service import OLD_NAMES, environment_of
from tests.audio.clips import wav
from tests.serving.conftest import REQUEST_TIMEOUT_S, Service
from whisper_serve.audio.decode import decode
from whisper_serve.audio.pcm import SAMPLE_RATE, Samples
from whisper_serve.client import AsyncClient

pytestmark = [
    pytest.mark.server,
    pytest.mark.weights,
    pytest.mark.filterwarnings(OLD_NAMES),
]
normalize = EnglishTextNormalizer()
# What the Realtime API takes.
RATE: Final = 24_000
EXCERPT_S = 30
# So that the last turn ends.
SILENCE_S = 2
# How all of these streams tell that somebody has stopped speaking.
SILENCE_MS, PADDING_MS = 500, 100


@pytest.fixture
def service(real: Service) -> Service:
    return real


@pytest.fixture(scope="module")
def excerpt(corpus: Path) -> Samples:
    """Int16 at 24 kHz, mono."""
    with (corpus / "long/669-129074.flac").open("rb") as file:
        samples = decode(file, accepted=(".flac",), max_duration_s=600.0)
    padded = np.concatenate(
        [samples[: EXCERPT_S * SAMPLE_RATE], np.zeros(SILENCE_S * SAMPLE_RATE, np.int16)]
    )
    frame = av.AudioFrame.from_ndarray(padded.reshape(1, -1), format="s16", layout="mono")
    frame.sample_rate = SAMPLE_RATE
    resampler = av.AudioResampler("s16", "mono", RATE)
    frames = [*resampler.resample(frame), *resampler.resample(None)]
    joined: Samples = np.concatenate([part.to_ndarray()[0] for part in frames])
    return joined


def openai(service: Service) -> AsyncOpenAI:
    return AsyncOpenAI(
        api_key="any", base_url=f"{service.url}/v1", max_retries=0, timeout=REQUEST_TIMEOUT_S
    )


@asynccontextmanager
async def deepgram(service: Service) -> AsyncIterator[AsyncDeepgramClient]:
    async with httpx.AsyncClient(timeout=REQUEST_TIMEOUT_S) as http:
        environment = environment_of(service.url)
        yield AsyncDeepgramClient(api_key="any", environment=environment, httpx_client=http)


def pieces(excerpt: Samples) -> list[bytes]:
    return [excerpt[i : i + RATE // 10].tobytes() for i in range(0, len(excerpt), RATE // 10)]


# Files


async def files(service: Service, recording: bytes) -> dict[str, str]:
    """The text from each API that takes files."""
    async with AsyncClient(service.url) as client:
        native = await client.transcribe(io.BytesIO(recording), language="en")
    file = ("excerpt.wav", recording)
    async with openai(service) as client:
        whole = await client.audio.transcriptions.create(
            model="whisper-1", file=file, language="en"
        )
        events = await client.audio.transcriptions.create(
            model="base", file=file, language="en", stream=True
        )
        deltas = [event.delta async for event in events if event.type == "transcript.text.delta"]
    async with deepgram(service) as client:
        answer = await client.listen.v1.media.transcribe_file(
            request=recording, model="nova-3", language="en", smart_format=True
        )
    [alternative] = answer.results.channels[0].alternatives or []
    return {
        "native": native.text,
        "openai": whole.text,
        "openai streamed": "".join(deltas),
        "deepgram": alternative.transcript or "",
    }


# Streams


async def native_stream(service: Service, excerpt: Samples) -> str:
    async with AsyncClient(service.url) as client:
        return await client.transcribe_stream(
            excerpt.tobytes(),
            sample_rate=RATE,
            language="en",
            interim=False,
            endpointing=SILENCE_MS / 1000,
            prefix_padding=PADDING_MS / 1000,
        )


async def realtime(service: Service, excerpt: Samples) -> str:
    """The transcripts of all turns."""
    session: RealtimeTranscriptionSessionCreateRequestParam = {
        "type": "transcription",
        "audio": {
            "input": {
                "format": {"type": "audio/pcm", "rate": RATE},
                "transcription": {"model": "whisper-1", "language": "en"},
                "turn_detection": {
                    "type": "server_vad",
                    "silence_duration_ms": SILENCE_MS,
                    "prefix_padding_ms": PADDING_MS,
                },
            }
        },
    }
    query = {"intent": "transcription"}
    async with openai(service) as client, client.realtime.connect(extra_query=query) as connection:
        await connection.session.update(session=session)
        sending = asyncio.create_task(_append(connection, excerpt))
        heard = await asyncio.wait_for(_transcripts(connection, sending), REQUEST_TIMEOUT_S)
    return " ".join(heard)


async def _append(connection: AsyncRealtimeConnection, excerpt: Samples) -> None:
    for piece in pieces(excerpt):
        await connection.input_audio_buffer.append(audio=base64.b64encode(piece).decode())


async def _transcripts(
    connection: AsyncRealtimeConnection, sending: asyncio.Task[None]
) -> list[str]:
    """Until every turn that began is complete."""
    heard, open_turns = [], 0
    async for event in connection:
        match event.type:
            case "error":
                raise AssertionError(event.error.message)
            case "input_audio_buffer.speech_started":
                open_turns += 1
            case "conversation.item.input_audio_transcription.completed":
                heard.append(event.transcript)
                open_turns -= 1
                if sending.done() and not open_turns:
                    return heard
            case _:
                pass
    raise AssertionError("the connection ended")


async def deepgram_live(service: Service, excerpt: Samples) -> str:
    async with (
        deepgram(service) as client,
        client.listen.v1.connect(
            model="nova-3",
            language="en",
            encoding="linear16",
            sample_rate=RATE,
            endpointing=SILENCE_MS,
            smart_format=True,
        ) as connection,
    ):
        for piece in pieces(excerpt):
            await connection.send_media(piece)
        await connection.send_close_stream()
        heard = [
            message.channel.alternatives[0].transcript
            async for message in connection
            if isinstance(message, ListenV1Results)
        ]
    return " ".join(filter(None, heard))


async def test_the_text_of_a_recording_is_the_same_wherever_it_is_asked_for(
    service: Service, excerpt: Samples
) -> None:
    given = await files(service, wav(excerpt, rate=RATE))
    assert set(given.values()) == {given["native"]}
    native = await native_stream(service, excerpt)
    live = {
        "realtime": await realtime(service, excerpt),
        "deepgram": await deepgram_live(service, excerpt),
    }
    assert {name: text.split() for name, text in live.items()} == dict.fromkeys(
        live, native.split()
    )
    # What a stream cannot know is what comes next.
    assert jiwer.wer(normalize(given["native"]), normalize(native)) < 0.08
