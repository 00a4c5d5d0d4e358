"""A stream in Deepgram's words, as bare frames and through Deepgram's own client."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import cache
from itertools import cycle
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
from deepgram.listen.v1.types import (
    ListenV1CloseStream,
    ListenV1Error,
    ListenV1Metadata,
    ListenV1Results,
    ListenV1SpeechStarted,
    ListenV1UtteranceEnd,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed

from tests.api.deepgram.service import BARE, OLD_NAMES, ListenServer, listening
from tests.api.streams import PATIENCE_S, Client, Engine, for_ever, quiet, words
from tests.audio.clips import Recipe, wav
from tests.streaming.speaker import Ears
from whisper_serve.api import live
from whisper_serve.api.connection import Closing, Connection
from whisper_serve.api.deepgram.answers import ServedModel, Writing
from whisper_serve.api.deepgram.peer import Farewell, ListenPeer, control
from whisper_serve.api.deepgram.results import LiveResults
from whisper_serve.api.peer import Incoming
from whisper_serve.errors import (
    ClientTooFast,
    EngineFailed,
    InvalidMessage,
    InvalidParameter,
    StreamIdle,
    UnreadableAudio,
    UnsupportedFormat,
    WhisperServeError,
)
from whisper_serve.streaming.messages import (
    Done,
    End,
    Failed,
    Flush,
    Keepalive,
    Ready,
    StreamConfig,
)

if TYPE_CHECKING:  # it warns of what it imports itself
    from deepgram.listen.v1.socket_client import AsyncV1SocketClient

pytestmark = pytest.mark.filterwarnings(OLD_NAMES)
PATH = "/v1/listen?encoding=linear16&sample_rate=16000"
CLOSE = {"type": "CloseStream"}


@pytest.fixture(autouse=True)
def ears(monkeypatch: pytest.MonkeyPatch) -> None:
    """Voice activity detection that takes the speech of these tests for speech."""
    monkeypatch.setattr(live, "SileroVad", Ears)


# Without a socket


class Frames:
    """The frames of a connection that are there already, and what is sent to it."""

    def __init__(self, frames: Sequence[str | bytes] = ()) -> None:
        self._frames = list(frames)
        self.sent: list[dict[str, Any]] = []

    async def receive(self) -> str | bytes | None:
        return self._frames.pop(0) if self._frames else None

    async def send(self, text: str) -> None:
        self.sent.append(json.loads(text))


def peer_of(frames: Frames, farewell: Farewell | None = None) -> ListenPeer:
    return ListenPeer(
        cast("Connection", frames),
        config=StreamConfig(),
        results=LiveResults(ServedModel("base"), Writing(formatted=False, multilingual=False)),
        farewell=farewell or Farewell(),
    )


async def heard(*frames: str | bytes) -> list[Incoming]:
    peer = peer_of(Frames(frames))
    incoming = [await peer.receive()]
    while incoming[-1] is not None:
        incoming.append(await peer.receive())
    return incoming[:-1]


async def test_frames_are_audio_or_messages() -> None:
    frames = (b"12", '{"type":"KeepAlive"}', '{"type": "Finalize"}', '{"type":"CloseStream"}')
    assert await heard(*frames) == [b"12", Keepalive(), Flush(), End()]


async def test_an_empty_frame_ends_a_stream() -> None:
    assert await heard(b"12", b"") == [b"12", End()]


async def test_nothing_is_read_behind_the_end() -> None:
    """Clients end a stream in both ways, and their timers keep it alive meanwhile."""
    frames = ('{"type":"CloseStream"}', b"", '{"type":"KeepAlive"}', "nonsense", b"12")
    assert await heard(*frames) == [End()]


@pytest.mark.parametrize(
    ("frame", "named"),
    [
        ("hello", "JSON"),
        ("[]", "object"),
        ("{}", "'None'; known: CloseStream, Finalize, KeepAlive"),
        ('{"type": 3}', "'3'"),
        ('{"type": "KeepAlive "}', "'KeepAlive '"),
        ('{"type": "Configure", "keyterms": ["Ray"]}', "'Configure'"),
        ('{"type": "Finalize", "channel": 1}', "'channel'"),
        ('{"type": "KeepAlive", "channel": 0}', "'channel'"),
        ('{"type": "CloseStream", "now": true}', "'now'"),
    ],
)
def test_any_other_message_is_refused(frame: str, named: str) -> None:
    with pytest.raises(InvalidMessage) as caught:
        control(frame)
    assert named in str(caught.value)


def test_a_flush_may_name_the_only_channel() -> None:
    assert control('{"type": "Finalize", "channel": 0}') == Flush()


async def test_the_end_tells_the_digest_of_all_audio_however_large_its_frames_are() -> None:
    audio = [bytes(3), b"12" * live.LARGE_FRAME_BYTES, b"3"]
    frames = Frames([*audio, b""])
    peer = peer_of(frames)
    for _ in range(4):
        await peer.receive()
    await peer.send(Ready("session-1", StreamConfig(), {}))
    await peer.send(Done("", 1.0, 0, {}))
    [metadata] = frames.sent
    assert metadata["sha256"] == hashlib.sha256(b"".join(audio)).hexdigest()
    assert metadata["request_id"] == "session-1"


@pytest.mark.parametrize(
    ("error", "closing"),
    [
        (StreamIdle(10.0), Closing(1011, "NET-0001: nothing came for 10 seconds")),
        (UnreadableAudio("it is no audio"), Closing(1008, "DATA-0000: it is no audio")),
        (UnsupportedFormat(".avi", [".wav"]), (1008, "DATA-0000: unsupported format: .avi")),
        (ClientTooFast(120.0), (4429, "audio came too fast")),
        (EngineFailed("a secret"), (1011, str(EngineFailed("")))),
    ],
    ids=lambda value: value.code if isinstance(value, WhisperServeError) else "",
)
async def test_a_stream_is_closed_with_the_code_and_the_words_of_that_api(
    error: WhisperServeError, closing: tuple[int, str]
) -> None:
    farewell = Farewell()
    await peer_of(Frames(), farewell).send(Failed(error.code, str(error), fatal=True))
    code, reason = farewell.closing(error.ws_close_code)
    assert code == closing[0]
    assert reason.startswith(closing[1])


def test_a_reason_fits_into_a_close_frame() -> None:
    farewell = Farewell()
    farewell.note(Failed(UnreadableAudio.code, "é" * 200, fatal=True))
    reason = farewell.closing(1008).reason
    assert len(reason.encode()) <= 123
    assert reason.endswith("é")


def test_what_did_not_end_a_stream_is_no_reason_for_its_end() -> None:
    farewell = Farewell()
    farewell.note(Failed(InvalidMessage.code, "it is not JSON", fatal=False))
    assert farewell.closing(1000) == Closing(1000)


# Over a socket


async def closed(client: Client) -> tuple[int, str]:
    code = await client.closed()
    return code, client._connection.close_reason or ""


def transcripts(client: Client, **fields: object) -> list[str]:
    return [
        message["channel"]["alternatives"][0]["transcript"]
        for message in client.all("Results")
        if fields.items() <= message.items()
    ]


async def streamed(server: ListenServer, *frames: Any, path: str = PATH) -> Client:
    """A stream of these frames, ended and read to its end."""
    async with server.client(path=path) as client:
        await client.send(*frames, CLOSE)
        assert await closed(client) == (1000, "")
    assert client.messages[-1]["type"] == "Metadata"
    return client


async def test_a_stream_is_told_to_its_end() -> None:
    audio = words(3)
    async with listening() as server:
        client = await streamed(server, audio)
    assert transcripts(client, is_final=True) == ["w0 w1 w2"]
    assert client.messages[-1]["duration"] == 1.5
    assert client.messages[-1]["sha256"] == hashlib.sha256(audio.tobytes()).hexdigest()
    ids = {message["metadata"]["request_id"] for message in client.all("Results")}
    assert ids == {client.messages[-1]["request_id"]}


async def test_an_empty_frame_ends_it_too() -> None:
    async with listening() as server, server.client(path=PATH) as client:
        await client.send(words(2).tobytes(), b"")
        assert await closed(client) == (1000, "")
    assert transcripts(client, is_final=True) == ["w0 w1"]


async def test_a_stream_without_audio_ends_as_well() -> None:
    async with listening() as server:
        client = await streamed(server)
    assert [message["type"] for message in client.messages] == ["Metadata"]
    assert client.messages[0]["duration"] == 0.0


async def test_a_pause_ends_speech() -> None:
    async with listening() as server:
        client = await streamed(server, words(2), quiet(0.5), words(4)[16_000:], quiet(0.5))
    assert transcripts(client, speech_final=True) == ["w0 w1", "w2 w3"]


async def test_a_shorter_pause_than_was_asked_for_does_not() -> None:
    async with listening() as server:
        frames = (words(2), quiet(0.5), words(4)[16_000:], quiet(0.5))
        client = await streamed(server, *frames, path=PATH + "&endpointing=900")
    assert transcripts(client, is_final=True) == ["w0 w1 w2 w3"]


async def test_no_pause_ends_speech_without_endpointing() -> None:
    async with listening() as server:
        frames = (words(2), quiet(1.5), words(4)[16_000:], quiet(1.5))
        client = await streamed(server, *frames, path=PATH + "&endpointing=false")
    assert " ".join(transcripts(client, is_final=True)) == "w0 w1 w2 w3"
    assert transcripts(client, speech_final=True) == []


async def test_a_flush_is_answered_once_whether_there_is_text_or_not() -> None:
    flush = {"type": "Finalize"}
    async with listening() as server, server.client(path=PATH) as client:
        await client.send(words(2), flush)
        first = await client.until("Results", from_finalize=True)
        await client.send(flush)
        second = await client.until("Results", from_finalize=True)
        await client.send(words(3)[16_000:], CLOSE)
        await client.closed()
    texts = [m["channel"]["alternatives"][0]["transcript"] for m in (first, second)]
    assert texts == ["w0 w1", ""]
    assert transcripts(client, is_final=True, from_finalize=False) == ["w2"]
    assert len(client.all("Results")) == 3


@pytest.mark.parametrize("asked", [True, False])
async def test_interim_text_comes_to_who_asks_for_it(asked: bool) -> None:
    path = PATH + f"&interim_results={str(asked).lower()}"
    async with listening() as server, server.client(path=path) as client:
        await client.send(words(3))
        if asked:
            shown = await client.until("Results", is_final=False)
            assert shown["channel"]["alternatives"][0]["words"][0] == {
                "word": "w0",
                "start": 0.1,
                "end": 0.5,
                "confidence": 0.9,
            }
        await client.send(CLOSE)
        await client.closed()
    assert bool(transcripts(client, is_final=False)) is asked


async def test_the_end_of_an_utterance_is_told_to_who_asks_for_it() -> None:
    path = PATH + "&interim_results=true&utterance_end_ms=1000"
    async with listening() as server, server.client(path=path) as client:
        await client.send(words(2), quiet(1.5))
        ended = await client.until("UtteranceEnd")
        assert (ended["channel"], ended["last_word_end"]) == ([0, 1], 1.0)
        await client.send(CLOSE)
        await client.closed()
    assert len(client.all("UtteranceEnd")) == 1


@pytest.mark.parametrize("asked", [True, False])
async def test_speech_is_told_to_who_asks_for_it(asked: bool) -> None:
    async with listening() as server:
        path = PATH + f"&vad_events={str(asked).lower()}"
        client = await streamed(server, words(2), quiet(1.0), words(4)[16_000:], path=path)
    times = [message["timestamp"] for message in client.all("SpeechStarted")]
    assert times == (pytest.approx([0.1, 2.1], abs=0.05) if asked else [])


@pytest.mark.parametrize(
    ("query", "text"),
    [("", "w0 w1"), ("&punctuate=true", "w0 w1"), ("&smart_format=true", "w0 w1")],
)
async def test_words_are_punctuated_for_who_asks_for_it(query: str, text: str) -> None:
    async with listening() as server:
        client = await streamed(server, words(2), path=PATH + query)
    [alternative] = client.all("Results")[0]["channel"]["alternatives"]
    assert alternative["transcript"] == text
    assert all(("punctuated_word" in word) is bool(query) for word in alternative["words"])


async def test_language_terms_and_model_reach_the_engine() -> None:
    engine = Engine()
    settings = {"model": {"size": "base"}, "models": ["large-v3"]}
    async with listening(engine, settings=settings) as server:
        query = "&language=de-CH&keyterm=Ray&keyterm=Silero&model=whisper-large-v3"
        client = await streamed(server, words(2), path=PATH + query)
    asked = {(task.language, task.hotwords, task.model) for task in engine.tasks}
    assert asked == {("de", "Ray, Silero", "large-v3")}
    assert client.all("Results")[0]["metadata"]["model_info"]["name"] == "large-v3"


async def test_a_multilingual_stream_detects_and_tells_its_language() -> None:
    engine = Engine()
    async with listening(engine) as server:
        client = await streamed(server, words(2), path=PATH + "&language=multi")
    assert engine.tasks[0].language is None
    assert client.all("Results")[0]["channel"]["alternatives"][0]["languages"] == ["en"]


async def test_two_channels_are_mixed_down() -> None:
    stereo = np.repeat(words(3), 2)
    async with listening() as server:
        client = await streamed(server, stereo, path=PATH + "&channels=2")
    assert client.messages[-1]["duration"] == 1.5
    assert client.messages[-1]["channels"] == 1


@pytest.mark.parametrize(
    ("query", "audio"),
    [
        ("encoding=linear32&sample_rate=16000", (words(2) / np.float32(32768)).tobytes()),
        ("encoding=mulaw&sample_rate=8000", bytes(range(128, 228)) * 80),
        ("encoding=alaw&sample_rate=8000", bytes(range(128, 228)) * 80),
        ("encoding=flac", Recipe("flac", "flac", 16_000).tone(1.0)),
        ("encoding=ogg-opus", Recipe("ogg", "libopus").tone(1.0)),
        ("", Recipe("webm", "libopus").tone(1.0)),
        ("", Recipe("ogg", "libopus").tone(1.0)),
        ("", wav(words(2))),
        ("channels=1&sample_rate=8000", wav(words(2))),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_every_encoding_is_decoded(query: str, audio: bytes) -> None:
    async with listening() as server:
        client = await streamed(server, audio, path=f"/v1/listen?{query}")
    assert client.messages[-1]["duration"] == pytest.approx(1.0, abs=0.05)


async def test_what_is_no_audio_ends_the_stream() -> None:
    async with listening() as server, server.client(path="/v1/listen") as client:
        await client.send(b"nothing that anybody can hear " * 5_000)
        code, reason = await closed(client)
    assert code == 1008
    assert reason.startswith("DATA-0000: ")
    [error] = client.messages
    assert error["type"] == "Error"


async def test_a_wrong_message_is_told_and_has_no_effect() -> None:
    async with listening() as server:
        client = await streamed(server, words(1), '{"type": "Nonsense"}', words(2)[8_000:])
    [error] = client.all("Error")
    assert error["variant"] == "SchemaError"
    assert "'Nonsense'" in error["description"]
    assert transcripts(client, is_final=True) == ["w0 w1"]


async def test_who_says_nothing_for_too_long_is_closed() -> None:
    settings = {"deepgram": {"idle_timeout_s": 0.2}}
    async with listening(settings=settings) as server, server.client(path=PATH) as client:
        code, reason = await closed(client)
    assert (code, reason) == (1011, "NET-0001: nothing came for 0.2 seconds")


async def test_keep_alive_keeps_a_stream_alive_and_is_not_answered() -> None:
    settings = {"deepgram": {"idle_timeout_s": 0.4}}
    async with listening(settings=settings) as server, server.client(path=PATH) as client:
        for _ in range(10):
            await client.send({"type": "KeepAlive"})
            await asyncio.sleep(0.08)
        await client.send(CLOSE)
        assert await closed(client) == (1000, "")
    assert [message["type"] for message in client.messages] == ["Metadata"]


async def test_an_engine_that_fails_is_told_and_loses_nothing() -> None:
    engine = Engine([EngineFailed("")] * 3)
    async with listening(engine) as server, server.client(path=PATH) as client:
        await client.send(words(2), quiet(0.5))
        assert (await client.until("Error"))["variant"] == "engine_failed"
        await client.send(quiet(0.5))
        await client.until("Results", speech_final=True)
        await client.send(CLOSE)
        await client.closed()
    assert transcripts(client, is_final=True) == ["w0 w1"]


async def test_a_language_that_the_model_does_not_know_ends_the_stream() -> None:
    engine = Engine(trouble=InvalidParameter("language", "the model knows English only"))
    async with listening(engine) as server, server.client(path=PATH) as client:
        await client.send(words(2), quiet(1.0))
        assert await closed(client) == (1008, "language: the model knows English only")


async def test_a_fault_of_ours_is_told_without_its_secrets() -> None:
    engine = Engine(trouble=ValueError("secret"))
    async with listening(engine) as server, server.client(path=PATH) as client:
        await client.send(words(2), quiet(1.0))
        assert await closed(client) == (1011, "the service failed unexpectedly")


@pytest.mark.parametrize("trouble", [None, for_ever])
async def test_a_client_may_vanish_at_any_time(trouble: Any) -> None:
    async with listening(Engine(trouble=trouble)) as server:
        for frames in ([], [words(2)], [words(2), {"type": "Finalize"}], [words(2), CLOSE]):
            async with server.client(path=PATH) as client:
                await client.send(*frames)
                client.vanish()


AUDIO = np.concatenate([words(3), quiet(0.6), words(6)[24_000:], quiet(2.5), words(8)[48_000:]])


def frames_of(data: bytes, sizes: Sequence[int]) -> list[bytes]:
    """`data` in frames of `sizes`, over and over."""
    frames, sizes_left = [], cycle(sizes)
    while data:
        size = next(sizes_left)
        frames.append(data[:size])
        data = data[size:]
    return frames


async def told_of(frames: Sequence[bytes]) -> list[dict[str, Any]]:
    """All that is told of a stream, without what is another each time."""
    async with listening() as server:
        client = await streamed(server, *frames)
    *results, metadata = client.messages
    for message in results:
        message.pop("metadata", None)
    return [*results, {key: metadata[key] for key in ("sha256", "duration")}]


@settings(max_examples=20)
@given(sizes=st.lists(st.integers(801, 80_001), min_size=1, max_size=6))
def test_the_same_audio_gives_the_same_finals_however_it_is_cut(sizes: list[int]) -> None:
    assert asyncio.run(told_of(frames_of(AUDIO.tobytes(), sizes))) == told_whole()


@cache
def told_whole() -> list[dict[str, Any]]:
    told = asyncio.run(told_of([AUDIO.tobytes()]))
    texts = [message["channel"]["alternatives"][0]["transcript"] for message in told[:-1]]
    assert " ".join(texts).split() == [f"w{number}" for number in range(8)]
    return told


# Through Deepgram's own client


@asynccontextmanager
async def connected(**settings: Any) -> AsyncIterator[AsyncV1SocketClient]:
    async with (
        listening(settings=settings) as server,
        server.sdk() as sdk,
        sdk.listen.v1.connect(model="nova-3", **BARE) as connection,
    ):
        yield connection


async def test_the_client_hears_what_is_said_and_what_happens() -> None:
    async with listening() as server, server.sdk() as sdk:
        asked = {"interim_results": True, "utterance_end_ms": 1_000, "vad_events": True, **BARE}
        async with sdk.listen.v1.connect(
            model="nova-3", language="en-US", smart_format=True, endpointing=300, **asked
        ) as connection:
            await connection.send_media(words(3).tobytes())
            await connection.send_keep_alive()
            await connection.send_media(quiet(1.5).tobytes())
            await connection.send_finalize()
            await connection.send_close_stream()
            heard: list[Any] = [message async for message in connection]
    assert isinstance(heard[-1], ListenV1Metadata)
    assert (heard[-1].duration, heard[-1].channels) == (3.0, 1)
    assert any(isinstance(message, ListenV1SpeechStarted) for message in heard)
    assert any(isinstance(message, ListenV1UtteranceEnd) for message in heard)
    results = [message for message in heard if isinstance(message, ListenV1Results)]
    [ended] = [result for result in results if result.speech_final]
    assert ended.channel.alternatives[0].transcript == "w0 w1 w2"
    assert ended.channel.alternatives[0].words[0].punctuated_word == "w0"
    assert ended.metadata.model_info.name == "base"
    assert [result.from_finalize for result in results].count(True) == 1


async def test_the_client_is_told_of_its_mistakes() -> None:
    async with connected() as connection:
        await connection.send_close_stream(ListenV1CloseStream(type="Nonsense"))
        error = await asyncio.wait_for(connection.recv(), PATIENCE_S)
        await connection.send_close_stream()
    assert isinstance(error, ListenV1Error)
    assert error.variant == "SchemaError"


async def test_the_client_hears_why_it_was_closed() -> None:
    async with connected(deepgram={"idle_timeout_s": 0.2}) as connection:
        error = await asyncio.wait_for(connection.recv(), PATIENCE_S)
        with pytest.raises(ConnectionClosed) as caught:
            await asyncio.wait_for(connection.recv(), PATIENCE_S)
    assert isinstance(error, ListenV1Error)
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == 1011
    assert caught.value.rcvd.reason.startswith("NET-0001")


async def test_the_blocking_client_hears_the_same() -> None:
    def listen(server: ListenServer) -> list[Any]:
        with (
            server.blocking_sdk() as sdk,
            sdk.listen.v1.connect(model="nova-3", **BARE) as connection,
        ):
            connection.send_media(words(3).tobytes())
            connection.send_close_stream()
            return list(connection)

    async with listening() as server:
        result, metadata = await asyncio.to_thread(listen, server)
    assert result.channel.alternatives[0].transcript == "w0 w1 w2"
    assert metadata.request_id == result.metadata.request_id
