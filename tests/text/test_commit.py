"""Words before a cut count, and what two windows heard is kept once."""

from __future__ import annotations

from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whisper_serve.text.commit import commit, drop_heard, keep_words
from whisper_serve.text.transcript import Segment, Word, words_of


def spoken(*words: Word) -> Segment:
    return Segment(words[0].start, words[-1].end, "".join(w.text for w in words), words)


def row(text: str, start: float = 0.0, each: float = 0.5) -> tuple[Word, ...]:
    """The words of `text`, one behind the other."""
    return tuple(
        Word(f" {word}", start + each * i, start + each * (i + 1), 0.9)
        for i, word in enumerate(text.split())
    )


def texts(segments: tuple[Segment, ...]) -> str:
    return "".join(word.text for word in words_of(segments)).strip()


@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=6),
    st.integers(0, 32),
    st.integers(0, 32),
)
def test_keeping_words_keeps_just_those(sizes: list[int], first: int, last: int) -> None:
    words = row(" ".join(f"w{n}" for n in range(sum(sizes))))
    edges = [0, *accumulate(sizes)]
    segments = [spoken(*words[a:b]) for a, b in pairwise(edges)]
    kept = keep_words(segments, first, last)
    assert words_of(kept) == words[first : max(first, last)]
    for segment in kept:
        assert (segment.start, segment.end) == (segment.words[0].start, segment.words[-1].end)
        assert segment.text == "".join(word.text for word in segment.words)


def test_at_a_pause_the_middle_of_a_word_decides() -> None:
    word = spoken(Word(" over", 1.0, 2.2, 0.9))
    assert texts(commit([word], 1.7, at_pause=True)) == "over"
    assert commit([word], 1.5, at_pause=True) == ()


def test_within_speech_a_word_has_to_end_before_the_cut() -> None:
    words = spoken(*row("one two three"))
    assert texts(commit([words], 1.0, at_pause=False)) == "one two"
    assert texts(commit([words], 1.4, at_pause=False)) == "one two"
    assert commit([words], 0.4, at_pause=False) == ()


def test_nothing_commits_to_nothing() -> None:
    assert commit([], 5.0, at_pause=True) == ()
    assert drop_heard([], [], 0.0) == ()


def test_what_was_heard_before_is_dropped_up_to_the_last_shared_word() -> None:
    before = [spoken(*row("one two three four"))]
    again = [spoken(*row("three four five six", start=1.05))]
    assert texts(drop_heard(before, again, 1.0)) == "five six"


def test_a_word_that_is_really_said_twice_stays() -> None:
    before = [spoken(*row("it is very"))]
    again = [spoken(*row("is very very good", start=0.5))]
    assert texts(drop_heard(before, again, 0.5)) == "very good"


def test_without_a_shared_word_the_times_decide() -> None:
    before = [spoken(*row("one two tree"))]
    again = [spoken(*row("too three four", start=0.5))]
    assert texts(drop_heard(before, again, 0.5)) == "four"


@pytest.mark.parametrize("shift", [-0.06, 0.0, 0.06])
@given(cut=st.integers(1, 19), back=st.integers(1, 6))
def test_two_hearings_of_one_row_join_to_the_row(shift: float, cut: int, back: int) -> None:
    words = row(" ".join(f"w{n}" for n in range(20)))
    start = max(0, cut - back)
    heard = [word.shifted(shift) for word in words[start:]]
    fresh = drop_heard([spoken(*words[:cut])], [spoken(*heard)], words[start].start)
    joined = [*words[:cut], *words_of(fresh)]
    assert [word.text for word in joined] == [word.text for word in words]
