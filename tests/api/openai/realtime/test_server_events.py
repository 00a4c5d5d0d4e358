"""The events of the service are those that the official client knows."""

from __future__ import annotations

import math
from typing import Any

import pytest
from openai.types.realtime import RealtimeServerEvent
from pydantic import TypeAdapter

from whisper_serve.api.openai.realtime.configuration import SessionConfig
from whisper_serve.api.openai.realtime.server_events import (
    Event,
    cleared,
    committed,
    completed,
    delta,
    failure,
    logprobs_of,
    refusal,
    session_event,
    speech_started,
    speech_stopped,
    transcription_failed,
)
from whisper_serve.errors import (
    ClientTooFast,
    EmptyAudio,
    EngineFailed,
    InvalidMessage,
    InvalidParameter,
    ModelNotFound,
    Overloaded,
    StreamIdle,
    WhisperServeError,
)
from whisper_serve.streaming.messages import Failed
from whisper_serve.text.transcript import Word

WORDS = (Word(" Grüße,", 0.0, 0.5, 0.5), Word(" Welt", 0.5, 1.0, 1.0))
LOGPROBS = logprobs_of(WORDS, "Grüße, Welt")
EVENTS: list[Event] = [
    session_event("created", SessionConfig().shown("base"), is_beta=False),
    session_event("updated", SessionConfig().shown("base"), is_beta=False),
    speech_started("item_1", 1.2345),
    speech_stopped("item_1", 2.0),
    cleared(),
    *committed("item_2", "item_1", is_beta=False),
    *committed("item_1", None, is_beta=True),
    delta("item_1", " Welt", None),
    delta("item_1", "Grüße, Welt", LOGPROBS),
    completed("item_1", "Grüße, Welt", 1.5, LOGPROBS),
    transcription_failed("item_1", Failed("engine_failed", "sorry", fatal=True)),
    refusal(InvalidParameter("audio", "must be base64"), "audio", "event_7"),
    failure(Failed("overloaded", "sorry", fatal=False)),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: str(event["type"]))
def test_the_client_knows_every_event_and_every_field(event: Event) -> None:
    sent = {"event_id": "event_1", **event}
    known: Any = TypeAdapter(RealtimeServerEvent).validate_python(sent)
    assert known.type == event["type"]
    assert known.model_extra in ({}, None)


def test_times_are_whole_milliseconds() -> None:
    assert speech_started("item_1", 1.2345)["audio_start_ms"] == 1234
    assert speech_stopped("item_1", 2.0)["audio_end_ms"] == 2000


def test_a_turn_has_its_place_behind_another() -> None:
    for event in committed("item_2", "item_1", is_beta=False):
        assert event["previous_item_id"] == "item_1"
    kinds = [event["type"] for event in committed("item_2", None, is_beta=False)]
    assert kinds[1:] == ["conversation.item.added", "conversation.item.done"]
    kinds = [event["type"] for event in committed("item_2", None, is_beta=True)]
    assert kinds[1:] == ["conversation.item.created"]


def test_there_is_a_log_probability_for_each_word_as_it_is_written() -> None:
    assert [entry["token"] for entry in LOGPROBS] == ["Grüße,", " Welt"]
    assert LOGPROBS[0]["logprob"] == pytest.approx(math.log(0.5), abs=1e-5)
    assert bytes(byte for entry in LOGPROBS for byte in entry["bytes"]).decode() == "Grüße, Welt"
    behind = logprobs_of(WORDS, " Grüße, Welt")
    assert "".join(entry["token"] for entry in behind) == " Grüße, Welt"


def test_log_probabilities_are_there_when_they_are_asked_for() -> None:
    assert "logprobs" not in delta("item_1", "a", None)
    assert "logprobs" not in completed("item_1", "a", 1.0, None)
    assert completed("item_1", "", 1.0, [])["logprobs"] == []


def error_of(event: Event) -> dict[str, Any]:
    error: dict[str, Any] = event["error"]
    return error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidParameter("audio", "must be base64"), "invalid_parameter"),
        (InvalidMessage("a text frame must be JSON"), "invalid_message"),
        (ModelNotFound("gpt-9", ("base",)), "model_not_found"),
        (EmptyAudio("too little"), "input_audio_buffer_commit_empty"),
    ],
)
def test_a_refusal_tells_what_and_where(error: WhisperServeError, code: str) -> None:
    told = error_of(refusal(error, "audio", "event_7"))
    assert told == {
        "type": "invalid_request_error",
        "code": code,
        "message": str(error),
        "param": "audio",
        "event_id": "event_7",
    }


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (ClientTooFast(60.0), "invalid_request_error"),
        (StreamIdle(60.0), "invalid_request_error"),
        (Overloaded(5.0), "server_error"),
        (EngineFailed("a secret"), "server_error"),
        (WhisperServeError("sorry"), "server_error"),
    ],
)
def test_a_failure_tells_whose_fault_it_is(error: WhisperServeError, fault: str) -> None:
    told = error_of(failure(Failed(error.code, str(error), fatal=True)))
    assert (told["type"], told["code"], told["message"]) == (fault, error.code, str(error))
    assert "secret" not in told["message"]
