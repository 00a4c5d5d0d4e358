from __future__ import annotations

import json
from typing import Any

import pytest

from benchmarks.delays import Answers, Sent, final_word_delays, shown_word_delays

PIECE = 1_600  # 100 ms
BEGAN = 1_000.0


def sent(pieces: int, *, late_s: float = 0.0) -> Sent:
    """Each piece when its last sample was spoken, or later."""
    at = [BEGAN + 0.1 * number + late_s for number in range(1, pieces + 1)]
    return Sent(BEGAN, PIECE, at)


def final(position: float, *words: tuple[str, float]) -> dict[str, Any]:
    return {
        "type": "final",
        "text": " ".join(text for text, _ in words),
        "words": [{"word": text, "start": end - 0.2, "end": end} for text, end in words],
        "resume": {"position": position},
    }


def partial(text: str) -> dict[str, Any]:
    return {"type": "partial", "text": text}


def answers(*messages: tuple[float, dict[str, Any]]) -> Answers:
    return Answers.parse([(BEGAN + at, json.dumps(message)) for at, message in messages])


@pytest.mark.parametrize(
    ("time_s", "piece"), [(0.0, 1), (0.05, 1), (0.1, 1), (0.101, 2), (4.992, 50), (60.0, 50)]
)
def test_a_moment_is_sent_with_the_piece_that_holds_the_last_sample_before_it(
    time_s: float, piece: int
) -> None:
    assert sent(50).when(time_s) == pytest.approx(BEGAN + 0.1 * piece)


def test_a_final_counts_from_when_the_end_of_its_window_was_sent() -> None:
    heard = answers((5.4, final(4.992, ("one", 4.0))))
    assert heard.final_delays(sent(60)) == pytest.approx([0.4])


def test_a_generator_that_is_late_does_not_make_the_service_late() -> None:
    heard = answers((5.9, final(4.992, ("one", 4.0))))
    late = sent(60, late_s=0.5)
    assert heard.final_delays(late) == pytest.approx([0.4])
    assert max(late.lags()) == pytest.approx(0.5)


def test_a_word_is_shown_with_the_first_partial_that_has_it_in_its_place() -> None:
    heard = answers(
        (1.5, partial("But two")),
        (2.5, partial("one two")),
        (3.5, partial("One, two three")),
        (5.5, final(5.0, ("One,", 1.0), ("two", 2.0))),
        (6.0, partial("three")),
        (9.0, final(8.0, ("three", 3.0))),
    )
    words = heard.words()
    assert shown_word_delays(words, BEGAN) == pytest.approx([1.5, 0.0, 0.5])
    assert final_word_delays(words, BEGAN) == pytest.approx([4.5, 3.5, 6.0])


def test_a_word_that_was_never_shown_before_is_shown_when_it_is_final() -> None:
    heard = answers((4.0, partial("wun")), (5.5, final(5.0, ("one", 1.0))))
    (word,) = heard.words()
    assert word.shown_at is None
    assert shown_word_delays([word], BEGAN) == pytest.approx([4.5])


def test_a_partial_behind_final_text_counts_its_words_from_there() -> None:
    heard = answers(
        (2.0, final(2.0, ("the", 1.0))), (3.0, partial("the")), (4.0, final(4.0, ("the", 2.8)))
    )
    assert shown_word_delays(heard.words(), BEGAN) == pytest.approx([1.0, 0.2])


def test_the_text_is_that_of_the_finals_and_other_messages_are_left_out() -> None:
    heard = answers(
        (0.1, {"type": "ack", "received_until": 0.1}),
        (1.0, {**final(1.0, ("one", 0.5)), "text": "One"}),
        (2.0, {"type": "warning", "code": "falling_behind", "message": ""}),
        (3.0, {**final(3.0, ("two", 2.0)), "text": " two"}),
    )
    assert heard.text == "One two"
    assert [message["type"] for _, message in heard.messages] == ["final", "warning", "final"]
