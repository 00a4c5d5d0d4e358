"""Turns come and get their text, whatever runs ahead of what."""

from __future__ import annotations

import pytest

from tests.api.openai.realtime.lines import (
    CLEARED,
    COMMITTED,
    COMPLETED,
    DELTA,
    FAILED,
    STARTED,
    STOPPED,
    Told,
    anonymous,
    final,
    transcripts,
)
from whisper_serve.api.openai.realtime.conversation import Conversation
from whisper_serve.streaming.messages import Failed

ITEM = ["conversation.item.added", "conversation.item.done"]


def short(told: list[Told]) -> list[tuple[str, ...]]:
    """Each event as its kind, its item's number and its text; what comes with every commit is
    left out."""
    return [
        (
            event["type"].rpartition(".")[2],
            *([str(event["item_id"])] if "item_id" in event else []),
            *(event[key] for key in ("delta", "transcript") if key in event),
        )
        for event in anonymous(told)
        if event["type"] not in ITEM
    ]


def test_a_turn_from_its_first_sound_to_its_text() -> None:
    talk = Conversation()
    told = talk.speech_started(0.7)
    told += talk.speech_stopped(2.5)
    told += talk.said(final("Hello"))
    told += talk.said(final(" there."))
    told += talk.endpoint()
    assert [event["type"] for event in told] == [
        STARTED,
        STOPPED,
        COMMITTED,
        *ITEM,
        DELTA,
        DELTA,
        COMPLETED,
    ]
    assert len({event["item_id"] for event in told if "item_id" in event}) == 1
    started, stopped, *_, completed = told
    assert (started["audio_start_ms"], stopped["audio_end_ms"]) == (700, 2500)
    assert completed["transcript"] == "Hello there."
    assert completed["content_index"] == 0
    assert completed["usage"] == {"type": "duration", "seconds": pytest.approx(1.8)}
    assert talk.settled_s == 2.5


def test_text_is_told_while_somebody_still_speaks() -> None:
    talk = Conversation()
    told = [*talk.speech_started(0.0), *talk.said(final(" Hello"))]
    told += [*talk.speech_stopped(6.0), *talk.said(final(" there.")), *talk.endpoint()]
    assert short(told) == [
        ("speech_started", "0"),
        ("delta", "0", "Hello"),
        ("speech_stopped", "0"),
        ("committed", "0"),
        ("delta", "0", " there."),
        ("completed", "0", "Hello there."),
    ]


def test_turns_that_wait_get_their_text_in_their_order() -> None:
    talk = Conversation()
    told = []
    for start_s in (0.0, 2.0, 4.0):
        told += [*talk.speech_started(start_s), *talk.speech_stopped(start_s + 1.0)]
    told += talk.speech_started(6.0)
    for text in (" one", " two", " three"):
        told += [*talk.said(final(text)), *talk.endpoint()]
    told += [*talk.said(final(" four")), *talk.speech_stopped(7.0), *talk.endpoint()]
    assert transcripts(told) == ["one", "two", "three", "four"]
    chain = [event for event in anonymous(told) if event["type"] == COMMITTED]
    assert [(event["item_id"], event["previous_item_id"]) for event in chain] == [
        (0, None),
        (1, 0),
        (2, 1),
        (3, 2),
    ]


def test_a_turn_without_words_has_an_empty_text() -> None:
    talk = Conversation()
    told = [*talk.speech_started(0.0), *talk.speech_stopped(1.0), *talk.endpoint()]
    assert short(told)[-1] == ("completed", "0", "")


def test_text_that_nobody_was_heard_to_speak_is_not_lost() -> None:
    talk = Conversation()
    told = talk.said(final(" surprise"))
    told += talk.speech_started(3.0)
    told += [*talk.speech_stopped(4.0), *talk.endpoint()]
    assert short(told) == [
        ("delta", "0", "surprise"),
        ("speech_started", "0"),
        ("speech_stopped", "0"),
        ("committed", "0"),
        ("completed", "0", "surprise"),
    ]


def test_turns_do_not_share_audio() -> None:
    talk = Conversation()
    told = [*talk.speech_started(-0.2), *talk.speech_stopped(2.0)]
    told += [*talk.speech_started(1.9), *talk.speech_stopped(3.0)]
    told += [*talk.endpoint(), *talk.endpoint()]
    starts = [event["audio_start_ms"] for event in told if event["type"] == STARTED]
    assert starts == [0, 2000]
    lengths = [event["usage"]["seconds"] for event in told if event["type"] == COMPLETED]
    assert lengths == [2.0, 1.0]


