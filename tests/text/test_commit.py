"""How words are kept over many windows is tested with the listener; here is each rule alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whisper_serve.text.commit import (
    SAME_WORD_S,
    commit,
    drop_heard,
    is_guess,
    keep_words,
    speakable,
)
from whisper_serve.text.transcript import Segment, Word, text_of, words_of


def segment_of(*words: tuple[str, float, float]) -> Segment:
    return Segment(0, 0, "", seek=7.0).with_words([Word(f" {t}", a, b, 1.0) for t, a, b in words])


def texts(segments: Sequence[Segment]) -> str:
    return text_of(segments)


HEARD = [
    segment_of(("ask", 0.0, 0.5), ("not", 0.5, 1.0)),
    segment_of(("what", 1.0, 1.5), ("your", 1.5, 2.0), ("country", 2.0, 3.0)),
]

segments_lists = st.lists(st.integers(0, 4), max_size=5).map(
    lambda sizes: [
        Segment(n, n + 1, f"{n}", tuple(Word(f" {n}.{i}", n, n + 1, 1.0) for i in range(size)))
        for n, size in enumerate(sizes)
    ]
)


@given(segments_lists, st.integers(0, 12), st.integers(0, 12))
def test_keeping_words_is_slicing_them(segments: list[Segment], first: int, last: int) -> None:
    kept = keep_words(segments, first, last)
    assert words_of(kept) == words_of(segments)[first:last]
    assert all(segment.words for segment in kept)
    for segment in kept:
        assert segment.text == "".join(word.text for word in segment.words)
        assert (segment.start, segment.end) == (segment.words[0].start, segment.words[-1].end)


def test_words_stay_in_their_segments() -> None:
    kept = keep_words(HEARD, 1, 4)
    assert [segment.text for segment in kept] == [" not", " what your"]
    assert [segment.seek for segment in kept] == [7.0, 7.0]


def test_within_speech_a_word_is_final_when_it_ends_before_the_cut() -> None:
    assert texts(commit(HEARD, 2.0, at_pause=False)) == "ask not what your"
    assert texts(commit(HEARD, 2.9, at_pause=False)) == "ask not what your"


def test_at_a_pause_a_word_is_final_when_its_middle_lies_before_the_cut() -> None:
    assert texts(commit(HEARD, 2.5, at_pause=True)) == "ask not what your country"
    assert texts(commit(HEARD, 2.4, at_pause=True)) == "ask not what your"


@pytest.mark.parametrize("at_pause", [True, False])
def test_no_word_before_the_cut_is_nothing_final(at_pause: bool) -> None:
    assert commit(HEARD, 0.2, at_pause=at_pause) == ()
    assert commit([], 5.0, at_pause=at_pause) == ()


def test_a_word_that_was_set_too_long_does_not_hold_up_those_behind_it() -> None:
    segments = [segment_of(("ask", 0.0, 9.0), ("not", 0.5, 1.0), ("what", 4.0, 5.0))]
    assert texts(commit(segments, 2.0, at_pause=False)) == "ask not"


def fresh(before: Segment, heard: Segment, start_s: float) -> str:
    return texts(drop_heard([before], [heard], start_s))


def test_what_follows_the_last_known_word_is_new() -> None:
    before = segment_of(("ask", 0.0, 0.5), ("not", 0.5, 1.0), ("what", 1.0, 1.5))
    heard = segment_of(("not", 0.52, 1.03), ("what", 1.03, 1.48), ("your", 1.5, 2.0))
    assert fresh(before, heard, 0.5) == "your"


def test_words_are_the_same_whatever_their_case_and_punctuation() -> None:
    before = segment_of(("ask", 0.0, 0.5), ("not.", 0.5, 1.0))
    assert fresh(before, segment_of(("Not", 0.6, 1.4), ("what", 1.4, 1.9)), 0.4) == "what"


def test_a_word_said_again_is_told_from_the_one_before_it_by_its_time() -> None:
    before = segment_of(("very", 0.0, 0.3), ("very", 0.3, 0.6))
    heard = segment_of(("very", 0.31, 0.58), ("very", 0.6, 0.9), ("well", 0.9, 1.2))
    assert fresh(before, heard, 0.2) == "very well"


def test_a_word_that_the_window_divides_is_not_the_next_one_that_sounds_like_it() -> None:
    before = segment_of(("so", 0.0, 0.42), ("very", 0.42, 0.74))
    heard = segment_of(("y", 0.5, 0.76), ("very", 0.76, 1.0), ("well", 1.0, 1.3))
    assert fresh(before, heard, 0.5) == "very well"


def test_the_same_word_said_much_later_is_new() -> None:
    before = segment_of(("no", 0.0, 0.4))
    later = SAME_WORD_S + 0.1
    assert fresh(before, segment_of(("no", later, later + 0.4)), 0.0) == "no"


def test_a_last_word_that_is_heard_otherwise_does_not_come_twice() -> None:
    before = segment_of(("the", 0.0, 0.3), ("colour", 0.3, 0.9))
    heard = segment_of(("the", 0.02, 0.3), ("color", 0.3, 0.88), ("red", 0.95, 1.4))
    assert fresh(before, heard, 0.0) == "red"


def test_a_last_word_that_is_missing_takes_no_other_with_it() -> None:
    before = segment_of(("the", 0.0, 0.3), ("colour", 0.3, 0.9))
    heard = segment_of(("the", 0.02, 0.3), ("red", 0.95, 1.4))
    assert fresh(before, heard, 0.0) == "red"


def test_an_earlier_word_holds_when_the_aligners_disagree_about_times() -> None:
    before = segment_of(("the", 0.0, 0.3), ("red", 0.3, 0.6), ("rose", 0.6, 0.7))
    heard = segment_of(("red", 0.65, 0.95), ("is", 0.95, 1.2))
    assert fresh(before, heard, 0.2) == "is"


def test_the_rest_of_a_known_word_at_the_windows_edge_is_dropped() -> None:
    before = segment_of(("ask", 0.0, 0.53))
    assert fresh(before, segment_of(("k", 0.5, 0.59), ("not", 0.6, 1.0)), 0.5) == "not"


def test_a_word_at_the_windows_edge_that_nobody_knows_is_kept() -> None:
    before = segment_of(("ask", 0.0, 0.4))
    assert fresh(before, segment_of(("not", 0.5, 0.9)), 0.5) == "not"


def test_without_words_on_one_side_there_is_nothing_to_drop() -> None:
    assert drop_heard([], HEARD, 0.0) == tuple(HEARD)
    assert drop_heard(HEARD, [], 0.0) == ()


# Speech takes time


@pytest.mark.parametrize(
    ("words", "time_s", "kept"), [(1, 0.0, 1), (2, 0.0, 0), (6, 0.4, 6), (6, 0.2, 0)]
)
def test_a_segment_without_time_for_its_words_is_left_out(
    words: int, time_s: float, kept: int
) -> None:
    each_s = time_s / words
    segment = segment_of(*(("word", n * each_s, (n + 1) * each_s) for n in range(words)))
    assert len(words_of(speakable([segment]))) == kept


def test_a_sentence_that_was_written_twice_is_kept_once() -> None:
    rushed = [(text, 1.5, 1.5) for text in ("Never", "tried,", "ever", "failed.")]
    real = [("Never", 1.5, 1.8), ("tried,", 1.8, 2.2), ("ever", 2.3, 2.6), ("failed.", 2.6, 3.0)]
    before = ("again.", 1.0, 1.5)
    assert texts(speakable([segment_of(before, *rushed, *real)])) == texts(
        [segment_of(before, *real)]
    )


def test_a_few_words_in_no_time_are_the_aligner_s_matter() -> None:
    segment = segment_of(("and", 1.0, 1.0), ("of", 1.0, 1.0), ("the", 1.0, 1.3), ("cat", 1.3, 2.0))
    assert speakable([segment]) == (segment,)


@pytest.mark.parametrize(
    ("rest_s", "avg_logprob", "guess"),
    [(0.5, -1.01, True), (0.5, -1.0, False), (1.99, -1.5, True), (2.0, -1.5, False)],
)
def test_a_doubted_text_of_a_short_rest_is_a_guess(
    rest_s: float, avg_logprob: float, guess: bool
) -> None:
    segment = replace(segment_of(("Thank", 0.0, 0.2), ("you.", 0.2, 0.4)), avg_logprob=avg_logprob)
    assert is_guess([segment], rest_s) is guess
    assert not is_guess([], rest_s)


def test_segments_without_word_times_stay() -> None:
    segments = (Segment(0.0, 1.0, " text"),)
    assert speakable(segments) == segments
