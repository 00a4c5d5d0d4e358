from __future__ import annotations

import io
import wave
from pathlib import Path

import numpy as np
import pytest

from loadtest.speech import PAUSE_S, NoSpeech, find_speech
from tests.api.streams import said, words
from tests.loadtest.corpora import write_speech


def test_a_recording_of_the_wanted_length_is_said_as_it_is(tmp_path: Path) -> None:
    (speech,) = find_speech(write_speech(tmp_path, 4), 2.0)
    assert np.array_equal(speech.samples, words(4))
    assert speech.recording.text == said(4)
    assert speech.language is None


def test_short_recordings_are_joined_with_a_pause_and_their_passages_move_along(
    tmp_path: Path,
) -> None:
    first, second = find_speech(write_speech(tmp_path, 4, 2), 6.0)
    assert first.seconds == second.seconds == 6.0
    assert [passage.text for passage in first.recording.passages] == [said(4), said(2), said(4)]
    starts = [passage.start for passage in first.recording.passages]
    assert starts == pytest.approx([0.0, 2.0 + PAUSE_S, 2.0 + PAUSE_S + 1.0 + PAUSE_S])
    assert second.recording.passages[0].text == said(2)


def test_a_long_recording_is_cut_off(tmp_path: Path) -> None:
    (speech,) = find_speech(write_speech(tmp_path, 10), 2.0)
    assert speech.seconds == 2.0
    assert speech.recording.passages[0].end == pytest.approx(5.0)


def test_streams_get_samples_and_nothing_of_a_header(tmp_path: Path) -> None:
    (speech,) = find_speech(write_speech(tmp_path, 1), 0.5)
    pieces = speech.pieces(3_000)
    assert [len(piece) for piece in pieces] == [6_000, 6_000, 4_000]
    assert b"".join(pieces) == words(1).tobytes()


def test_files_have_a_header_that_tells_the_truth(tmp_path: Path) -> None:
    (speech,) = find_speech(write_speech(tmp_path, 1), 0.5)
    with wave.open(io.BytesIO(speech.wav)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16_000, 1, 2)
        assert file.readframes(file.getnframes()) == words(1).tobytes()


def test_so_many_are_taken_and_no_more(tmp_path: Path) -> None:
    assert len(find_speech(write_speech(tmp_path, 1, 1, 1), 0.5, most=2)) == 2


def test_a_folder_without_transcripts_is_named(tmp_path: Path) -> None:
    with pytest.raises(NoSpeech, match=str(tmp_path)):
        find_speech(tmp_path, 1.0)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(NoSpeech, match="nowhere is not a folder"):
        find_speech(tmp_path / "nowhere", 1.0)


def test_the_corpus_of_development_has_long_speech_in_passages(corpus: Path) -> None:
    speech = find_speech(corpus, 45.0, most=1)[0]
    assert speech.language == "en"
    assert speech.seconds == 45.0
    assert all(passage.start < 45.0 for passage in speech.recording.passages)
    assert len(speech.recording.passages) > 1
