"""Real voice activity detection, and real weights where words are to be heard."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from whisper.normalizers import EnglishTextNormalizer

from tests.streaming.speaker import cuts
from whisper_serve.audio.decode import decode
from whisper_serve.audio.pcm import SAMPLE_RATE, Samples, seconds
from whisper_serve.audio.silero import SileroVad
from whisper_serve.engines.base import DecodeTask
from whisper_serve.engines.batch_worker import decode_alone
from whisper_serve.engines.ctranslate2_engine import CTranslate2Backend
from whisper_serve.engines.padding import Padding
from whisper_serve.streaming.listener import LiveWindow
from whisper_serve.streaming.messages import Done, End, Final, ServerMessage, StreamConfig
from whisper_serve.streaming.session import StreamOptions, StreamSession
from whisper_serve.text.transcript import Hypothesis, Segment, Word

normalize = EnglishTextNormalizer()
policies = pytest.mark.parametrize("policy", ["chunk", "agreement", "utterance"])
Hear = Callable[[LiveWindow], Hypothesis]


def read(path: Path) -> Samples:
    with path.open("rb") as file:
        return decode(file, accepted=(".flac", ".wav"), max_duration_s=600.0)


def streamed(samples: Samples, hear: Hear, **values: Any) -> list[ServerMessage]:
    session = StreamSession(
        StreamConfig.parse(values), StreamOptions(), session_id="id", make_vad=SileroVad
    )
    messages: list[ServerMessage] = []
    for piece in cuts(samples, [4_000]):
        session.receive_audio(piece)
        messages += _run(session, hear)
    session.receive(End())
    return messages + _run(session, hear)


def _run(session: StreamSession, hear: Hear) -> list[ServerMessage]:
    while (window := session.next_window()) is not None:
        session.receive_hypothesis(window, hear(window))
    return session.messages_to_send()


def words_of(messages: list[ServerMessage]) -> list[Word]:
    return [word for m in messages if isinstance(m, Final) for word in m.words]


def never(window: LiveWindow) -> Hypothesis:
    raise AssertionError(f"{window} was asked for")


@pytest.fixture(scope="module")
def base(base_ctranslate2: Path) -> Iterator[Hear]:
    backend = CTranslate2Backend(
        base_ctranslate2,
        name="base",
        device="cpu",
        compute_type="int8",
        workers=1,
        threads_per_worker=2,
    )

    def hear(window: LiveWindow) -> Hypothesis:
        return decode_alone(
            backend,
            Padding(),
            DecodeTask(
                window.samples,
                language=window.language,
                context=window.context,
                prefix=window.prefix,
                beam_size=5 if window.final else 1,
            ),
        )

    yield hear
    backend.close()


@policies
@pytest.mark.parametrize(
    "clip", ["silence_30s", "siren_20s", "swelling_noise_20s", "white_noise_30s"]
)
def test_a_minute_without_speech_asks_no_engine_anything(
    corpus: Path, policy: str, clip: str
) -> None:
    noise = read(corpus / "nonspeech" / f"{clip}.flac")
    minute = np.resize(noise, 60 * SAMPLE_RATE)
    messages = streamed(minute, never, policy=policy)
    assert words_of(messages) == []
    assert isinstance(messages[-1], Done)
    assert messages[-1].text == ""


@pytest.mark.weights
@policies
def test_speech_on_both_sides_of_a_minute_of_silence_is_heard(
    base: Hear, sample: Path, policy: str
) -> None:
    speech = read(sample)[: round(4.4 * SAMPLE_RATE)]
    minute = np.zeros(60 * SAMPLE_RATE, np.int16)
    words = words_of(streamed(np.concatenate([speech, minute, speech]), base, policy=policy))
    length_s = seconds(len(speech))
    first = [word for word in words if word.end <= length_s]
    second = [word for word in words if word.start >= length_s + 60]
    assert len(first) + len(second) == len(words)
    for part in (first, second):
        assert normalize("".join(word.text for word in part)).endswith("ever failed no matter")


def test_an_hour_of_speech_and_noise_takes_no_more_memory_than_minutes(sample: Path) -> None:
    speech = read(sample)
    quiet = np.zeros(20 * SAMPLE_RATE, np.int16)
    noise = (np.random.default_rng(1).normal(0, 300, 10 * SAMPLE_RATE)).astype(np.int16)
    mixed = np.concatenate([speech, quiet, speech, speech, noise])
    rounds = 3600 * SAMPLE_RATE // len(mixed)

    def hear(window: LiveWindow) -> Hypothesis:
        """A word each half second behind the prefix."""
        known = len(window.prefix.split())
        words = [
            Word(f" word{n}", n / 2, n / 2 + 0.4, 0.9) for n in range(int(window.duration_s * 2))
        ][known:]
        segments = (Segment(0.0, window.duration_s, "").with_words(words),) if words else ()
        return Hypothesis(segments, "en", 1.0)

    session = StreamSession(StreamConfig(), StreamOptions(), session_id="id", make_vad=SileroVad)
    process, held = psutil.Process(), []
    for _ in range(rounds):
        for piece in cuts(mixed, [16_000]):
            session.receive_audio(piece)
            _run(session, hear)
        gc.collect()
        held.append(process.memory_info().rss / 2**20)
    early, late = held[rounds // 6], max(held[-rounds // 6 :])
    assert late - early < 8.0, held
