"""The beta's form of a session says the same as today's."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.openai.realtime.lines import session
from whisper_serve.api.openai.realtime.configuration import SessionConfig
from whisper_serve.api.openai.realtime.flat import FlatSession, flattened
from whisper_serve.errors import InvalidParameter

LOGPROBS = "item.input_audio_transcription.logprobs"
TURNS = {"type": "server_vad", "threshold": 0.4, "silence_duration_ms": 700}


def updated(values: dict[str, Any], before: SessionConfig | None = None) -> SessionConfig:
    return FlatSession.of(before or SessionConfig()).updated(values).session


@pytest.mark.parametrize(
    ("flat", "today"),
    [("pcm16", "audio/pcm"), ("g711_ulaw", "audio/pcmu"), ("g711_alaw", "audio/pcma")],
)
def test_formats_have_other_names(flat: str, today: str) -> None:
    config = updated({"input_audio_format": flat})
    assert config.input.format.type == today
    assert FlatSession.of(config).input_audio_format == flat
    assert flattened(config.shown("base"))["input_audio_format"] == flat


def test_everything_else_is_the_same() -> None:
    config = updated(
        {
            "input_audio_transcription": {"model": "tiny", "language": "de"},
            "turn_detection": TURNS,
            "input_audio_noise_reduction": None,
            "include": [LOGPROBS],
            "modalities": ["text"],
        }
    )
    expected = session(transcription={"model": "tiny", "language": "de"}, turn_detection=TURNS)
    assert config == expected.updated({"include": [LOGPROBS]})


def test_an_update_changes_what_it_names_and_nothing_else() -> None:
    before = session(
        format={"type": "audio/pcmu", "rate": 8_000},
        transcription={"model": "tiny", "prompt": "Hello."},
        turn_detection=TURNS,
    )
    after = updated({"input_audio_transcription": {"language": "en"}}, before)
    assert after.input.transcription.prompt == "Hello."
    assert after.input.transcription.spoken == "en"
    assert after.input.turn_detection == before.input.turn_detection
    # A rate that was named does not make another format of it.
    after.require_same_audio(before)
    assert updated({"turn_detection": None}, before).input.turn_detection is None


def test_a_session_is_shown_on_one_level() -> None:
    assert flattened(session(turn_detection=None).shown("base")) == {
        "input_audio_format": "pcm16",
        "input_audio_transcription": {
            "model": "base",
            "language": None,
            "prompt": "",
            "keywords": [],
        },
        "turn_detection": None,
        "input_audio_noise_reduction": None,
        "include": [],
    }


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"input_audio_format": "opus"}, "input_audio_format"),
        ({"input_audio_format": None}, "input_audio_format"),
        ({"input_audio_transcription": None}, "input_audio_transcription"),
        ({"input_audio_transcription": {"delay": "low"}}, "input_audio_transcription.delay"),
        ({"turn_detection": {"type": "semantic_vad"}}, "turn_detection.type"),
        ({"input_audio_noise_reduction": {"type": "far_field"}}, "input_audio_noise_reduction"),
        ({"modalities": ["audio"]}, "modalities"),
        ({"modalities": ["text", "smell"]}, "modalities.1"),
        ({"voice": "alloy"}, "voice"),
        ({"audio": {}, "turn_detection": None}, "audio"),
    ],
)
def test_what_cannot_be_is_named_in_its_words(values: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        updated(values)
    assert refused.value.parameter == named
