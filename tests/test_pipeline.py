"""A whole recording: what is asked of the engines, and what is made of their answers."""

from __future__ import annotations

import io
import wave
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from whisper.normalizers import EnglishTextNormalizer

from tests.conftest import SAMPLE_WORDS
from whisper_serve.audio.decode import decode
from whisper_serve.audio.pcm import SAMPLE_RATE, Samples
from whisper_serve.config import Config
from whisper_serve.engines.base import DecodeTask
from whisper_serve.engines.ctranslate2_engine import CTranslate2Backend
from whisper_serve.engines.decoder import WindowDecoder
from whisper_serve.errors import AudioTooLong, Overloaded, UnreadableAudio, UnsupportedFormat
from whisper_serve.pipeline import TranscribeOptions, Transcriber
from whisper_serve.text.transcript import Hypothesis, Segment, Word

normalize = EnglishTextNormalizer()


def wav(samples: Samples) -> io.BytesIO:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(SAMPLE_RATE)
        writer.writeframes(samples.tobytes())
    file.seek(0)
    return file


def silence(seconds: float) -> Samples:
    return np.zeros(int(seconds * SAMPLE_RATE), np.int16)


@dataclass
class OneWord:
    """Hears one word in every window; keeps what it was asked."""

    failure: Exception | None = None
    tasks: list[DecodeTask] = field(default_factory=list)

    async def transcribe(self, task: DecodeTask) -> Hypothesis:
        self.tasks.append(task)
        if self.failure is not None:
            raise self.failure
        word = Word(" word", 0.0, task.duration_s, 0.9)
        segment = Segment(0.0, task.duration_s, " word", (word,))
        return Hypothesis((segment,), task.language or "en", 0.9)


@dataclass
class Direct:
    """A decoder in this process, without threads or queues."""

    decoder: WindowDecoder[object]

    async def transcribe(self, task: DecodeTask) -> Hypothesis:
        return self.decoder.decode(task)


@pytest.fixture(scope="module")
def speech(sample: Path) -> Samples:
    return decode(sample.read_bytes(), accepted=[".wav"], max_duration_s=60.0)


@pytest.fixture(scope="module")
def tiny(tiny_ctranslate2: Path) -> Direct:
    backend = CTranslate2Backend(
        tiny_ctranslate2,
        name="tiny.en",
        device="cpu",
        compute_type="int8",
        workers=1,
        threads_per_worker=1,
    )
    return Direct(WindowDecoder(backend))


async def test_silence_is_an_empty_text_and_nobody_is_asked() -> None:
    port = OneWord()
    transcript = await Transcriber(port, Config()).transcribe(
        wav(silence(3.5)), TranscribeOptions(language="de")
    )
    assert (transcript.text, transcript.segments, transcript.language) == ("", (), "de")
    assert transcript.duration == 3.5
    assert port.tasks == []


async def test_options_reach_every_window(speech: Samples) -> None:
    port = OneWord()
    config = Config.model_validate({"limits": {"window_timeout_s": 7.0}, "model": {"beam_size": 3}})
    options = TranscribeOptions(
        language="fr",
        task="translate",
        prompt="Style.",
        hotwords="Beckett",
        temperature=0.4,
        request_id="id-1",
    )
    await Transcriber(port, config).transcribe(wav(speech), options)
    (task,) = port.tasks
    assert (task.language, task.task, task.request_id) == ("fr", "translate", "id-1")
    assert (task.context, task.hotwords) == ("Style.", "Beckett")
    assert task.temperature.temperatures == (0.4, 0.6, 0.8, 1.0)
    assert (task.timeout_s, task.beam_size) == (7.0, 3)
    assert task.want_words


@pytest.mark.parametrize(("use_context", "knows"), [(True, True), (False, False), (None, False)])
async def test_context_is_given_as_asked_or_configured(
    speech: Samples, use_context: bool | None, knows: bool
) -> None:
    port = OneWord()
    config = Config.model_validate({"chunking": {"use_context": False}})
    long = np.tile(speech, 5)
    options = TranscribeOptions(use_context=use_context)
    transcript = await Transcriber(port, config).transcribe(wav(long), options)
    assert len(port.tasks) > 1
    assert any(task.context for task in port.tasks) is knows
    assert transcript.text


@pytest.mark.weights
async def test_times_are_those_of_the_recording_behind_a_long_silence(
    tiny: Direct, speech: Samples
) -> None:
    """Twenty seconds of nothing between two readings are never decoded, and still count."""
    gap = 20.0
    recording = np.concatenate([speech, silence(gap), speech])
    transcript = await Transcriber(tiny, Config()).transcribe(wav(recording), TranscribeOptions())
    length = len(speech) / SAMPLE_RATE
    words = transcript.words
    early = [word for word in words if word.end <= length]
    late = [word for word in words if word.start >= length + gap]
    assert len(early) + len(late) == len(words)
    for part in (early, late):
        heard = normalize("".join(word.text for word in part)).split()
        assert set(SAMPLE_WORDS.split()[3:]) <= set(heard)
    assert transcript.duration == pytest.approx(2 * length + gap, abs=0.001)


async def test_what_the_engines_refuse_is_refused(speech: Samples) -> None:
    with pytest.raises(Overloaded):
        await Transcriber(OneWord(Overloaded(2.0)), Config()).transcribe(
            wav(speech), TranscribeOptions()
        )


async def test_the_limits_and_formats_are_those_of_the_configuration(speech: Samples) -> None:
    port = OneWord()
    short = Config.model_validate({"limits": {"max_audio_s": 1.0}})
    with pytest.raises(AudioTooLong):
        await Transcriber(port, short).transcribe(wav(speech), TranscribeOptions())
    only_flac = Config.model_validate({"model": {"supported_formats": ["flac"]}})
    with pytest.raises(UnsupportedFormat):
        await Transcriber(port, only_flac).transcribe(wav(speech), TranscribeOptions())
    with pytest.raises(UnreadableAudio):
        await Transcriber(port, Config()).transcribe(io.BytesIO(b"text"), TranscribeOptions())
    assert port.tasks == []
