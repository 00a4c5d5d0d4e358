from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.api.fakes import SEGMENTS, TEXT
from whisper_serve.api.openai.answers import (
    IMPOSSIBLE,
    Logprob,
    TranscriptionSegment,
    Usage,
    answer,
    language_name,
)
from whisper_serve.api.openai.parameters import FileParameters
from whisper_serve.text.transcript import Transcript, Word

TRANSCRIPT = Transcript(SEGMENTS, "de", 0.9, 2.0)


def body(transcript: Transcript = TRANSCRIPT, task: str = "transcribe", **fields: str) -> str:
    parameters = FileParameters.parse([("model", "base"), *fields.items()])
    assert task in {"transcribe", "translate"}
    told = answer(transcript, parameters, "translate" if task == "translate" else "transcribe")
    return bytes(told.body).decode()


@pytest.mark.parametrize(("duration_s", "seconds"), [(0.0, 0), (0.01, 1), (2.0, 2), (2.001, 3)])
def test_a_begun_second_counts_whole(duration_s: float, seconds: int) -> None:
    assert Usage.of(duration_s).seconds == seconds


@pytest.mark.parametrize(
    ("probability", "logprob"), [(1.0, 0.0), (0.5, -0.693147), (0.0, IMPOSSIBLE), (1.0001, 0.0)]
)
def test_a_logprob_is_a_finite_number_up_to_zero(probability: float, logprob: float) -> None:
    assert Logprob.of(Word(" x", 0, 1, probability)).logprob == logprob


def test_the_bytes_of_a_token_are_its_text() -> None:
    told = Logprob.of(Word(" Grüße 🎉", 0, 1, 0.5))
    assert bytes(told.bytes).decode() == told.token == " Grüße 🎉"


def test_a_seek_is_in_whole_frames_of_ten_milliseconds() -> None:
    segment = replace(SEGMENTS[0], seek=12.3449)
    assert TranscriptionSegment.of(0, segment).seek == 1234


@pytest.mark.parametrize(
    ("code", "name"), [("de", "german"), ("yue", "cantonese"), (None, ""), ("xx", "xx")]
)
def test_a_language_has_its_full_name(code: str | None, name: str) -> None:
    assert language_name(code) == name


def test_a_translation_is_english_whatever_is_spoken() -> None:
    translated = json.loads(body(task="translate", response_format="verbose_json"))
    assert (translated["task"], translated["language"]) == ("translate", "english")


def test_what_is_not_asked_for_is_not_there() -> None:
    assert json.loads(body()).keys() == {"text", "usage"}
    assert json.loads(body(response_format="verbose_json")).keys() == {
        *("task", "language", "duration", "text", "segments", "usage")
    }


def test_an_empty_list_that_is_asked_for_is_there() -> None:
    silence = Transcript((), None, 0.0, 1.0)
    verbose = json.loads(
        body(silence, response_format="verbose_json", timestamp_granularities="word")
    )
    assert (verbose["words"], "segments" in verbose) == ([], False)
    assert json.loads(body(silence, include="logprobs"))["logprobs"] == []


def test_text_ends_its_line() -> None:
    assert body(response_format="text") == f"{TEXT}\n"
