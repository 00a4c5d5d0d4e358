from __future__ import annotations

import numpy as np
import pytest

from whisper_serve.audio.vad import FRAME_SAMPLES, VadOptions
from whisper_serve.streaming.events import Silences, SpeechEvents
from whisper_serve.streaming.listener import Mark
from whisper_serve.streaming.messages import SpeechStarted, SpeechStopped

FRAME_S = FRAME_SAMPLES / 16_000


def frames(*runs: tuple[float, int]) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """Runs of (probability, frames)."""
    return np.concatenate([np.full(count, value, np.float32) for value, count in runs])


def test_speech_is_told_when_it_starts_and_when_it_has_stopped() -> None:
    events = SpeechEvents(16_000, VadOptions(), Silences())
    assert events.push(frames((0.0, 10), (1.0, 3))) == []
    assert events.push(frames((1.0, 5))) == [SpeechStarted(1 + 10 * FRAME_S)]
    assert events.push(frames((0.0, 10), (1.0, 5), (0.0, 10))) == []
    assert events.push(frames((0.0, 10))) == [SpeechStopped(1 + 33 * FRAME_S)]
    assert events.finish() == []
    assert events.speech_s == pytest.approx(23 * FRAME_S)


def test_the_end_of_the_stream_stops_speech() -> None:
    events = SpeechEvents(0, VadOptions(), Silences())
    events.push(frames((1.0, 20)))
    assert events.finish() == [SpeechStopped(20 * FRAME_S)]
    assert events.speech_s == pytest.approx(20 * FRAME_S)


def test_a_click_is_no_speech() -> None:
    events = SpeechEvents(0, VadOptions(), Silences())
    assert events.push(frames((1.0, 2), (0.0, 40))) == []
    assert events.finish() == []
    assert events.speech_s == 0.0


def test_with_endpointing_speech_stops_sooner_or_later_and_is_to_be_settled_there() -> None:
    events = SpeechEvents(0, VadOptions(), Silences(endpointing=0.32))
    pushed = events.push(frames((0.0, 10), (1.0, 10), (0.0, 9)))
    assert pushed == [SpeechStarted(10 * FRAME_S)]
    assert events.push(frames((0.0, 10))) == [
        SpeechStopped(20 * FRAME_S),
        Mark(30 * FRAME_SAMPLES, "silence"),
    ]


def test_the_end_of_an_utterance_comes_once_however_long_the_silence_is() -> None:
    events = SpeechEvents(0, VadOptions(), Silences(endpointing=0.32, utterance_end=0.96))
    events.push(frames((1.0, 10), (0.0, 29)))
    assert events.push(frames((0.0, 200))) == [Mark(40 * FRAME_SAMPLES, "utterance_end")]
    assert events.finish() == []


def test_an_utterance_may_end_before_speech_has_stopped() -> None:
    events = SpeechEvents(0, VadOptions(), Silences(endpointing=0.96, utterance_end=0.32))
    pushed = events.push(frames((1.0, 10), (0.0, 15), (1.0, 10), (0.0, 15)))
    assert [event for event in pushed if isinstance(event, Mark)] == [
        Mark(20 * FRAME_SAMPLES, "utterance_end"),
        Mark(45 * FRAME_SAMPLES, "utterance_end"),
    ]


def test_the_end_of_the_stream_is_that_of_speech_and_utterance() -> None:
    events = SpeechEvents(0, VadOptions(), Silences(endpointing=0.32, utterance_end=0.96))
    events.push(frames((1.0, 20)))
    end = 20 * FRAME_SAMPLES
    assert events.finish() == [
        SpeechStopped(20 * FRAME_S),
        Mark(end, "silence"),
        Mark(end, "utterance_end"),
    ]
