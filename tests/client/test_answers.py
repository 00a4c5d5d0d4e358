from __future__ import annotations

from collections import deque

import pytest
from pydantic import ValidationError

from whisper_serve.api.schemas import TranscriptionOut
from whisper_serve.client.answers import Transcription, Word, spoken
from whisper_serve.text import transcript
from whisper_serve.text.formats import to_srt

WORDS = (
    transcript.Word(" Hello", 0.5, 0.9, 0.75),
    transcript.Word(" you.", 0.9, 61.0, 0.5),
)
SEGMENT = transcript.Segment(0.5, 61.0, " Hello you.", WORDS, tokens=(1, 2), avg_logprob=-0.25)
HEARD = transcript.Transcript((SEGMENT,), "en", 0.9, 62.0, 1.5)


def answer(*, with_words: bool = False, verbose: bool = False) -> Transcription:
    """What the service says, as it goes over the wire, and as the client reads it."""
    out = TranscriptionOut.of(
        HEARD, latency_s=0.5, request_id="id", with_words=with_words, verbose=verbose
    )
    return Transcription.model_validate_json(out.model_dump_json())


def test_what_the_service_answers_is_understood() -> None:
    found = answer()
    assert (found.text, found.language, found.word_count) == ("Hello you.", "en", 2)
    assert (found.duration, found.latency, found.gpu_memory) == (62.0, 0.5, 1.5)
    assert found.words is None
    assert found.segments[0].text == "Hello you."
    assert found.segments[0].tokens is None


def test_words_and_numbers_are_there_when_they_were_asked_for() -> None:
    found = answer(with_words=True, verbose=True)
    assert found.words is not None
    assert found.words[0] == Word(word="Hello", start=0.5, end=0.9, probability=0.75)
    assert found.segments[0].tokens == (1, 2)
    assert found.segments[0].avg_logprob == -0.25


def test_it_can_be_written_as_subtitles() -> None:
    assert answer().to_srt() == "1\n00:00:00,500 --> 00:01:01,000\nHello you.\n"
    assert answer().to_vtt() == "WEBVTT\n\n00:00:00.500 --> 00:01:01.000\nHello you.\n"


def test_subtitles_are_cut_at_the_times_of_words_where_these_are_there() -> None:
    count = 40
    words = [transcript.Word(f" word{i}", i * 0.5, i * 0.5 + 0.4, 0.9) for i in range(count)]
    halves = [words[: count // 2], words[count // 2 :]]
    segments = tuple(transcript.Segment(0, 0, "").with_words(half) for half in halves)
    heard = transcript.Transcript(segments, "en", 0.9, 20.0)
    out = TranscriptionOut.of(heard, latency_s=0.5, request_id="", with_words=True, verbose=False)
    answered = Transcription.model_validate_json(out.model_dump_json())
    assert answered.to_srt() == to_srt(segments)
    assert answered.to_srt().count("-->") > 2


@pytest.mark.parametrize(
    ("text", "words"),
    [("Hello you.", ["Hello", "you."]), ("你好。", ["你", "好。"]), (" a  a", ["a", "a"])],
)
def test_words_are_found_in_their_text_with_what_is_written_before_them(
    text: str, words: list[str]
) -> None:
    later = Word(word="later", start=3.0, end=4.0, probability=1.0)
    waiting = deque([Word(word=w, start=0.0, end=1.0, probability=1.0) for w in words] + [later])
    segment = spoken(text, 0.0, 1.0, waiting)
    assert "".join(word.text for word in segment.words) == text
    assert list(waiting) == [later]


def test_a_failure_is_no_transcription() -> None:
    failure = TranscriptionOut.failure(error="no", code="overloaded", latency_s=0, request_id="id")
    with pytest.raises(ValidationError):
        Transcription.model_validate_json(failure.model_dump_json())
