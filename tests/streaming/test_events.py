from __future__ import annotations

import numpy as np
import pytest

from whisper_serve.audio.vad import FRAME_SAMPLES, VadOptions
from whisper_serve.streaming.events import SpeechEvents
from whisper_serve.streaming.messages import SpeechStarted, SpeechStopped

FRAME_S = FRAME_SAMPLES / 16_000


def frames(*runs: tuple[float, int]) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """Runs of (probability, frames)."""
    return np.concatenate([np.full(count, value, np.float32) for value, count in runs])


def test_speech_is_told_when_it_starts_and_when_it_has_stopped() -> None:
    events = SpeechEvents(16_000, VadOptions())
    assert events.push(frames((0.0, 10), (1.0, 3))) == []
    assert events.push(frames((1.0, 5))) == [SpeechStarted(1 + 10 * FRAME_S)]
    assert events.push(frames((0.0, 10), (1.0, 5), (0.0, 10))) == []
    assert events.push(frames((0.0, 10))) == [SpeechStopped(1 + 33 * FRAME_S)]
    assert events.finish() == []
    assert events.speech_s == pytest.approx(23 * FRAME_S)


def test_the_end_of_the_stream_stops_speech() -> None:
    events = SpeechEvents(0, VadOptions())
    events.push(frames((1.0, 20)))
    assert events.finish() == [SpeechStopped(20 * FRAME_S)]
    assert events.speech_s == pytest.approx(20 * FRAME_S)


def test_a_click_is_no_speech() -> None:
    events = SpeechEvents(0, VadOptions())
    assert events.push(frames((1.0, 2), (0.0, 40))) == []
    assert events.finish() == []
    assert events.speech_s == 0.0
