from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from whisper_serve.text.agreement import agreed
from whisper_serve.text.transcript import Word


def words(*texts: str) -> list[Word]:
    return [Word(f" {text}", number, number + 0.5, 0.9) for number, text in enumerate(texts)]


def test_what_both_begin_with_is_agreed_on() -> None:
    assert agreed(words("And", "so,", "my", "fellow"), words("and", "so", "my", "friends")) == 3


def test_without_a_hypothesis_before_nothing_is_agreed_on() -> None:
    assert agreed([], words("And", "so")) == 0
    assert agreed(words("And", "so"), []) == 0


def test_words_behind_a_difference_are_not_agreed_on() -> None:
    assert agreed(words("the", "cat", "sat"), words("the", "hat", "sat")) == 1


@given(st.lists(st.text()), st.lists(st.text()))
def test_what_is_agreed_on_is_in_both(before: list[str], now: list[str]) -> None:
    count = agreed(words(*before), words(*now))
    assert count <= min(len(before), len(now))
    assert agreed(words(*now[:count]), words(*now)) == count
    assert agreed(words(*now), words(*before)) == count
