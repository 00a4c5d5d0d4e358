"""What a client may settle for a session, and what it is told otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tests.api.openai.realtime.lines import session
from whisper_serve.api.openai.realtime.configuration import (
    SessionConfig,
    TurnDetection,
)
from whisper_serve.errors import InvalidParameter, ModelNotFound
from whisper_serve.streaming.messages import StreamConfig

LOGPROBS = "item.input_audio_transcription.logprobs"


def at(path: str, value: object) -> dict[str, Any]:
    """An object with `value` at the dotted `path`."""
    for name in reversed(path.split(".")):
        value = {name: value}
    assert isinstance(value, dict)
    return value


def refusal(values: Mapping[str, Any], before: SessionConfig | None = None) -> InvalidParameter:
    with pytest.raises(InvalidParameter) as refused:
        (before or SessionConfig()).updated(values)
    return refused.value


def stream_of(config: SessionConfig) -> StreamConfig:
    return config.stream_config(lambda name: name.upper())


def test_an_untouched_session_is_that_of_the_api() -> None:
    assert SessionConfig().shown("base") == {
        "type": "transcription",
        "audio": {
            "input": {
                "format": {"type": "audio/pcm", "rate": 24_000},
                "transcription": {
                    "model": "base",
                    "language": None,
                    "prompt": "",
                    "keywords": [],
                },
                "turn_detection": {
                    "type": "server_vad",
                    "threshold": 0.5,
                    "prefix_padding_ms": 300,
                    "silence_duration_ms": 500,
                },
                "noise_reduction": None,
            }
        },
        "include": [],
    }


def test_a_session_decides_how_the_stream_is_heard() -> None:
    config = session(
        format={"type": "audio/pcmu"},
        transcription={
            "model": "tiny",
            "language": "German",
            "prompt": "Guten Tag.",
            "keywords": ["Grüezi", "Servus"],
        },
        turn_detection={
            "type": "server_vad",
            "threshold": 0.7,
            "prefix_padding_ms": 150,
            "silence_duration_ms": 800,
        },
    )
    assert stream_of(config) == StreamConfig(
        model="TINY",
        language="de",
        prompt="Guten Tag.",
        hotwords="Grüezi, Servus",
        policy="chunk",
        interim=False,
        vad=True,
        vad_threshold=0.7,
        prefix_padding=0.15,
        endpointing=0.8,
        encoding="mulaw",
        sample_rate=8_000,
    )


@pytest.mark.parametrize(
    ("kind", "encoding", "rate", "size"),
    [
        ("audio/pcm", "pcm_s16le", 24_000, 48_000),
        ("audio/pcmu", "mulaw", 8_000, 8_000),
        ("audio/pcma", "alaw", 8_000, 8_000),
    ],
)
def test_each_format_has_its_encoding_and_its_rate(
    kind: str, encoding: str, rate: int, size: int
) -> None:
    for given in ({"type": kind}, {"type": kind, "rate": rate}, {"type": kind, "rate": None}):
        config = session(format=given)
        assert stream_of(config).encoding == encoding
        assert stream_of(config).sample_rate == rate
        assert config.input.format.seconds(size) == 1.0
        assert config == session(format={"type": kind})


def test_without_turn_detection_nothing_ends_a_turn_by_itself() -> None:
    config = session(turn_detection=None)
    assert stream_of(config).endpointing is None
    assert stream_of(config).vad
    assert config.shown("base")["audio"]["input"]["turn_detection"] is None


# Updates


def test_an_update_changes_what_it_names_and_nothing_else() -> None:
    first = session(
        format={"type": "audio/pcma"},
        transcription={"model": "tiny", "prompt": "Hello."},
        turn_detection={"type": "server_vad", "threshold": 0.7, "silence_duration_ms": 900},
    )
    second = first.updated(
        {
            "type": "transcription",
            "audio": {
                "input": {
                    "transcription": {"language": "en"},
                    "turn_detection": {"threshold": 0.2},
                }
            },
            "include": [LOGPROBS],
        }
    )
    assert second.input.format == first.input.format
    assert second.input.transcription.model == "tiny"
    assert second.input.transcription.prompt == "Hello."
    assert second.input.transcription.spoken == "en"
    assert second.input.turn_detection == TurnDetection(threshold=0.2, silence_duration_ms=900)
    assert second.with_logprobs
    assert not first.with_logprobs


def test_an_empty_update_changes_nothing() -> None:
    config = session(transcription={"language": "en"})
    empty: list[dict[str, Any]] = [{}, {"audio": {}}, {"audio": {"input": {}}}]
    for values in empty:
        assert config.updated(values) == config


def test_null_stands_for_the_default() -> None:
    config = session(transcription={"language": "en", "prompt": "Hello.", "keywords": ["a"]})
    nothing = dict.fromkeys(("model", "language", "languages", "prompt", "keywords", "delay"))
    assert config.updated(at("audio.input.transcription", nothing)) == SessionConfig()
    times = {**dict.fromkeys(TurnDetection.model_fields), "type": "server_vad"}
    assert session(turn_detection=times) == SessionConfig()
    assert SessionConfig().updated({"include": None}) == SessionConfig()
    assert session(noise_reduction=None) == SessionConfig()


def test_turn_detection_can_be_taken_away_and_be_given_back() -> None:
    manual = session(turn_detection=None)
    assert manual.input.turn_detection is None
    again = manual.updated(at("audio.input.turn_detection", {"type": "server_vad"}))
    assert again == SessionConfig()


def test_one_language_may_come_in_a_list() -> None:
    config = session(transcription={"languages": ["German"]})
    assert config.input.transcription.spoken == "de"
    # Whichever way it is named, the last one holds.
    other = config.updated(at("audio.input.transcription", {"language": "fr"}))
    assert other.input.transcription.spoken == "fr"
    back = other.updated(at("audio.input.transcription", {"languages": ["de"]}))
    assert back.input.transcription.spoken == "de"
    same = session(transcription={"language": "en", "languages": ["English"]})
    assert same.input.transcription.spoken == "en"
    nobody = same.updated(at("audio.input.transcription", {"languages": []}))
    assert nobody.input.transcription.spoken is None


def test_a_client_that_wants_no_responses_may_say_so() -> None:
    quiet = {"type": "server_vad", "create_response": False, "interrupt_response": False}
    assert session(turn_detection=quiet).input.turn_detection is not None


# What is refused, by name


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("type", "realtime", "only 'transcription'"),
        ("type", None, "only 'transcription'"),
        ("audio", None, "must be an object"),
        ("audio", "loud", "must be an object"),
        ("audio.output", {}, "unknown"),
        ("audio.input", [], "must be an object"),
        ("audio.input.format", "pcm16", "must be an object"),
        ("audio.input.format.type", "audio/opus", "audio/pcm"),
        ("audio.input.format.rate", 16_000, "24000"),
        ("audio.input.format.rate", "24000", "integer"),
        ("audio.input.format.channels", 2, "unknown"),
        ("audio.input.transcription", None, "must be an object"),
        ("audio.input.transcription.model", 7, "string"),
        ("audio.input.transcription.language", "xx", "does not know"),
        ("audio.input.transcription.language", "x" * 101, "100"),
        ("audio.input.transcription.language", "\ud800", "string"),
        ("audio.input.transcription.prompt", "\ud800", "string"),
        ("audio.input.transcription.languages", ["de", "en"], "one language"),
        ("audio.input.transcription.languages", ["xx"], "does not know"),
        ("audio.input.transcription.prompt", "a" * 4_001, "4000"),
        ("audio.input.transcription.keywords", "hello", "tuple"),
        ("audio.input.transcription.keywords", ["a" * 600, "b" * 600], "1,000"),
        ("audio.input.transcription.delay", "low", "cannot be chosen"),
        ("audio.input.transcription.speed", 1, "unknown"),
        ("audio.input.turn_detection.type", "semantic_vad", "only 'server_vad'"),
        ("audio.input.turn_detection.threshold", 0.0, "greater than 0"),
        ("audio.input.turn_detection.threshold", 1.0, "less than 1"),
        ("audio.input.turn_detection.threshold", "0.5", "number"),
        ("audio.input.turn_detection.threshold", float("nan"), "finite"),
        ("audio.input.turn_detection.prefix_padding_ms", -1, "0"),
        ("audio.input.turn_detection.prefix_padding_ms", 2_001, "2000"),
        ("audio.input.turn_detection.silence_duration_ms", 50, "100"),
        ("audio.input.turn_detection.silence_duration_ms", 10_001, "10000"),
        ("audio.input.turn_detection.silence_duration_ms", True, "integer"),
        ("audio.input.turn_detection.idle_timeout_ms", 5_000, "no responses"),
        ("audio.input.turn_detection.create_response", True, "no responses"),
        ("audio.input.turn_detection.interrupt_response", True, "no responses"),
        ("audio.input.turn_detection.eagerness", "low", "unknown"),
        ("audio.input.noise_reduction", {"type": "near_field"}, "not supported"),
        ("include", [LOGPROBS, "everything"], LOGPROBS),
        ("instructions", "Be kind.", "unknown"),
    ],
)
def test_what_cannot_be_is_refused_and_named(path: str, value: object, reason: str) -> None:
    error = refusal(at(path, value))
    assert error.parameter.removesuffix(".1").removesuffix(".0") == path
    assert reason in error.reason


def test_semantic_detection_is_refused_for_what_it_is() -> None:
    wish = {"type": "semantic_vad", "eagerness": "low", "create_response": True}
    error = refusal(at("audio.input.turn_detection", wish))
    assert error.parameter == "audio.input.turn_detection.type"


def test_a_rate_belongs_to_its_format() -> None:
    error = refusal(at("audio.input.format", {"type": "audio/pcmu", "rate": 24_000}))
    assert (error.parameter, error.reason) == ("audio.input.format.rate", "only 8000 is supported")


def test_two_languages_that_differ_are_refused() -> None:
    both = {"language": "de", "languages": ["en"]}
    error = refusal(at("audio.input.transcription", both))
    assert error.parameter == "audio.input.transcription.languages"


def test_a_name_that_goes_on_and_on_is_told_in_short() -> None:
    assert len(refusal({"a" * 10_000: 1}).parameter) < 100


def test_audio_cannot_change_its_form_while_it_comes() -> None:
    config = SessionConfig()
    assert session(turn_detection={"create_response": False}) == config
    for name, value in {"format": {"type": "audio/pcmu"}, "turn_detection": None}.items():
        with pytest.raises(InvalidParameter, match="once audio has come") as refused:
            session(**{name: value}).require_same_audio(config)
        assert refused.value.parameter == f"audio.input.{name}"
    session(transcription={"language": "de"}).require_same_audio(config)


def test_a_model_that_is_not_served_is_not_found() -> None:
    def resolve(name: str) -> str:
        raise ModelNotFound(name, ("base",))

    with pytest.raises(ModelNotFound):
        session(transcription={"model": "gpt-9"}).stream_config(resolve)
