from __future__ import annotations

import pytest

from benchmarks.word_diffs import WordDiff, word_diff

SAID = "Ever tried, ever failed. No matter."


@pytest.mark.parametrize(
    ("heard", "diff"),
    [
        ("ever TRIED ever failed no matter", WordDiff(6)),
        ("Ever tried, ever failed.", WordDiff(6, missing=2)),
        ("", WordDiff(6, missing=6)),
        ("Ever tried, tried, ever failed. No matter.", WordDiff(6, doubled=1)),
        ("Ever tried, ever failed. Ever failed. No matter.", WordDiff(6, doubled=2)),
        ("Ever tried, ever fails. No matter.", WordDiff(6, other=1)),
        ("Ever tried, ever failed. No great matter.", WordDiff(6, other=1)),
        ("Ever tried, ever failed. Matter.", WordDiff(6, missing=1)),
    ],
)
def test_what_became_of_each_word(heard: str, diff: WordDiff) -> None:
    assert word_diff(SAID, heard) == diff


def test_only_missing_and_doubled_words_break_a_text() -> None:
    assert WordDiff(5, other=2).is_whole
    assert not WordDiff(5, missing=1).is_whole
    assert not WordDiff(5, doubled=1).is_whole


def test_diffs_of_streams_add_up() -> None:
    assert WordDiff(5, 1, 2, 3) + WordDiff(6, 4, 0, 1) == WordDiff(11, 5, 2, 4)
