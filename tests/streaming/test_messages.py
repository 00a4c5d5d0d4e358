from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whisper_serve.errors import InvalidMessage, InvalidParameter
from whisper_serve.streaming.messages import (
    Ack,
    Configure,
    Done,
    End,
    Failed,
    Final,
    Flush,
    Keepalive,
    Partial,
    Ready,
    Reset,
    ResumePoint,
    ServerMessage,
    SpeechStarted,
    SpeechStopped,
    StreamConfig,
    Warned,
    WasReset,
    parse_message,
    wire,
)
from whisper_serve.text.transcript import Word

RESUME = ResumePoint(committed_until=1.23456, context=" before", audio_from=0.5)
WORD = Word(" Hello,", 0.12345, 0.5, 0.98765)


# From the client


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"type": "flush"}', Flush()),
        ('{"type": "reset"}', Reset()),
        ('{"command": "reset"}', Reset()),
        ('{"type": "keepalive"}', Keepalive()),
        ('{"type": "end"}', End()),
        ('{"type": "config", "language": "de"}', Configure({"language": "de"})),
        ('{"command": "config", "config": {"overlap": 1.0}}', Configure({"overlap": 1.0})),
    ],
)
def test_messages_are_told_by_type_or_command(text: str, message: object) -> None:
    assert parse_message(text) == message


def test_the_first_message_may_be_bare_settings() -> None:
    assert parse_message('{"language": "de"}', first=True) == Configure({"language": "de"})
    assert parse_message("{}", first=True) == Configure({})
    with pytest.raises(InvalidMessage, match="no type"):
        parse_message('{"language": "de"}')


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("hello", "must be JSON"),
        ("[" * 100_000, "must be JSON"),
        ("[1]", "must be a JSON object"),
        ("null", "must be a JSON object"),
        ('{"type": "stop"}', "no message of type 'stop'"),
        ('{"type": 7}', "no message of type '7'"),
        ('{"type": ["end"]}', "no message of type"),
        ('{"type": "end", "now": true}', "'end' takes no 'now'"),
        ('{"command": "config"}', "takes one object"),
        ('{"command": "config", "config": []}', "takes one object"),
        ('{"command": "config", "config": {}, "more": 1}', "takes one object"),
    ],
)
def test_a_message_that_is_none_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(InvalidMessage, match=reason):
        parse_message(text)


@given(st.text())
def test_any_text_is_a_message_or_refused(text: str) -> None:
    with suppress(InvalidMessage):
        assert isinstance(parse_message(text, first=True), Configure)


# Configuration


def test_without_settings_the_documented_defaults_hold() -> None:
    config = StreamConfig.parse({})
    assert config == StreamConfig()
    assert (config.chunk_duration, config.overlap, config.policy) == (5.0, 0.5, "chunk")
    assert (config.encoding, config.sample_rate, config.channels) == ("pcm_s16le", 16_000, 1)
    assert (config.beam_size, config.best_of, config.suppress_tokens) == (None, 5, (-1,))


@pytest.mark.parametrize("name", ["de", "German", "german", "de-DE"])
def test_a_language_may_be_a_code_or_a_name(name: str) -> None:
    assert StreamConfig.parse({"language": name}).language == "de"


@pytest.mark.parametrize("language", [None, ""])
def test_no_language_means_that_it_is_detected(language: str | None) -> None:
    assert StreamConfig.parse({"language": language}).language is None


