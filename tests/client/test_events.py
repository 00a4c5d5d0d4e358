from __future__ import annotations

import pytest

from whisper_serve.client.answers import Word
from whisper_serve.client.events import (
    Done,
    Endpoint,
    Failed,
    Final,
    Partial,
    Progress,
    Ready,
    SpeechStarted,
    SpeechStopped,
    UtteranceEnd,
    Warned,
    event_of,
)
from whisper_serve.errors import UnexpectedAnswer
from whisper_serve.streaming import messages
from whisper_serve.text import transcript

POINT = messages.ResumePoint(committed_until=1.5, context="so", audio_from=1.0)
WORD = transcript.Word(" hello", 0.5, 1.25, 0.75)


@pytest.mark.parametrize(
    ("message", "event"),
    [
        (messages.Partial(0.5, 1.25, " hello"), Partial(0.5, 1.25, " hello")),
        (
            messages.Final("hello", (WORD,), "en", 0.9, 0.1, POINT),
            Final(
                0.5,
                1.25,
                "hello",
                (Word(word="hello", start=0.5, end=1.25, probability=0.75),),
                "en",
                0.9,
                0.1,
            ),
        ),
        (
            messages.Final("hello", (WORD,), None, 0.9, 0.1, POINT, with_words=False),
            Final(0.5, 1.25, "hello", (), None, 0.9, 0.1),
        ),
        (messages.SpeechStarted(0.5), SpeechStarted(0.5)),
        (messages.SpeechStopped(1.5), SpeechStopped(1.5)),
        (messages.Endpoint(1.75, "silence"), Endpoint(1.75, "silence")),
        (messages.UtteranceEnd(1.5), UtteranceEnd(1.5)),
        (messages.Ack(2.0, POINT), Progress(2.0, 1.5, 0.5)),
        (messages.Warned("clock_skew", "late"), Warned("clock_skew", "late")),
        (messages.Failed("engine_failed", "no", False), Failed("engine_failed", "no")),
        (messages.Done("hello", 2.0, 1, {"windows": 1}), Done("hello", 2.0, 1, {"windows": 1})),
        (messages.WasReset(1.0), None),
    ],
)
def test_what_the_service_sends_is_understood(
    message: messages.ServerMessage, event: object
) -> None:
    assert event_of(messages.wire(message, 7)) == event


def test_the_configuration_in_force_is_told() -> None:
    ready = messages.Ready("id", messages.StreamConfig(language="de"), {"max_backlog_s": 60.0})
    event = event_of(messages.wire(ready, 0))
    assert isinstance(event, Ready)
    assert (event.session_id, event.limits) == ("id", {"max_backlog_s": 60.0})
    assert event.config["language"] == "de"
    assert event.config["chunk_duration"] == 5.0


@pytest.mark.parametrize("message", [{}, {"type": "applause"}, {"type": None}])
def test_other_kinds_are_none_of_ours(message: dict[str, object]) -> None:
    assert event_of(message) is None


@pytest.mark.parametrize(
    ("message", "wrong"),
    [
        ({"type": "partial", "start": 0.0, "end": 1.0}, "text"),
        ({"type": "warning", "code": "c", "message": 5}, "message"),
        ({"type": "speech_started", "at": "now"}, "at"),
    ],
)
def test_what_is_wrong_in_a_message_is_named(message: dict[str, object], wrong: str) -> None:
    with pytest.raises(UnexpectedAnswer, match=f"{message['type']}.*{wrong}"):
        event_of(message)
