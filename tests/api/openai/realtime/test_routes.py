"""OpenAI's own clients speak with the whole application over a real socket."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.realtime import RealtimeTranscriptionSessionCreateRequestParam
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.api.fakes import Settings
from tests.api.openai.realtime.lines import (
    CLEAR,
    COMMIT,
    COMMITTED,
    COMPLETED,
    DELTA,
    Told,
    heard,
    session,
    transcripts,
)
from tests.api.openai.realtime.voices import (
    DullEars,
    DullEngine,
    append,
    encoded,
    joined,
    pieces,
    quiet,
    speech,
)
from tests.api.openai.service import serving
from tests.api.streams import PATIENCE_S, Engine
from whisper_serve.api import live
from whisper_serve.api.openai.realtime.configuration import SessionConfig
from whisper_serve.api.openai.realtime.ephemeral_keys import EphemeralKeys

SPEECH = joined(speech(0, 1, 2), quiet(1.0), speech(3, 4), quiet(1.0))
TRANSCRIPTION = {"intent": "transcription"}
MANUAL: RealtimeTranscriptionSessionCreateRequestParam = {
    "type": "transcription",
    "audio": {"input": {"turn_detection": None}},
}
# OpenAI's client for threads opens a socket in an old way.
pytestmark = pytest.mark.filterwarnings("ignore:connect.. must be used:DeprecationWarning")


@pytest.fixture(autouse=True)
def ears(monkeypatch: pytest.MonkeyPatch) -> None:
    """Voice activity detection that takes the speech of these tests for speech."""
    monkeypatch.setattr(live, "SileroVad", DullEars)


def keys(now: Callable[[], float] | None = None) -> EphemeralKeys:
    """Of the service."""
    return EphemeralKeys("key", now) if now else EphemeralKeys("key")


@asynccontextmanager
async def sdk(
    engine: Engine | None = None, settings: Settings | None = None, key: str = "any"
) -> AsyncIterator[AsyncOpenAI]:
    async with serving(engine or DullEngine(), settings) as url, client_of(url, key) as client:
        yield client


def client_of(url: str, key: str = "any") -> AsyncOpenAI:
    return AsyncOpenAI(
        api_key=key,
        base_url=url,
        websocket_base_url=url.replace("http", "ws", 1),
        max_retries=0,
        timeout=PATIENCE_S,
    )


def text_of(audio: bytes) -> str:
    return base64.b64encode(audio).decode()


# Today's client


async def test_a_conversation_is_written_turn_by_turn() -> None:
    async with sdk() as client, client.realtime.connect(extra_query=TRANSCRIPTION) as connection:
        await connection.session.update(
            session={
                "type": "transcription",
                "audio": {
                    "input": {
                        "format": {"type": "audio/pcm", "rate": 24_000},
                        "transcription": {"model": "whisper-1", "language": "en"},
                        "turn_detection": {"type": "server_vad", "silence_duration_ms": 400},
                    }
                },
                "include": ["item.input_audio_transcription.logprobs"],
            }
        )
        for piece in pieces(SPEECH.tobytes(), [4_800]):
            await connection.input_audio_buffer.append(audio=text_of(piece))
        told = await heard(connection, COMPLETED, 2)
    assert [event["type"] for event in told[:2]] == ["session.created", "session.updated"]
    assert told[1]["session"]["audio"]["input"]["transcription"]["model"] == "whisper-1"
    assert transcripts(told) == ["w0 w1 w2", "w3 w4"]
    deltas = [event for event in told if event["type"] == DELTA]
    assert [entry["token"] for entry in deltas[0]["logprobs"]] == ["w0", " w1", " w2"]


async def test_the_client_may_say_itself_where_a_turn_ends() -> None:
    async with sdk() as client, client.realtime.connect(extra_query=TRANSCRIPTION) as connection:
        await connection.session.update(session=MANUAL)
        for numbers in ([0, 1], [2], [3, 4]):
            audio = speech(*numbers).tobytes()
            await connection.input_audio_buffer.append(audio=text_of(audio))
            await connection.input_audio_buffer.commit()
        told = await heard(connection, COMPLETED, 3)
    assert transcripts(told) == ["w0 w1", "w2", "w3 w4"]


async def test_a_client_in_a_thread_hears_the_same() -> None:
    def talk(url: str) -> list[Told]:
        told: list[Told] = []
        with (
            OpenAI(
                api_key="any", base_url=url, websocket_base_url=url.replace("http", "ws", 1)
            ) as client,
            client.realtime.connect(extra_query=TRANSCRIPTION) as connection,
        ):
            for piece in pieces(SPEECH.tobytes(), [9_600]):
                connection.input_audio_buffer.append(audio=text_of(piece))
            for event in connection:
                told.append(event.to_dict())
                if [each["type"] for each in told].count(COMPLETED) == 2:
                    break
        return told

    async with serving(DullEngine()) as url:
        told = await asyncio.wait_for(asyncio.to_thread(talk, url), PATIENCE_S)
    assert transcripts(told) == ["w0 w1 w2", "w3 w4"]


async def test_an_error_leaves_the_session_as_it_was() -> None:
    async with sdk() as client, client.realtime.connect(extra_query=TRANSCRIPTION) as connection:
        await connection.response.create(event_id="mine")
        await connection.input_audio_buffer.commit(event_id="other")
        await connection.session.update(
            session={"type": "realtime", "instructions": "Be kind."}, event_id="third"
        )
        told = await heard(connection, "error", 3)
        await connection.input_audio_buffer.append(audio=text_of(SPEECH.tobytes()))
        told += await heard(connection, COMPLETED, 2)
    errors = [event["error"] for event in told if event["type"] == "error"]
    assert [error["event_id"] for error in errors] == ["mine", "other", "third"]
    assert errors[2]["param"] == "session.type"
    assert transcripts(told) == ["w0 w1 w2", "w3 w4"]


async def test_the_largest_events_are_taken() -> None:
    """An append of 2 MiB, more than is read at once."""
    seconds = joined(*[joined(speech(0, 1), quiet(1.0))] * 22)
    settings = {"streaming": {"target_answer_s": None}}
    async with (
        sdk(settings=settings) as client,
        client.realtime.connect(extra_query=TRANSCRIPTION) as connection,
    ):
        await connection.input_audio_buffer.append(audio=text_of(seconds.tobytes()))
        told = await heard(connection, COMPLETED, 22)
    assert transcripts(told) == ["w0 w1"] * 22


# The beta's client


async def test_the_beta_s_client_is_served_in_its_words() -> None:
    async with (
        sdk() as client,
        client.beta.realtime.connect(model="whisper-1", extra_query=TRANSCRIPTION) as connection,
    ):
        await connection.transcription_session.update(
            session={"input_audio_format": "g711_ulaw", "input_audio_transcription": {}}
        )
        audio = encoded(joined(speech(0, 1, rate=8_000), quiet(1.0, 8_000)), "audio/pcmu")
        await connection.input_audio_buffer.append(audio=text_of(audio))
        told = await heard(connection, COMPLETED)
    kinds = [event["type"] for event in told]
    assert kinds[:2] == ["transcription_session.created", "transcription_session.updated"]
    assert told[1]["session"]["input_audio_format"] == "g711_ulaw"
    assert "conversation.item.created" in kinds
    assert "conversation.item.added" not in kinds
    assert transcripts(told) == ["w0 w1"]


# The handshake


@asynccontextmanager
async def socket(
    url: str,
    query: str = "?intent=transcription",
    *,
    headers: Mapping[str, str] | None = None,
    subprotocols: Sequence[Any] | None = None,
) -> AsyncIterator[ClientConnection]:
    async with connect(
        f"{url.replace('http', 'ws', 1)}/realtime{query}",
        additional_headers=headers,
        subprotocols=subprotocols,
        max_size=None,
        proxy=None,
        close_timeout=1,
    ) as connection:
        yield connection


async def next_event(connection: ClientConnection) -> Told:
    told: Told = json.loads(await asyncio.wait_for(connection.recv(), PATIENCE_S))
    return told


async def refusal(url: str, query: str = "", **options: Any) -> tuple[int, Told]:
    """Status and error of the answer."""
    with pytest.raises(InvalidStatus) as refused:
        async with socket(url, query, **options):
            pass
    response = refused.value.response
    return response.status_code, json.loads(response.body or b"")["error"]


@pytest.mark.parametrize(
    ("query", "status", "code", "param"),
    [
        ("", 400, "invalid_parameter", "intent"),
        ("?intent=conversation", 400, "invalid_parameter", "intent"),
        ("?model=whisper-1", 400, "invalid_parameter", "intent"),
        ("?intent=transcription&call_id=rtc_1", 400, "invalid_parameter", "call_id"),
        ("?intent=transcription&model=gpt-9", 404, "model_not_found", "model"),
    ],
)
async def test_what_cannot_be_is_refused_before_the_session(
    query: str, status: int, code: str, param: str
) -> None:
    async with serving(DullEngine()) as url:
        got, error = await refusal(url, query)
    assert (got, error["code"], error["param"]) == (status, code, param)
    assert error["type"] == "invalid_request_error"


async def test_a_model_may_be_chosen_in_the_address() -> None:
    engine = DullEngine()
    settings: dict[str, Any] = {"models": ["tiny.en"]}
    async with (
        sdk(engine, settings) as client,
        client.realtime.connect(model="tiny.en", extra_query=TRANSCRIPTION) as connection,
    ):
        await connection.input_audio_buffer.append(audio=text_of(SPEECH.tobytes()))
        told = await heard(connection, COMPLETED)
    assert told[0]["session"]["audio"]["input"]["transcription"]["model"] == "tiny.en"
    assert {task.model for task in engine.tasks} == {"tiny.en"}


async def test_browsers_say_as_subprotocols_what_they_cannot_say_in_headers() -> None:
    key = keys().issue(session(transcription={"language": "de"}), 600).value
    offered = ["realtime", f"openai-insecure-api-key.{key}", "openai-beta.realtime-v1"]
    async with serving(DullEngine()) as url:
        async with socket(url, "", subprotocols=offered[:2]) as connection:
            assert connection.subprotocol == "realtime"
            told = await next_event(connection)
            assert told["type"] == "session.created"
            assert told["session"]["audio"]["input"]["transcription"]["language"] == "de"
        async with socket(url, "", subprotocols=offered) as connection:
            told = await next_event(connection)
            assert told["type"] == "transcription_session.created"
            assert told["session"]["input_audio_transcription"]["language"] == "de"
        # Keys of the service itself are not looked at.
        async with socket(url, subprotocols=["realtime", "openai-insecure-api-key.sk-1"]):
            pass
        async with socket(url) as connection:
            assert connection.subprotocol is None


async def test_a_full_service_refuses_with_a_time_to_come_back() -> None:
    settings = {"streaming": {"max_sessions": 1}}
    async with serving(DullEngine(), settings) as url, socket(url):
        status, error = await refusal(url, "?intent=transcription")
    assert (status, error["type"], error["code"]) == (503, "server_error", "overloaded")


# Keys


async def test_a_key_opens_the_session_that_it_was_asked_for() -> None:
    async with sdk() as client:
        secret = await client.realtime.client_secrets.create(
            expires_after={"anchor": "created_at", "seconds": 60},
            session={
                "type": "transcription",
                "audio": {
                    "input": {
                        "format": {"type": "audio/pcmu"},
                        "transcription": {"model": "whisper-1", "language": "en"},
                        "turn_detection": None,
                    }
                },
            },
        )
        assert secret.value.startswith("ek_")
        browser = client.with_options(api_key=secret.value)
        async with browser.realtime.connect() as connection:
            audio = encoded(speech(0, 1, rate=8_000), "audio/pcmu")
            await connection.input_audio_buffer.append(audio=text_of(audio))
            await connection.input_audio_buffer.commit()
            told = await heard(connection, COMPLETED)
        promised = secret.to_dict()["session"]
    assert isinstance(promised, dict)
    begun = told[0]["session"]
    assert begun["audio"] == promised["audio"]
    assert begun["id"].startswith("sess_")
    assert transcripts(told) == ["w0 w1"]


async def test_the_client_may_choose_otherwise_than_its_key() -> None:
    key = keys().issue(session(transcription={"language": "en", "prompt": "Hello."}), 600)
    settings: dict[str, Any] = {"models": ["tiny.en"]}
    async with (
        sdk(settings=settings, key=key.value) as client,
        client.realtime.connect(model="tiny.en") as connection,
    ):
        told = await heard(connection, "session.created")
    chosen = told[0]["session"]["audio"]["input"]["transcription"]
    assert (chosen["model"], chosen["language"], chosen["prompt"]) == ("tiny.en", "en", "Hello.")


@pytest.mark.parametrize("where", ["header", "subprotocol"])
@pytest.mark.parametrize("fault", ["expired", "changed", "of another service"])
async def test_a_key_that_is_not_good_is_refused(where: str, fault: str) -> None:
    key = {
        "expired": keys(lambda: 1.0).issue(SessionConfig(), 600).value,
        "changed": keys().issue(SessionConfig(), 600).value.replace("ek_", "ek_A"),
        "of another service": EphemeralKeys("other").issue(SessionConfig(), 600).value,
    }[fault]
    shown: dict[str, Any] = {"headers": {"Authorization": f"Bearer {key}"}}
    if where == "subprotocol":
        shown = {"subprotocols": ["realtime", f"openai-insecure-api-key.{key}"]}
    async with serving(DullEngine()) as url:
        status, error = await refusal(url, "?intent=transcription", **shown)
    assert (status, error["code"]) == (401, "invalid_api_key")
    assert ("expired" in error["message"]) == (fault == "expired")


# The end


async def test_who_says_nothing_is_told_so_and_closed() -> None:
    settings = {"openai": {"idle_timeout_s": 0.2}}
    async with serving(DullEngine(), settings) as url, socket(url) as connection:
        assert (await next_event(connection))["type"] == "session.created"
        error = (await next_event(connection))["error"]
        with pytest.raises(ConnectionClosed) as closed:
            await next_event(connection)
    assert (error["type"], error["code"]) == ("invalid_request_error", "stream_idle")
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4408


async def test_an_event_that_is_too_large_ends_the_session() -> None:
    async with serving(DullEngine()) as url, socket(url) as connection:
        await next_event(connection)
        with suppress(ConnectionClosed):
            await connection.send("x" * (17 << 20))
        await asyncio.wait_for(connection.wait_closed(), PATIENCE_S)
    assert connection.close_code == 1009


async def test_a_client_may_vanish_at_any_time() -> None:
    frames = [json.dumps(event) for event in (append(SPEECH), COMMIT, CLEAR)]
    async with serving(DullEngine()) as url:
        for count in range(len(frames) + 1):
            async with socket(url) as connection:
                for frame in frames[:count]:
                    await connection.send(frame)
                connection.transport.abort()


async def test_two_clients_do_not_mix() -> None:
    async with (
        sdk() as client,
        client.realtime.connect(extra_query=TRANSCRIPTION) as one,
        client.realtime.connect(extra_query=TRANSCRIPTION) as other,
    ):
        for connection, numbers in ((one, (0, 1)), (other, (5, 6))):
            audio = joined(speech(*numbers), quiet(1.0)).tobytes()
            await connection.input_audio_buffer.append(audio=text_of(audio))
        both = await asyncio.gather(heard(one, COMPLETED), heard(other, COMPLETED))
    assert [transcripts(told) for told in both] == [["w0 w1"], ["w5 w6"]]
    items = [{e["item_id"] for e in told if e["type"] == COMMITTED} for told in both]
    assert not items[0] & items[1]
