from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.corpus import Passage, Recording
from benchmarks.scores import spoken_text, word_errors

PASSAGES = (
    Passage(0.0, 4.0, "THE SUN SHONE"),
    Passage(4.0, 9.0, "AND THE RAIN FELL ON THE HILL"),
    Passage(9.0, 12.0, "FOR A LONG TIME"),
)
RECORDING = Recording(
    Path("recording.flac"), " ".join(passage.text for passage in PASSAGES), 12.0, PASSAGES
)


def test_errors_are_told_by_kind() -> None:
    errors = word_errors(["ONE CAT SAT", "AND SLEPT"], ["One dog sat there.", "And"])
    assert (errors.words, errors.kinds) == (5, "1 / 1 / 1")
    assert errors.rate == pytest.approx(3 / 5)


def test_case_punctuation_and_spelling_are_no_errors() -> None:
    assert word_errors(["HIS FAVOURITE COLOUR"], ["His favorite color."]).count == 0


def test_a_stream_that_hears_all_until_the_cut_has_no_errors() -> None:
    heard = "The sun shone, and the rain"
    assert spoken_text(RECORDING, 6.0, heard) == "the sun shone and the rain"


def test_a_word_that_returns_later_does_not_stretch_what_was_said() -> None:
    heard = "The sun shone and the"
    assert spoken_text(RECORDING, 6.0, heard) == "the sun shone and the"


def test_the_last_word_may_be_wrong_without_counting_twice() -> None:
    heard = "The sun shone and the train"
    said = spoken_text(RECORDING, 6.0, heard)
    assert word_errors([said], [heard]).kinds == "0 / 0 / 1"


@pytest.mark.parametrize("heard", ["", "the sun"])
def test_a_lost_end_counts_as_far_as_it_was_certainly_said(heard: str) -> None:
    said = spoken_text(RECORDING, 10.0, heard)
    assert said == "the sun shone and the rain fell on the hill"


def test_text_that_was_not_said_yet_is_no_reference() -> None:
    invented = "The sun shone and the rain fell on the hill for a long time"
    said = spoken_text(RECORDING, 8.0, invented)
    assert word_errors([said], [invented]).kinds == "4 / 0 / 0"


def test_before_the_first_passage_ends_there_is_a_reference_all_the_same() -> None:
    assert spoken_text(RECORDING, 1.0, "") == "the"


def test_a_whole_recording_is_its_whole_text() -> None:
    assert spoken_text(RECORDING, 12.0, "the sun") == RECORDING.text.lower()
