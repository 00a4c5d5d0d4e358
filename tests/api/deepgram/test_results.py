"""Messages of a stream in Deepgram's words, from scripted ones of ours."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whisper_serve import __version__
from whisper_serve.api.deepgram.answers import ServedModel, Writing
from whisper_serve.api.deepgram.results import LiveResults
from whisper_serve.errors import EngineFailed, InvalidMessage, StreamIdle, WhisperServeError
from whisper_serve.streaming.messages import (
    Ack,
    Cause,
    Done,
    Endpoint,
    Failed,
    Final,
    Partial,
    Ready,
    ResumePoint,
    ServerMessage,
    SpeechStarted,
    SpeechStopped,
    StreamConfig,
    UtteranceEnd,
    Warned,
    WasReset,
)
from whisper_serve.text.transcript import Word

READY = Ready("session-1", StreamConfig(), {})
MODEL = ServedModel("base")
ABOUT = {
    "request_id": "session-1",
    "model_info": {"name": "base", "version": __version__, "arch": "whisper"},
    "model_uuid": MODEL.uuid,
}


def results(*, formatted: bool = False, multilingual: bool = False, **how: Any) -> LiveResults:
    told = LiveResults(MODEL, Writing(formatted, multilingual), **how)
    assert told.tell(READY) is None
    return told


def final(start: float, end: float, until: float, endpoint: Cause | None = None) -> Final:
    words = (Word(" Two,", start, start + 0.2, 0.8), Word(" words.", start + 0.3, end, 0.6))
    resume = ResumePoint(committed_until=until)
    return Final(" Two, words.", words, "en", 0.9, 0.1, resume, endpoint=endpoint)


def partial(start: float, end: float) -> Partial:
    return Partial(start, end, " Perhaps.", (Word(" Perhaps.", start, end, 0.5),))


def told(*messages: ServerMessage, **how: Any) -> list[dict[str, Any]]:
    stream = results(**how)
    return [fields for message in messages if (fields := stream.tell(message)) is not None]


def kinds(*messages: ServerMessage) -> list[tuple[str, str]]:
    """Each result's text, and whether it is interim, final, the end of speech or of a flush."""
    return [(_text(fields), _kind(fields)) for fields in told(*messages)]


def _text(fields: dict[str, Any]) -> str:
    text: str = fields["channel"]["alternatives"][0]["transcript"]
    return text


def _kind(fields: dict[str, Any]) -> str:
    if not fields["is_final"]:
        return "interim"
    if fields["from_finalize"]:
        return "flush"
    return "end" if fields["speech_final"] else "final"


# The shapes


def test_final_text_is_told_with_its_words_and_where_it_lies() -> None:
    [fields] = told(final(1.0, 1.5, 1.6004, "silence"), formatted=True)
    assert fields == {
        "type": "Results",
        "channel_index": [0, 1],
        "duration": 1.6,
        "start": 0.0,
        "is_final": True,
        "speech_final": True,
        "from_finalize": False,
        "channel": {
            "alternatives": [
                {
                    "transcript": "Two, words.",
                    "confidence": 0.7,
                    "words": [
                        {
                            "word": "two",
                            "start": 1.0,
                            "end": 1.2,
                            "confidence": 0.8,
                            "punctuated_word": "Two,",
                        },
                        {
                            "word": "words",
                            "start": 1.3,
                            "end": 1.5,
                            "confidence": 0.6,
                            "punctuated_word": "words.",
                        },
                    ],
                }
            ]
        },
        "metadata": ABOUT,
    }


def test_interim_text_has_the_same_shape() -> None:
    _, fields = told(final(1.0, 1.5, 1.6), partial(2.0, 2.5))
    assert (fields["start"], fields["duration"]) == (1.6, 0.9)
    assert (fields["is_final"], fields["speech_final"], fields["from_finalize"]) == (False,) * 3
    assert fields["channel"]["alternatives"] == [
        {
            "transcript": "perhaps",
            "confidence": 0.5,
            "words": [{"word": "perhaps", "start": 2.0, "end": 2.5, "confidence": 0.5}],
        }
    ]


def test_multilingual_final_text_tells_its_language() -> None:
    shown, settled = told(partial(0.0, 1.0), final(0.0, 1.0, 1.0), multilingual=True)
    assert "languages" not in shown["channel"]["alternatives"][0]
    assert settled["channel"]["alternatives"][0]["languages"] == ["en"]


def test_labels_are_in_every_result_and_in_the_end() -> None:
    stream = results(labels={"extra": {"a": "b"}})
    shown = stream.tell(partial(0.0, 1.0))
    assert shown is not None
    assert shown["metadata"] == {**ABOUT, "extra": {"a": "b"}}
    assert stream.metadata(Done("", 1.0, 0, {}), sha256="", created="")["extra"] == {"a": "b"}


def test_the_end_tells_of_the_whole_stream() -> None:
    done = Done("Two, words.", 12.34567, 2, {})
    assert results().metadata(done, sha256="ab", created="2026-01-31T12:00:00.000Z") == {
        "type": "Metadata",
        "transaction_key": "deprecated",
        "request_id": "session-1",
        "sha256": "ab",
        "created": "2026-01-31T12:00:00.000Z",
        "duration": 12.346,
        "channels": 1,
        "models": [MODEL.uuid],
        "model_info": {MODEL.uuid: ABOUT["model_info"]},
    }


