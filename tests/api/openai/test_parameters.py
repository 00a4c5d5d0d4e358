from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whisper_serve.api.openai.parameters import LISTS, MAX_PAUSE_MS, FileParameters, ServerVad
from whisper_serve.config import VadConfig
from whisper_serve.errors import InvalidParameter
from whisper_serve.streaming.messages import MAX_HOTWORDS_CHARS, MAX_PROMPT_CHARS

DOCS = Path(__file__).parents[3] / "docs/openai.md"


def parsed(*fields: tuple[str, str], **more: str) -> FileParameters:
    return FileParameters.parse([("model", "base"), *fields, *more.items()])


def wrong(*fields: tuple[str, str], **more: str) -> tuple[str, str]:
    """The field that is refused, and why."""
    with pytest.raises(InvalidParameter) as raised:
        parsed(*fields, **more)
    return raised.value.parameter, raised.value.reason


def test_only_the_model_must_be_there() -> None:
    parameters = parsed()
    assert (parameters.model, parameters.spoken, parameters.stream) == ("base", None, False)
    assert parameters.granularities == ("segment",)
    with pytest.raises(InvalidParameter, match="model: it is missing"):
        FileParameters.parse([])


@pytest.mark.parametrize("name", LISTS)
def test_a_list_may_have_brackets_or_none(name: str) -> None:
    values = {"languages": "de", "include": "logprobs", "keywords": "Ray"}
    value = values.get(name, "segment")
    assert parsed((f"{name}[]", value)) == parsed((name, value))


def test_a_list_may_come_in_many_fields() -> None:
    many = [("timestamp_granularities[]", "word"), ("timestamp_granularities", "segment")]
    parameters = parsed(*many, response_format="verbose_json")
    assert parameters.granularities == ("word", "segment")
    assert parsed(("keywords[]", "Ray"), ("keywords[]", "Serve")).hotwords == "Ray, Serve"


def test_the_order_of_fields_does_not_matter() -> None:
    fields = [("timestamp_granularities[]", "word"), ("response_format", "verbose_json")]
    assert parsed(*fields) == parsed(*reversed(fields))


@pytest.mark.parametrize("name", ["model", "prompt", "temperature"])
def test_a_field_that_is_given_twice_is_no_guess(name: str) -> None:
    assert wrong((name, "0"), (name, "0")) == (name, "given more than once")


def test_an_unknown_field_is_told_with_those_that_are_known() -> None:
    name, reason = wrong(prompts="x")
    assert name == "prompts"
    assert reason.startswith("unknown parameter; known: file, model, language,")


@pytest.mark.parametrize("brackets", ["", "[]"])
@pytest.mark.parametrize("name", ["known_speaker_names", "known_speaker_references"])
def test_speakers_are_refused_by_name(name: str, brackets: str) -> None:
    assert wrong((name + brackets, "me")) == (name, "speakers are not told apart here")


@pytest.mark.parametrize(("given_as", "code"), [("de", "de"), ("German", "de"), ("en-US", "en")])
def test_a_language_has_several_names(given_as: str, code: str) -> None:
    assert parsed(language=given_as).spoken == parsed(("languages[]", given_as)).spoken == code


def test_no_language_is_no_language() -> None:
    assert parsed(language=" ").spoken is None


def test_the_end_of_a_long_prompt_is_the_context() -> None:
    assert parsed(prompt="x" * MAX_PROMPT_CHARS + "y").context == "x" * (MAX_PROMPT_CHARS - 1) + "y"


def test_keywords_are_bounded_together() -> None:
    words = [("keywords[]", "x" * 99)] * 10
    assert wrong(*words)[0] == "keywords"
    assert len(parsed(*words[:9]).hotwords) < MAX_HOTWORDS_CHARS


@pytest.mark.parametrize("name", ["file", *FileParameters.model_fields, *ServerVad.model_fields])
def test_every_field_is_documented(name: str) -> None:
    assert f"`{name}`" in DOCS.read_text(encoding="utf-8")


# The object


OBJECT = '{"type": "server_vad", "threshold": 0.4, "silence_duration_ms": 200}'


def test_an_object_may_come_in_fields_or_in_json() -> None:
    in_fields = parsed(
        ("chunking_strategy[type]", "server_vad"),
        ("chunking_strategy[threshold]", "0.4"),
        ("chunking_strategy[silence_duration_ms]", "200"),
    )
    assert in_fields == parsed(chunking_strategy=OBJECT)
    assert in_fields.chunking_strategy == ServerVad(
        type="server_vad", threshold=0.4, silence_duration_ms=200
    )


@pytest.mark.parametrize("value", ["auto", ""])
def test_auto_is_no_object(value: str) -> None:
    assert parsed(chunking_strategy=value).chunking_strategy is None


@pytest.mark.parametrize(
    "value", ["server_vad", "1", "[]", "null", '"auto"', "{", "[" * 100_000, "1" * 9_999]
)
def test_what_is_no_object_is_refused(value: str) -> None:
    name, reason = wrong(chunking_strategy=value)
    assert (name, reason) == (
        "chunking_strategy",
        "it is `auto` or an object with the type `server_vad`",
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("type", "semantic_vad"),
        ("threshold", "1.1"),
        ("threshold", "nan"),
        ("prefix_padding_ms", "-1"),
        ("silence_duration_ms", str(MAX_PAUSE_MS + 1)),
        ("silence_duration_ms", "0.5"),
        ("eagerness", "low"),
    ],
)
def test_a_wrong_key_is_named(key: str, value: str) -> None:
    fields = {"chunking_strategy[type]": "server_vad", f"chunking_strategy[{key}]": value}
    assert wrong(*fields.items())[0] == f"chunking_strategy.{key}"


def test_an_object_and_auto_are_no_guess() -> None:
    auto, keys = ("chunking_strategy", "auto"), ("chunking_strategy[type]", "server_vad")
    assert wrong(keys, auto) == ("chunking_strategy", "given more than once")
    assert wrong(auto, keys)[0] == "chunking_strategy[type]"


def applied(**settings: Any) -> VadConfig:
    return ServerVad(type="server_vad", **settings).applied_to(VadConfig(padding_s=0.1))


def test_what_is_left_out_is_as_configured() -> None:
    assert applied() == VadConfig(padding_s=0.1)
    assert applied(threshold=0.7) == VadConfig(padding_s=0.1, threshold=0.7)


def test_a_pause_counts_from_speech_to_speech() -> None:
    assert applied(silence_duration_ms=500).max_pause_s == pytest.approx(0.3)
    both = applied(silence_duration_ms=500, prefix_padding_ms=300)
    assert both.max_pause_s == pytest.approx(0.1)
    assert applied(silence_duration_ms=0).max_pause_s > 0


names = st.sampled_from(
    [
        *FileParameters.model_fields,
        *(f"{name}[]" for name in FileParameters.model_fields),
        *(f"chunking_strategy[{key}]" for key in ServerVad.model_fields),
    ]
)
values = st.one_of(st.text(max_size=9), st.sampled_from(["word", "json", "0.5", "true", "auto"]))


@given(st.lists(st.tuples(st.one_of(names, st.text(max_size=9)), values), max_size=6))
def test_whatever_comes_is_parameters_or_a_refusal_that_names_a_field(
    fields: list[tuple[str, str]],
) -> None:
    refused = None
    try:
        parsed(*fields)
    except InvalidParameter as exc:
        refused = exc.parameter
    known = {name.split("[")[0] for name, _ in fields} | {name for name, _ in fields}
    assert refused is None or refused.split(".")[0] in known or refused in known