# The client cuts


def test_a_commit_while_somebody_speaks_divides_the_turn() -> None:
    talk = Conversation()
    told = [*talk.speech_started(0.0), *talk.commit(2.0)]
    told += [*talk.said(final(" first")), *talk.endpoint()]
    told += [*talk.speech_stopped(4.0), *talk.said(final(" second")), *talk.endpoint()]
    assert short(told) == [
        ("speech_started", "0"),
        ("committed", "0"),
        ("delta", "0", "first"),
        ("completed", "0", "first"),
        ("speech_stopped", "1"),
        ("committed", "1"),
        ("delta", "1", "second"),
        ("completed", "1", "second"),
    ]


def test_a_commit_without_speech_makes_a_turn_without_words() -> None:
    talk = Conversation()
    assert short([*talk.commit(2.0), *talk.endpoint()]) == [
        ("committed", "0"),
        ("completed", "0", ""),
    ]


def test_right_behind_a_turn_there_is_nothing_to_commit() -> None:
    talk = Conversation()
    told = [*talk.speech_started(0.0), *talk.speech_stopped(2.0)]
    (refusal,) = talk.commit(2.05, "event_7")
    assert refusal["error"]["code"] == "input_audio_buffer_commit_empty"
    assert refusal["error"]["event_id"] == "event_7"
    # The stream ends no turn there.
    told += [*talk.speech_started(3.0), *talk.speech_stopped(4.0)]
    told += [*talk.said(final(" hello")), *talk.endpoint()]
    assert talk.endpoint() == []
    told += [*talk.said(final(" again")), *talk.endpoint()]
    assert transcripts(told) == ["hello", "again"]


def test_what_is_cleared_is_not_told_and_what_was_committed_is() -> None:
    talk = Conversation()
    told = [*talk.speech_started(0.0), *talk.speech_stopped(2.0)]
    told += [*talk.speech_started(3.0), *talk.clear(4.0)]
    told += [*talk.said(final(" kept")), *talk.endpoint()]
    told += [*talk.said(final(" dropped")), *talk.endpoint()]
    told += [*talk.speech_stopped(5.0), *talk.said(final(" rest")), *talk.endpoint()]
    assert short(told) == [
        ("speech_started", "0"),
        ("speech_stopped", "0"),
        ("committed", "0"),
        ("speech_started", "1"),
        ("cleared",),
        ("delta", "0", "kept"),
        ("completed", "0", "kept"),
        ("speech_stopped", "2"),
        ("committed", "2"),
        ("delta", "2", "rest"),
        ("completed", "2", "rest"),
    ]
    chain = [event["previous_item_id"] for event in anonymous(told) if event["type"] == COMMITTED]
    assert chain == [None, 0]
    assert [event["type"] for event in told].count(CLEARED) == 1


# How it is told


def test_log_probabilities_come_with_the_text_that_they_are_of() -> None:
    talk = Conversation(with_logprobs=True)
    told = [*talk.speech_started(0.0), *talk.said(final(" a b")), *talk.said(final(" c"))]
    told += [*talk.speech_stopped(2.0), *talk.endpoint()]
    for event in told:
        if event["type"] in {DELTA, COMPLETED}:
            text = "".join(entry["token"] for entry in event["logprobs"])
            assert text == event.get("delta", event.get("transcript"))


def test_the_beta_hears_of_items_in_its_own_words() -> None:
    talk = Conversation(is_beta=True)
    kinds = [event["type"] for event in talk.commit(1.0)]
    assert kinds == [COMMITTED, "conversation.item.created"]


def test_when_the_stream_fails_every_turn_that_is_not_complete_does() -> None:
    talk = Conversation()
    told = [*talk.speech_started(0.0), *talk.speech_stopped(1.0)]
    told += [*talk.said(final(" done")), *talk.endpoint()]
    told += [*talk.speech_started(2.0), *talk.speech_stopped(3.0)]
    told += [*talk.speech_started(3.2), *talk.clear(3.5)]
    told += talk.speech_started(4.0)
    failed = talk.failed(Failed("client_too_fast", "sorry", fatal=True))
    numbers = [event["item_id"] for event in anonymous([*told, *failed])[-2:]]
    assert [event["type"] for event in failed] == [FAILED, FAILED]
    assert numbers == [1, 3]
    assert failed[0]["error"]["code"] == "client_too_fast"
    assert talk.failed(Failed("internal_error", "sorry", fatal=True)) == []