@pytest.mark.parametrize(
    ("values", "parameter"),
    [
        ({"lang": "de"}, "lang"),
        ({"language": "klingon"}, "language"),
        ({"language": 7}, "language"),
        ({"policy": "fast"}, "policy"),
        ({"chunk_duration": 0.5}, "chunk_duration"),
        ({"chunk_duration": 21}, "chunk_duration"),
        ({"chunk_duration": "5"}, "chunk_duration"),
        ({"chunk_duration": float("nan")}, "chunk_duration"),
        ({"overlap": 5.0}, "overlap"),
        ({"overlap": 0.0}, "overlap"),
        ({"chunk_duration": 2.0, "overlap": 3.0}, "overlap"),
        ({"use_context": "yes"}, "use_context"),
        ({"interim": 1}, "interim"),
        ({"encoding": "mp3"}, "encoding"),
        ({"sample_rate": 7_999}, "sample_rate"),
        ({"sample_rate": 48_001}, "sample_rate"),
        ({"sample_rate": 16_000.5}, "sample_rate"),
        ({"channels": 3}, "channels"),
        ({"prompt": "x" * 4_001}, "prompt"),
        ({"hotwords": "x" * 1_001}, "hotwords"),
        ({"beam_size": 0}, "beam_size"),
        ({"beam_size": 11}, "beam_size"),
        ({"beam_size": "5"}, "beam_size"),
        ({"beam_size": 2.5}, "beam_size"),
        ({"beam_size": True}, "beam_size"),
        ({"best_of": 0}, "best_of"),
        ({"best_of": 11}, "best_of"),
        ({"best_of": None}, "best_of"),
        ({"suppress_tokens": "-1"}, "suppress_tokens"),
        ({"suppress_tokens": None}, "suppress_tokens"),
        ({"suppress_tokens": [1] * 1_001}, "suppress_tokens"),
        ({"suppress_tokens": [-2]}, "suppress_tokens"),
        ({"suppress_tokens": [51_866]}, "suppress_tokens"),
        ({"suppress_tokens": [1, "13"]}, "suppress_tokens.1"),
        ({"suppress_tokens": [1.5]}, "suppress_tokens.0"),
        ({"resume": {}}, "resume.committed_until"),
        ({"resume": {"committed_until": -1.0}}, "resume.committed_until"),
        ({"resume": {"committed_until": 1e300}}, "resume.committed_until"),
        ({"resume": {"committed_until": 1.0, "from": 2}}, "resume.from"),
        ({"resume": {"committed_until": 1.0, "words": [["a", 0.5]]}}, "resume.words.0.2"),
        ({"resume": {"committed_until": 1.0, "words": [["", 0.5, 1.0]]}}, "resume.words.0.0"),
        ({"resume": 12.5}, "resume"),
    ],
)
def test_a_wrong_setting_is_named(values: dict[str, Any], parameter: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        StreamConfig.parse(values)
    assert refused.value.parameter == parameter
    assert refused.value.reason


@pytest.mark.parametrize(
    ("times", "name"),
    [
        ({"audio_from": 3.0}, "committed_until"),
        ({"audio_from": 1.0, "window_from": 0.5}, "window_from"),
        ({"window_from": 2.5}, "committed_until"),
        ({"position": 1.0}, "position"),
    ],
)
def test_the_times_of_a_resume_point_are_in_order(times: dict[str, float], name: str) -> None:
    with pytest.raises(InvalidParameter, match=f"{name}: must not lie before"):
        StreamConfig.parse({"resume": {"committed_until": 2.0, **times}})


def test_a_resume_point_comes_back_as_it_was_sent() -> None:
    point = ResumePoint(
        committed_until=2.5,
        context=" before",
        audio_from=0.512,
        window_from=1.2,
        position=3.0,
        words=((" Hello", 1.3, 2.5),),
        tail=((" you", 2.6, 3.0),),
        language="en",
    )
    sent = json.loads(json.dumps(wire(Ack(3.0, point), 0)))
    assert StreamConfig.parse({"resume": sent["resume"]}).resume == point


@pytest.mark.parametrize("ids", [[], [-1], [-1, 0, 51_865], [13] * 1_000])
def test_token_ids_are_a_list(ids: list[int]) -> None:
    assert StreamConfig.parse({"suppress_tokens": ids}).suppress_tokens == tuple(ids)


def test_the_way_of_decoding_changes_and_changes_back() -> None:
    config = StreamConfig().changed({"beam_size": 2, "best_of": 1, "suppress_tokens": []})
    assert (config.beam_size, config.best_of, config.suppress_tokens) == (2, 1, ())
    assert config.changed({"beam_size": None, "best_of": 5, "suppress_tokens": [-1]}) == (
        StreamConfig()
    )


def test_settings_change_and_the_others_stay() -> None:
    config = StreamConfig.parse({"language": "de", "overlap": 1.0})
    changed = config.changed({"chunk_duration": 2.0})
    assert (changed.language, changed.overlap, changed.chunk_duration) == ("de", 1.0, 2.0)


@pytest.mark.parametrize(
    "values",
    [
        {"encoding": "mulaw"},
        {"sample_rate": 8_000},
        {"channels": 2},
        {"resume": {"committed_until": 1.0}},
    ],
)
def test_the_format_of_audio_cannot_change(values: dict[str, Any]) -> None:
    with pytest.raises(InvalidParameter, match="cannot change"):
        StreamConfig().changed(values)


def test_a_change_is_checked_with_what_stays() -> None:
    with pytest.raises(InvalidParameter, match="overlap"):
        StreamConfig.parse({"overlap": 2.0}).changed({"chunk_duration": 1.5})


def test_naming_a_fixed_setting_as_it_is_changes_nothing() -> None:
    assert StreamConfig().changed({"sample_rate": 16_000}) == StreamConfig()


# From the server

MESSAGES: list[tuple[ServerMessage, dict[str, Any]]] = [
    (Partial(1.23456, 2.0, " tail"), {"start": 1.235, "end": 2.0, "text": " tail"}),
    (SpeechStarted(0.0004), {"at": 0.0}),
    (SpeechStopped(1.5), {"at": 1.5}),
    (Warned("falling_behind", "slow"), {"code": "falling_behind", "message": "slow"}),
    (Failed("engine_failed", "no", fatal=True), {"fatal": True}),
    (WasReset(3.0), {"at": 3.0}),
    (Ack(2.0, RESUME), {"received_until": 2.0, "committed_until": 1.235, "lag": 0.765}),
    (
        Done("Hello", 2.0, 1, {"windows": 3}),
        {"text": "Hello", "duration": 2.0, "words": 1, "statistics": {"windows": 3}},
    ),
    (
        Final("Hello,", (WORD,), "en", 0.99999, 0.2, RESUME),
        {
            "start": 0.123,
            "end": 0.5,
            "text": "Hello,",
            "words": [{"word": "Hello,", "start": 0.123, "end": 0.5, "probability": 0.9877}],
            "language": "en",
            "language_probability": 1.0,
            "committed_until": 1.235,
        },
    ),
    (Final("Hello,", (WORD,), "en", 1.0, 0.2, RESUME, with_words=False), {"words": None}),
    (Ready("id", StreamConfig(), {"max_backlog_s": 9}), {"session_id": "id", "protocol": 1}),
]


@pytest.mark.parametrize(("message", "fields"), MESSAGES, ids=lambda value: type(value).__name__)
def test_a_message_is_json_with_type_and_number(
    message: ServerMessage, fields: dict[str, Any]
) -> None:
    sent = json.loads(json.dumps(wire(message, 7), allow_nan=False))
    assert sent["type"] == message.kind
    assert sent["seq"] == 7
    assert fields.items() <= sent.items()


def test_the_configuration_in_force_can_be_sent_back() -> None:
    config = StreamConfig.parse(
        {"language": "German", "policy": "agreement", "suppress_tokens": [-1, 13]}
    )
    sent = wire(Ready("id", config, {}), 0)["config"]
    assert sent["language"] == "de"
    assert StreamConfig.parse(sent) == config
