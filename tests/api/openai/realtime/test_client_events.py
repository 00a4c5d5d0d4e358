"""The events of a client, and what is told of those that are none."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.api.openai.realtime.lines import session
from tests.api.openai.realtime.voices import append
from whisper_serve.api.openai.realtime.client_events import (
    LARGE_CHARS,
    Append,
    Clear,
    Commit,
    Update,
    client_event,
    event_id_of,
    read_event,
    require_text,
)
from whisper_serve.api.openai.realtime.configuration import SessionConfig
from whisper_serve.errors import InvalidMessage, InvalidParameter


async def refusal(message: dict[str, Any]) -> InvalidParameter:
    with pytest.raises(InvalidParameter) as refused:
        await client_event(message)
    return refused.value


@pytest.mark.parametrize("size", [0, 1, 1_000, LARGE_CHARS])
async def test_audio_comes_in_text(size: int) -> None:
    audio = bytes(range(256)) * (size // 256) + bytes(size % 256)
    message = await read_event(json.dumps({**append(audio), "event_id": "e1"}))
    assert await client_event(message) == Append(audio)
    assert event_id_of(message) == "e1"


async def test_the_others_say_what_is_to_be_done() -> None:
    assert await client_event({"type": "input_audio_buffer.commit"}) == Commit()
    assert await client_event({"type": "input_audio_buffer.clear", "event_id": "x"}) == Clear()
    values = {"audio": {"input": {"turn_detection": None}}}
    today = await client_event({"type": "session.update", "session": values})
    assert today == Update(values)
    beta = await client_event({"type": "transcription_session.update", "session": values})
    assert beta == Update(values, is_beta=True)


@pytest.mark.parametrize(
    "kind",
    [
        "response.create",
        "response.cancel",
        "conversation.item.create",
        "conversation.item.retrieve",
        "output_audio_buffer.clear",
        "nonsense",
        None,
        7,
        [],
    ],
)
async def test_an_event_of_another_session_is_named(kind: object) -> None:
    error = await refusal({"type": kind})
    assert error.parameter == "type"
    assert str(kind) in error.reason
    assert "input_audio_buffer.append" in error.reason


@pytest.mark.parametrize(
    ("message", "named"),
    [
        ({"type": "input_audio_buffer.append"}, "audio"),
        ({"type": "input_audio_buffer.append", "audio": None}, "audio"),
        ({"type": "input_audio_buffer.append", "audio": [1, 2]}, "audio"),
        ({"type": "input_audio_buffer.append", "audio": "AAA"}, "audio"),
        ({"type": "input_audio_buffer.append", "audio": "AA*AA"}, "audio"),
        ({"type": "input_audio_buffer.append", "audio": "AAAÄ"}, "audio"),
        ({"type": "input_audio_buffer.append", "audio": "A" * (LARGE_CHARS + 1)}, "audio"),
        ({**append(b""), "final": True}, "final"),
        ({"type": "input_audio_buffer.commit", "final": True}, "final"),
        ({"type": "session.update"}, "session"),
        ({"type": "session.update", "session": None}, "session"),
        ({"type": "session.update", "session": {}, "model": "tiny"}, "model"),
    ],
)
async def test_what_is_wrong_with_an_event_is_named(message: dict[str, Any], named: str) -> None:
    assert (await refusal(message)).parameter == named


@pytest.mark.parametrize("frame", ["", "{", "[]", '"hello"', "nul", "[" * 100_000])
async def test_a_frame_must_be_an_object(frame: str) -> None:
    with pytest.raises(InvalidMessage):
        await read_event(frame)
    with pytest.raises(InvalidMessage):
        await read_event(frame + " " * LARGE_CHARS)


def test_audio_is_not_sent_as_it_is() -> None:
    assert require_text("{}") == "{}"
    with pytest.raises(InvalidMessage, match=r"input_audio_buffer\.append"):
        require_text(b"\0\0")


@pytest.mark.parametrize("event_id", [7, {}, "a" * 513])
def test_an_event_s_id_is_a_short_text(event_id: object) -> None:
    assert event_id_of({}) is None
    with pytest.raises(InvalidParameter, match="event_id"):
        event_id_of({"event_id": event_id})


# Updates


def test_the_beta_s_form_is_known_in_the_beta_s_event_only() -> None:
    flat = {"input_audio_format": "g711_ulaw"}
    expected = session(format={"type": "audio/pcmu"})
    assert Update(flat, is_beta=True).applied(SessionConfig()) == expected
    with pytest.raises(InvalidParameter, match=r"session\.input_audio_format"):
        Update(flat).applied(SessionConfig())


def test_today_s_form_is_known_in_both() -> None:
    values = {"audio": {"input": {"format": {"type": "audio/pcmu"}}}}
    expected = session(format={"type": "audio/pcmu"})
    assert Update(values).applied(SessionConfig()) == expected
    assert Update(values, is_beta=True).applied(SessionConfig()) == expected


def test_a_place_is_called_as_the_client_calls_it() -> None:
    before = SessionConfig()
    nested = Update({"audio": {"input": {"turn_detection": None}}})
    flat = Update({"turn_detection": None}, is_beta=True)
    for update, name in (
        (nested, "session.audio.input.turn_detection"),
        (flat, "session.turn_detection"),
    ):
        with pytest.raises(InvalidParameter) as refused:
            update.require_same_audio(update.applied(before), before)
        assert refused.value.parameter == name
    assert flat.name_of("audio.input.transcription.model") == (
        "session.input_audio_transcription.model"
    )
    with pytest.raises(InvalidParameter) as refused:
        Update({"type": "realtime"}).applied(before)
    assert refused.value.parameter == "session.type"
