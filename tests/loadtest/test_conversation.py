from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.corpus import Passage, Recording
from loadtest.conversation import NO_END, NOT_ADMITTED, Conversation
from loadtest.dialects import deepgram, native
from loadtest.outcome import CUT, Outcome, outcome_of
from loadtest.speech import Speech
from tests.api.streams import said, words

DUE = 1_000.0
WALL_S = 5_000.0
SPOKEN = Recording(Path("a.wav"), said(2), 1.0, (Passage(0.0, 1.0, said(2)),))
SPEECH = Speech(SPOKEN, words(2))  # w0 ends at 0.5 s, w1 at 1.0 s


def conversation(**options: Any) -> Conversation:
    return Conversation(SPEECH, native({"language": "en"}), DUE, **options)


def speaks(talk: Conversation, began: float, *, late_s: float = 0.0, pieces: int = 99) -> bytes:
    """Says what is due, each piece when it is due or later; returns what was sent."""
    talk.tries(began - 0.2)
    talk.began(began)
    sent: list[bytes] = []
    while (at := talk.next_at) is not None and len(sent) < pieces:
        sent.append(talk.next_piece)
        talk.sent(at + late_s)
    return b"".join(sent)


def final(position: float, *said_words: tuple[str, float]) -> str:
    text = " ".join(word for word, _ in said_words)
    timed = [{"word": word, "end": end} for word, end in said_words]
    return json.dumps(
        {"type": "final", "text": text, "words": timed, "resume": {"position": position}}
    )


def heard(talk: Conversation, began: float) -> Outcome:
    """The answers of a service to it, and its end."""
    talk.received(began + 0.8, '{"type": "partial", "text": "w0"}')
    talk.received(began + 1.3, final(1.0, ("w0", 0.5), ("w1", 1.0)))
    talk.received(began + 1.5, '{"type": "done", "text": "w0 w1"}')
    talk.ended(began + 1.6)
    return talk.outcome(WALL_S)


def test_pieces_are_due_when_they_have_been_spoken() -> None:
    talk = conversation()
    talk.tries(DUE)
    talk.began(DUE + 1.0)
    due = []
    while (at := talk.next_at) is not None:
        due.append(at)
        talk.sent(at + 0.05)  # what is late once is not late for ever
    assert due == pytest.approx([DUE + 1.0 + 0.1 * number for number in range(1, 11)])


def test_all_is_said_and_nothing_else() -> None:
    talk = conversation()
    assert talk.next_at is None
    assert speaks(talk, DUE) == words(2).tobytes()


def test_a_stream_that_went_well_tells_all_of_its_delays() -> None:
    talk = conversation()
    speaks(talk, DUE + 2.0)
    outcome = heard(talk, DUE + 2.0)
    assert outcome.is_served
    assert (outcome.kind, outcome.text, outcome.audio_s) == ("LiveStream", "w0 w1", 1.0)
    assert outcome.due_at == DUE + WALL_S
    assert (outcome.waited_s, outcome.connect_s) == pytest.approx((2.0, 0.2))
    assert (outcome.first_word_s, outcome.tail_s) == pytest.approx((0.8, 0.6))
    assert (outcome.took_s, outcome.ended_s) == pytest.approx((1.6, 3.6))
    assert [timed.s for timed in outcome.shown] == pytest.approx([0.3, 0.3])
    assert [timed.s for timed in outcome.word_finals] == pytest.approx([0.8, 0.3])
    assert [timed.since for timed in outcome.finals] == pytest.approx([3.3])
    assert [timed.s for timed in outcome.finals] == pytest.approx([0.3])
    assert outcome.span == pytest.approx((DUE + WALL_S + 2.0, DUE + WALL_S + 3.6))


def test_a_client_that_is_late_says_so_and_does_not_blame_the_service() -> None:
    talk = conversation()
    speaks(talk, DUE, late_s=0.25)
    outcome = heard(talk, DUE)
    assert outcome.late_s == pytest.approx([0.25] * 10)
    assert [timed.s for timed in outcome.finals] == pytest.approx([0.05])
    assert [timed.s for timed in outcome.word_finals] == pytest.approx([0.8, 0.3])


