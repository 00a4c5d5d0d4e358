"""Every parameter means what it says, and what means nothing here is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whisper_serve.api.deepgram.parameters import (
    SWITCHES,
    UNSUPPORTED,
    FileParameters,
    ListenParameters,
    LiveParameters,
)
from whisper_serve.errors import InvalidParameter
from whisper_serve.streaming.messages import StreamConfig

BOTH: list[type[ListenParameters]] = [FileParameters, LiveParameters]
BARE = {"encoding": "linear16", "sample_rate": "16000"}


def stream(**query: str) -> StreamConfig:
    return LiveParameters.parse(query.items()).stream_config("")


def refused(cls: type[ListenParameters], *query: tuple[str, str]) -> InvalidParameter:
    with pytest.raises(InvalidParameter) as caught:
        cls.parse(query)
    return caught.value


# What is supported


def test_without_parameters_a_stream_is_final_text_of_a_container_in_any_language() -> None:
    assert stream() == StreamConfig(interim=False, endpointing=0.3, encoding="container")


@pytest.mark.parametrize(
    ("query", "changed"),
    [
        ({"language": "de"}, {"language": "de"}),
        ({"language": "en-US"}, {"language": "en"}),
        ({"language": "multi"}, {"language": None}),
        ({"language": ""}, {"language": None}),
        ({"interim_results": "true"}, {"interim": True}),
        ({"interim_results": "True"}, {"interim": True}),
        ({"interim_results": "false"}, {}),
        ({"endpointing": "false"}, {"endpointing": None}),
        ({"endpointing": "true"}, {"endpointing": 0.3}),
        ({"endpointing": "0"}, {"endpointing": 0.3}),
        ({"endpointing": "10"}, {"endpointing": 0.3}),
        ({"endpointing": "299"}, {"endpointing": 0.3}),
        ({"endpointing": "500"}, {"endpointing": 0.5}),
        (
            {"utterance_end_ms": "1000", "interim_results": "true"},
            {"utterance_end": 1.0, "interim": True},
        ),
        ({"keyterm": "Ray Serve"}, {"hotwords": "Ray Serve"}),
        ({"keywords": "Ray"}, {"hotwords": "Ray"}),
        ({"keywords": "Ray:1.5"}, {"hotwords": "Ray"}),
        ({"keywords": "ratio 3:one:2"}, {"hotwords": "ratio 3:one"}),
        (BARE, {"encoding": "pcm_s16le"}),
        ({**BARE, "encoding": "linear32"}, {"encoding": "pcm_f32le"}),
        (
            {"encoding": "mulaw", "sample_rate": "8000", "channels": "2"},
            {"encoding": "mulaw", "sample_rate": 8_000, "channels": 2},
        ),
        ({"encoding": "alaw", "sample_rate": "8000"}, {"encoding": "alaw", "sample_rate": 8_000}),
        ({"encoding": "ogg-opus"}, {"encoding": "container"}),
        ({"encoding": "flac"}, {"encoding": "container"}),
        ({"sample_rate": "48000"}, {"sample_rate": 48_000}),
        ({"no_delay": "true"}, {}),
        ({"vad_events": "true"}, {}),
        ({"punctuate": "true", "smart_format": "true"}, {}),
        ({"version": "latest", "mip_opt_out": "true", "tag": "a", "extra": "a:b"}, {}),
    ],
    ids=str,
)
def test_a_parameter_changes_what_it_names(query: dict[str, str], changed: dict[str, Any]) -> None:
    assert stream(**query) == stream().model_copy(update=changed)


def test_the_model_that_was_found_is_asked_for() -> None:
    assert LiveParameters.parse([]).stream_config("large-v3").model == "large-v3"


def test_terms_may_be_given_several_times() -> None:
    query = [("keyterm", "Ray Serve"), ("keywords", "Silero:2"), ("keyterm", "CTranslate2")]
    assert LiveParameters.parse(query).hotwords == "Ray Serve, CTranslate2, Silero"


@pytest.mark.parametrize("cls", BOTH)
@pytest.mark.parametrize(
    ("query", "formatted"),
    [
        ({}, False),
        ({"punctuate": "true"}, True),
        ({"smart_format": "true"}, True),
        ({"punctuate": "true", "smart_format": "false"}, True),
    ],
)
def test_either_switch_formats_text(
    cls: type[ListenParameters], query: dict[str, str], formatted: bool
) -> None:
    assert cls.parse(query.items()).is_formatted is formatted


def test_only_multi_tells_languages() -> None:
    assert FileParameters.parse([("language", "multi")]).tells_languages
    assert not FileParameters.parse([("language", "de")]).tells_languages
    assert not FileParameters.parse([]).tells_languages


@pytest.mark.parametrize("cls", BOTH)
def test_labels_come_back_as_they_came(cls: type[ListenParameters]) -> None:
    query = [("tag", "a"), ("extra", "key:value:more"), ("tag", "b"), ("extra", "other:")]
    told = {"tags": ["a", "b"], "extra": {"key": "value:more", "other": ""}}
    assert cls.parse(query).labels == told
    assert cls.parse([]).labels == {}


def test_a_file_s_language_is_told_when_it_is_asked_for() -> None:
    assert FileParameters.parse([("detect_language", "true")]).detect_language
    both = [("detect_language", "true"), ("language", "multi")]
    assert FileParameters.parse(both).spoken_language is None
    given = [("detect_language", "false"), ("language", "de")]
    assert FileParameters.parse(given).spoken_language == "de"


DOCUMENT = Path(__file__).parents[3] / "docs" / "deepgram.md"


@pytest.mark.parametrize(
    "name", sorted({*FileParameters.model_fields, *LiveParameters.model_fields, *SWITCHES})
)
def test_every_parameter_is_documented(name: str) -> None:
    assert f"`{name}`" in DOCUMENT.read_text(encoding="utf-8")


# What is not


OTHERS = [(cls, name) for cls in BOTH for name in SWITCHES if name not in cls.model_fields]


@pytest.mark.parametrize(("cls", "name"), OTHERS)
def test_what_is_switched_off_need_not_be_supported(cls: type[ListenParameters], name: str) -> None:
    assert cls.parse([(name, "false")]) == cls.parse([(name, "False")]) == cls.parse([])


@pytest.mark.parametrize(
    ("cls", "name"), [*OTHERS, *((cls, name) for cls in BOTH for name in UNSUPPORTED)]
)
def test_what_is_not_supported_is_refused_by_name(cls: type[ListenParameters], name: str) -> None:
    error = refused(cls, (name, "true"))
    assert error.parameter == name
    assert "not supported" in error.reason


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_what_is_no_switch_cannot_be_off(name: str) -> None:
    assert refused(FileParameters, (name, "false")).parameter == name


@pytest.mark.parametrize(
    ("query", "named", "why"),
    [
        ({"speed": "2"}, "speed", "unknown parameter; known: model, language"),
        ({"x" * 100: "2"}, "x" * 40, "unknown"),
        ({"language": "klingon"}, "language", "klingon"),
        ({"punctuate": "yes"}, "punctuate", "true or false"),
        ({"smart_format": "1"}, "smart_format", "true or false"),
        ({"encoding": "opus"}, "encoding", "linear16, linear32, mulaw, alaw, flac, ogg-opus"),
        ({"encoding": "amr-nb", "sample_rate": "8000"}, "encoding", "supported"),
        ({"encoding": "amr-wb"}, "encoding", "supported"),
        ({"encoding": "speex"}, "encoding", "supported"),
        ({"encoding": "g729"}, "encoding", "supported"),
        ({"encoding": "linear16"}, "sample_rate", "encoding=linear16"),
        ({**BARE, "sample_rate": "7999"}, "sample_rate", "8000"),
        ({**BARE, "sample_rate": "96000"}, "sample_rate", "48000"),
        ({**BARE, "sample_rate": "fast"}, "sample_rate", "integer"),
        ({**BARE, "channels": "3"}, "channels", "2"),
        ({**BARE, "channels": "0"}, "channels", "1"),
        ({"version": "2024-01-18.26916"}, "version", "latest"),
        ({"keywords": "Ray:-2"}, "keywords", "above 0"),
        ({"keywords": "Ray:0"}, "keywords", "above 0"),
        ({"keywords": ""}, "keywords", "above 0"),
        ({"keyterm": "x" * 1_001}, "keyterm", "1,000"),
        ({"extra": "no colon"}, "extra", "pattern"),
        ({"tag": "x" * 129}, "tag", "128"),
        ({"model": "x" * 201}, "model", "200"),
    ],
    ids=str,
)
@pytest.mark.parametrize("cls", BOTH)
def test_a_wrong_parameter_is_named(
    cls: type[ListenParameters], query: dict[str, str], named: str, why: str
) -> None:
    error = refused(cls, *query.items())
    assert error.parameter == named
    assert why in error.reason


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ({"endpointing": "-1"}, "endpointing"),
        ({"endpointing": "10001"}, "endpointing"),
        ({"endpointing": "soon"}, "endpointing"),
        ({"utterance_end_ms": "999", "interim_results": "true"}, "utterance_end_ms"),
        ({"utterance_end_ms": "5001", "interim_results": "true"}, "utterance_end_ms"),
        ({"utterance_end_ms": "1000"}, "utterance_end_ms"),
        ({"interim_results": "maybe"}, "interim_results"),
        ({"detect_language": "true"}, "detect_language"),
    ],
    ids=str,
)
def test_a_wrong_parameter_of_a_stream_is_named(query: dict[str, str], named: str) -> None:
    assert refused(LiveParameters, *query.items()).parameter == named


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ({"detect_language": "en"}, "detect_language"),
        ({"detect_language": "true", "language": "de"}, "detect_language"),
        ({"interim_results": "true"}, "interim_results"),
        ({"endpointing": "300"}, "endpointing"),
        ({"utterance_end_ms": "1000"}, "utterance_end_ms"),
    ],
    ids=str,
)
def test_a_wrong_parameter_of_a_file_is_named(query: dict[str, str], named: str) -> None:
    assert refused(FileParameters, *query.items()).parameter == named


@pytest.mark.parametrize("cls", BOTH)
def test_what_is_given_twice_is_no_guess(cls: type[ListenParameters]) -> None:
    error = refused(cls, ("language", "de"), ("language", "en"))
    assert (error.parameter, error.reason) == ("language", "given more than once")


NAMES = st.sampled_from(["model", "language", "keyterm", "keywords", "endpointing", "extra"])


@pytest.mark.parametrize("cls", BOTH)
@given(query=st.lists(st.tuples(NAMES | st.text(), st.text() | st.integers().map(str))))
def test_any_query_is_understood_or_refused(
    cls: type[ListenParameters], query: list[tuple[str, str]]
) -> None:
    try:
        parameters = cls.parse(query)
    except InvalidParameter:
        return
    assert isinstance(parameters, cls)
    if isinstance(parameters, LiveParameters):
        assert isinstance(parameters.stream_config(""), StreamConfig)
