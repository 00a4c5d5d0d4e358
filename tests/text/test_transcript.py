from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whisper_serve.text.transcript import (
    Hypothesis,
    Segment,
    Transcript,
    Word,
    text_of,
    words_of,
)

ASK = Word(" Ask", 1.0, 1.25, 0.9)
NOT = Word(" not,", 1.25, 1.5, 0.8)
WHAT = Word(" what", 3.0, 3.5, 0.7)

FIRST = Segment(
    start=1.0,
    end=1.5,
    text=" Ask not,",
    words=(ASK, NOT),
    tokens=(7, 8),
    seek=0.5,
    temperature=0.2,
    avg_logprob=-0.3,
    compression_ratio=1.1,
    no_speech_prob=0.01,
)
SECOND = Segment(3.0, 3.5, " what", (WHAT,))

times = st.floats(0, 7200)


def test_a_shifted_word_changes_its_times_only() -> None:
    assert ASK.shifted(10) == Word(" Ask", 11.0, 11.25, 0.9)


def test_a_shifted_segment_takes_its_words_and_its_seek_along() -> None:
    assert FIRST.shifted(10) == replace(
        FIRST, start=11.0, end=11.5, seek=10.5, words=(ASK.shifted(10), NOT.shifted(10))
    )


def test_a_segment_cut_down_to_words_keeps_their_tokens_where_they_are_known() -> None:
    words = [replace(ASK, tokens=(7,)), replace(NOT, tokens=(8, 9))]
    known = replace(FIRST, words=tuple(words), tokens=(7, 8, 9))
    assert known.with_words(words[1:]).tokens == (8, 9)
    assert FIRST.with_words([NOT]).tokens == (7, 8)


def test_whisper_counts_where_a_window_began_in_hundredths_of_a_second() -> None:
    assert replace(FIRST, seek=12.3499).seek_frames == 1234
    assert replace(FIRST, seek=0.29).seek_frames == 29


@given(times, times)
def test_shifting_keeps_durations(start: float, offset: float) -> None:
    shifted = Word(" word", start, start + 0.5, 1.0).shifted(offset)
    assert shifted.end - shifted.start == pytest.approx(0.5)


def test_a_segment_cut_down_to_words_has_their_text_and_reach_and_keeps_the_rest() -> None:
    assert FIRST.with_words([NOT]) == replace(
        FIRST, start=1.25, end=1.5, text=" not,", words=(NOT,)
    )


def test_words_are_those_of_all_segments_in_order() -> None:
    assert words_of([FIRST, SECOND]) == (ASK, NOT, WHAT)
    assert words_of([]) == ()


def test_text_is_joined_as_written_and_trimmed_at_its_ends() -> None:
    assert text_of([FIRST, SECOND]) == "Ask not, what"
    assert text_of([]) == ""


def test_text_without_spaces_is_joined_without_any() -> None:
    assert text_of([Segment(0, 1, "你好，"), Segment(1, 2, "世界")]) == "你好，世界"


@pytest.mark.parametrize(
    "spoken",
    [
        Hypothesis((FIRST, SECOND), "en", 0.9),
        Transcript((FIRST, SECOND), "en", 0.9, duration=4.0),
    ],
)
def test_hypotheses_and_transcripts_know_their_words_and_text(
    spoken: Hypothesis | Transcript,
) -> None:
    assert spoken.words == (ASK, NOT, WHAT)
    assert spoken.text == "Ask not, what"


def test_words_are_counted_in_the_text_so_that_it_works_without_word_times() -> None:
    segments = (Segment(0, 1, " Ask not"), Segment(1, 2, " what, "), Segment(2, 3, " "))
    assert Transcript(segments, "en", 0.9, duration=3.0).word_count == 3
    assert Transcript((), None, 0.0, duration=3.0).word_count == 0