def test_whoever_is_refused_comes_back_as_he_is_told() -> None:
    talk = conversation(patience_s=20.0)
    assert talk.refused(DUE + 0.1, 503, 5.0) == 5.0
    assert talk.refused(DUE + 5.2, 429, None) == 1.0
    assert not talk.is_over
    speaks(talk, DUE + 6.4)
    outcome = heard(talk, DUE + 6.4)
    assert outcome.is_served
    first, second = outcome.refusals
    assert (first.status, first.retry_after_s) == (503, 5.0)
    assert (second.status, second.retry_after_s) == (429, None)
    assert (first.since, second.since) == pytest.approx((0.1, 5.2))
    assert outcome.waited_s == pytest.approx(6.4)


def test_patience_ends() -> None:
    talk = conversation(patience_s=12.0)
    assert talk.refused(DUE + 3.0, 503, 5.0) == 5.0
    assert talk.refused(DUE + 8.0, 503, 5.0) is None
    outcome = talk.outcome(WALL_S)
    assert outcome.fault == f"{NOT_ADMITTED}: 503"
    assert len(outcome.refusals) == 2
    assert outcome.waited_s is None


def test_nobody_comes_back_who_has_no_key() -> None:
    talk = conversation(patience_s=60.0)
    assert talk.refused(DUE, 401, None) is None
    assert talk.outcome(WALL_S).fault == "refused with 401"


def test_an_end_without_done_is_a_failure_with_all_that_was_heard() -> None:
    talk = conversation()
    speaks(talk, DUE)
    talk.received(DUE + 1.3, final(1.0, ("w0", 0.5)))
    talk.received(DUE + 1.4, '{"type": "error", "code": "engine_failed", "fatal": true}')
    talk.ended(DUE + 1.5)
    outcome = talk.outcome(WALL_S)
    assert outcome.fault == NO_END
    assert outcome.told == ("error engine_failed",)
    assert outcome.text == "w0"


def test_who_stops_early_has_said_only_what_was_sent() -> None:
    talk = conversation()
    speaks(talk, DUE, pieces=4)
    talk.stops()
    assert talk.next_at is None
    talk.ended(DUE + 0.6)
    assert talk.outcome(WALL_S).audio_s == pytest.approx(0.4)


def test_one_that_was_cut_off_is_neither_served_nor_a_fault_of_the_service() -> None:
    talk = conversation()
    speaks(talk, DUE, pieces=4)
    talk.cut(DUE + 0.5)
    assert talk.outcome(WALL_S).fault == CUT


def test_an_outcome_survives_the_way_to_a_master() -> None:
    talk = conversation(patience_s=9.0)
    talk.refused(DUE, 503, 5.0)
    speaks(talk, DUE + 5.0)
    outcome = heard(talk, DUE + 5.0)
    assert outcome_of(json.loads(json.dumps(outcome.as_json()))) == outcome


def results(text: str, *, is_final: bool, start: float, duration: float) -> str:
    timed = [{"word": text, "start": start, "end": start + duration}] if text else []
    return json.dumps(
        {
            "type": "Results",
            "start": start,
            "duration": duration,
            "is_final": is_final,
            "channel": {"alternatives": [{"transcript": text, "words": timed}]},
        }
    )


def test_deepgrams_results_are_read_as_texts_of_our_own() -> None:
    talk = Conversation(SPEECH, deepgram("interim_results=true"), DUE)
    speaks(talk, DUE)
    talk.received(DUE + 0.7, results("w0", is_final=False, start=0.0, duration=0.5))
    talk.received(DUE + 0.9, results("w0", is_final=True, start=0.0, duration=0.5))
    talk.received(DUE + 1.0, results("", is_final=True, start=0.5, duration=0.1))
    talk.received(DUE + 1.2, results("w1", is_final=True, start=0.5, duration=0.5))
    talk.received(DUE + 1.3, '{"type": "Metadata"}')
    talk.ended(DUE + 1.4)
    outcome = talk.outcome(WALL_S)
    assert outcome.is_served
    assert outcome.text.split() == ["w0", "w1"]
    assert [timed.s for timed in outcome.finals] == pytest.approx([0.4, 0.2])
    assert outcome.first_word_s == pytest.approx(0.7)
    assert (outcome.shown[0].since, outcome.shown[0].s) == pytest.approx((0.7, 0.2))
