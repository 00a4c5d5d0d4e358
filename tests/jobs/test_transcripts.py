from __future__ import annotations

from tests.api.fakes import SEGMENTS
from whisper_serve.jobs.transcripts import from_json, to_json
from whisper_serve.text.transcript import Transcript


def test_a_transcript_comes_back_as_it_was() -> None:
    whole = Transcript(SEGMENTS, "de", 0.98765, 2.0, 1.5)
    assert from_json(to_json(whole)) == whole


def test_so_does_one_of_silence() -> None:
    silent = Transcript((), None, 0.0, 60.0)
    assert from_json(to_json(silent)) == silent