def test_speech_is_told_to_who_asked_for_it() -> None:
    started = SpeechStarted(1.2345)
    expected = {"type": "SpeechStarted", "channel": [0], "timestamp": 1.234}
    assert told(started, tells_speech=True) == [expected]
    assert told(started) == []


def test_the_end_of_an_utterance_names_its_last_word() -> None:
    expected = {"type": "UtteranceEnd", "channel": [0, 1], "last_word_end": 2.3}
    assert told(UtteranceEnd(2.3)) == [expected]


@pytest.mark.parametrize(
    ("error", "variant", "description"),
    [
        (
            InvalidMessage("it is not JSON"),
            "SchemaError",
            "Could not deserialize last text message: it is not JSON",
        ),
        (EngineFailed("a secret"), "engine_failed", str(EngineFailed(""))),
        (StreamIdle(10.0), "stream_idle", "nothing came for 10 seconds"),
    ],
    ids=lambda value: value.code if isinstance(value, WhisperServeError) else None,
)
def test_an_error_is_described(error: WhisperServeError, variant: str, description: str) -> None:
    expected = {"type": "Error", "variant": variant, "description": description}
    assert told(Failed(error.code, str(error), fatal=False)) == [expected]


def test_what_that_api_has_no_word_for_is_not_told() -> None:
    ack = Ack(1.0, ResumePoint(committed_until=0.5))
    warned = Warned("falling_behind", "20 s of audio wait for engines")
    assert told(ack, warned, SpeechStopped(1.0), WasReset(1.0)) == []


# What follows what


def test_a_pause_behind_text_is_told_with_the_text() -> None:
    messages = (final(0.0, 1.0, 1.0), final(1.0, 2.0, 2.3, "silence"), Endpoint(2.3, "silence"))
    assert kinds(*messages) == [("two words", "final"), ("two words", "end")]


def test_a_pause_that_comes_later_is_told_by_itself() -> None:
    settled, ended = told(final(0.0, 1.0, 1.0), Endpoint(1.8, "silence"))
    assert not settled["speech_final"]
    assert (_text(ended), ended["is_final"], ended["speech_final"]) == ("", True, True)
    assert (ended["start"], ended["duration"]) == (1.0, 0.8)


def test_a_pause_behind_nothing_is_not_told() -> None:
    silence = Endpoint(1.0, "silence")
    assert kinds(silence, silence) == []
    spoken = final(2.0, 3.0, 3.3, "silence")
    assert kinds(spoken, Endpoint(3.3, "silence"), Endpoint(5.0, "silence")) == [
        ("two words", "end")
    ]


def test_a_pause_takes_interim_text_back_that_came_to_nothing() -> None:
    messages = (partial(0.0, 1.0), Endpoint(1.5, "silence"), Partial(1.5, 1.5, ""))
    assert kinds(*messages) == [("perhaps", "interim"), ("", "end")]


def test_interim_text_is_taken_back_once() -> None:
    nothing = Partial(1.0, 1.0, "")
    messages = (nothing, partial(0.0, 1.0), nothing, nothing)
    assert kinds(*messages) == [("perhaps", "interim"), ("", "interim")]


def test_final_text_takes_the_place_of_what_was_shown() -> None:
    nothing = Partial(1.0, 1.0, "")
    assert kinds(partial(0.0, 1.0), final(0.0, 1.0, 1.0), nothing) == [
        ("perhaps", "interim"),
        ("two words", "final"),
    ]


def test_a_flush_is_told_with_its_text() -> None:
    messages = (final(0.0, 1.0, 1.0, "flush"), Partial(1.0, 1.0, ""), Endpoint(1.0, "flush"))
    assert kinds(*messages) == [("two words", "flush")]


def test_a_flush_of_nothing_is_told_too() -> None:
    [fields] = told(Endpoint(2.5, "flush"))
    assert (fields["is_final"], fields["speech_final"]) == (True, False)
    assert (fields["start"], fields["duration"]) == (0.0, 2.5)


def test_each_flush_is_told_once() -> None:
    flush = Endpoint(1.0, "flush")
    assert kinds(final(0.0, 1.0, 1.0, "flush"), flush, flush, flush) == [
        ("two words", "flush"),
        ("", "flush"),
        ("", "flush"),
    ]


def test_a_flush_does_not_end_speech() -> None:
    messages = (final(0.0, 1.0, 1.0, "flush"), Endpoint(1.0, "flush"), Endpoint(1.5, "silence"))
    assert kinds(*messages) == [("two words", "flush"), ("", "end")]


STEPS = st.lists(
    st.tuples(st.sampled_from(["final", "silence", "flush", "partial"]), st.floats(0.0, 3.0)),
    max_size=20,
)


@given(steps=STEPS)
def test_final_results_lie_side_by_side_and_interim_ones_behind_them(
    steps: list[tuple[str, float]],
) -> None:
    stream, at, until = results(), 0.0, 0.0
    for kind, length in steps:
        message: ServerMessage
        at += length
        match kind:
            case "final":
                message = final(at - length, at, at)
            case "partial":
                message = partial(at - length, at)
            case _:
                message = Endpoint(at, "silence" if kind == "silence" else "flush")
        fields = stream.tell(message)
        if fields is None:
            continue
        assert fields["start"] == until
        assert fields["duration"] >= 0
        if fields["is_final"]:
            until = round(fields["start"] + fields["duration"], 3)
