from __future__ import annotations

import pytest

from tests.api.fakes import HEARD
from whisper_serve.api.schemas import TranscribeParameters, TranscriptionOut
from whisper_serve.errors import InvalidParameter
from whisper_serve.text.transcript import Segment, Transcript, Word

PROMISED = ["success", "text", "latency", "word_count", "gpu_memory", "error"]


def transcript(*segments: Segment) -> Transcript:
    return Transcript(segments, "en", 0.987654, 12.345678, 1.23456)


def out(heard: Transcript, *, with_words: bool = False, verbose: bool = False) -> TranscriptionOut:
    return TranscriptionOut.of(
        heard, latency_s=1.23456, request_id="r-1", with_words=with_words, verbose=verbose
    )


def test_nothing_is_asked_by_default() -> None:
    parameters = TranscribeParameters.parse({})
    assert parameters == TranscribeParameters()
    assert parameters.use_context is None
    assert parameters.beam_size is None
    assert parameters.suppress_tokens == (-1,)
    assert parameters.response_format == "json"


def test_text_becomes_values() -> None:
    fields = {"temperature": "0.5", "word_timestamps": "true", "use_context": "0"}
    parameters = TranscribeParameters.parse({**fields, "language": "English"})
    assert (parameters.temperature, parameters.word_timestamps) == (0.5, True)
    assert (parameters.use_context, parameters.language) == (False, "en")


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("-1", (-1,)),
        ("13", (13,)),
        ("-1,13, 50256", (-1, 13, 50_256)),
        ("", ()),
        (" ", ()),
        (",".join(map(str, range(1_000))), tuple(range(1_000))),
    ],
    ids=lambda value: str(value)[:20],
)
def test_token_ids_are_written_as_on_whisper_s_command_line(
    text: str, ids: tuple[int, ...]
) -> None:
    assert TranscribeParameters.parse({"suppress_tokens": text}).suppress_tokens == ids


def test_token_ids_are_described_as_what_is_sent() -> None:
    described = TranscribeParameters.model_json_schema()["properties"]["suppress_tokens"]
    assert (described["type"], described["default"]) == ("string", "-1")
    assert TranscribeParameters.parse({"suppress_tokens": "-1"}) == TranscribeParameters()


def test_the_first_fault_is_told() -> None:
    with pytest.raises(InvalidParameter) as refused:
        TranscribeParameters.parse({"task": "sing", "temperature": "hot"})
    assert refused.value.parameter == "task"


def test_every_parameter_says_what_it_is_for() -> None:
    assert all(field.description for field in TranscribeParameters.model_fields.values())


def test_the_promised_fields_come_first_in_success_and_in_failure() -> None:
    failure = TranscriptionOut.failure(error="x", code="y", latency_s=0.5, request_id="r-1")
    for body in (out(transcript()), failure):
        assert list(body.model_dump())[:6] == PROMISED


def test_a_failure_keeps_the_types_of_the_promise() -> None:
    body = TranscriptionOut.failure(error="x", code="y", latency_s=0.12345, request_id="r-1")
    assert [body.model_dump()[name] for name in PROMISED] == [False, "", 0.123, 0, 0.0, "x"]
    assert (body.code, body.request_id) == ("y", "r-1")


def test_numbers_are_rounded_to_what_they_can_mean() -> None:
    segment = Segment(0.12345, 2.98765, " Hello", (Word(" Hello", 0.12345, 2.98765, 0.87654321),))
    body = out(transcript(segment), with_words=True)
    assert (body.latency, body.duration, body.gpu_memory) == (1.235, 12.346, 1.235)
    assert body.language_probability == 0.9877
    assert body.segments is not None
    assert body.words is not None
    assert (body.segments[0].start, body.segments[0].end) == (0.123, 2.988)
    assert (body.words[0].start, body.words[0].probability) == (0.123, 0.8765)


def test_words_are_given_when_asked_for() -> None:
    assert out(transcript(*HEARD.segments)).words is None
    words = out(transcript(*HEARD.segments), with_words=True).words
    assert words is not None
    assert [word.word for word in words] == ["Grüße,", "Welt", "& <alle>."]


def test_words_without_speech_are_none_but_given() -> None:
    assert out(transcript(), with_words=True).words == []


@pytest.mark.parametrize("verbose", [True, False])
def test_segments_are_numbered_and_only_verbose_ones_tell_more(verbose: bool) -> None:
    body = out(transcript(*HEARD.segments), verbose=verbose).model_dump()
    assert [segment["id"] for segment in body["segments"]] == [0, 1]
    assert all(("avg_logprob" in segment) == verbose for segment in body["segments"])


def test_what_goes_out_can_come_in_again() -> None:
    body = out(transcript(*HEARD.segments), with_words=True, verbose=True)
    assert TranscriptionOut.model_validate_json(body.model_dump_json()) == body
