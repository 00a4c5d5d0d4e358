from __future__ import annotations

import asyncio
import io
import threading
import wave
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from whisper_serve.audio.decode import decode
from whisper_serve.audio.pcm import SAMPLE_RATE, Samples, seconds, to_samples
from whisper_serve.config import Config
from whisper_serve.engines.base import DecodeTask, Engine, TemperaturePolicy
from whisper_serve.engines.build import EngineOptions, build_engine
from whisper_serve.errors import AudioTooLong, EmptyAudio, Overloaded, UnreadableAudio
from whisper_serve.pipeline import TranscribeOptions, Transcriber, find_speech
from whisper_serve.text.normalize import normalize_word
from whisper_serve.text.transcript import Hypothesis, Segment, Transcript, Word

PEAK_S = 0.1
DEFAULTS = TranscribeOptions()


@pytest.fixture(scope="module")
def clip(sample: Path) -> Samples:
    """Ten seconds of speech with pauses."""
    with sample.open("rb") as file:
        return decode(file, accepted=(".wav",), max_duration_s=60.0)


def wav_of(*parts: Samples) -> io.BytesIO:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(SAMPLE_RATE)
        out.writeframes(np.concatenate(parts).tobytes())
    file.seek(0)
    return file


def silence(duration_s: float) -> Samples:
    return np.zeros(to_samples(duration_s), np.int16)


def config_of(**sections: dict[str, Any]) -> Config:
    return Config.model_validate(sections)


@dataclass
class HearsPeaks:
    """Hears a word wherever the speech is at its loudest, `level`."""

    level: int
    tasks: list[DecodeTask] = field(default_factory=list)
    running: int = 0
    at_once: int = 0

    async def transcribe(self, task: DecodeTask) -> Hypothesis:
        self.tasks.append(task)
        self.running += 1
        self.at_once = max(self.at_once, self.running)
        await asyncio.sleep(0.001)
        self.running -= 1
        times = [seconds(int(at)) for at in np.flatnonzero(np.abs(task.samples) == self.level)]
        words = [Word(" peak", at, at + PEAK_S, 0.5) for at in times]
        segments = [Segment(0, 0, "").with_words([word]) for word in words]
        return Hypothesis(tuple(segments), task.language or "en", 0.9)


def hears(clip: Samples) -> HearsPeaks:
    return HearsPeaks(int(np.abs(clip).max()))


def peaks(samples: Samples) -> list[float]:
    """Where a word is heard, in seconds."""
    loud = np.abs(samples)
    return [seconds(int(at)) for at in np.flatnonzero(loud == loud.max())]


def words_of(transcript: Transcript) -> list[str]:
    return [normalize_word(word.text) for word in transcript.words]


async def test_speech_is_heard_where_it_is(clip: Samples) -> None:
    transcriber = Transcriber(hears(clip), Config())
    transcript = await transcriber.transcribe(wav_of(clip), DEFAULTS)
    assert [word.start for word in transcript.words] == pytest.approx(peaks(clip))
    assert transcript.duration == pytest.approx(seconds(len(clip)))
    assert (transcript.language, transcript.language_probability) == ("en", 0.9)


@pytest.mark.parametrize("use_context", [True, False])
async def test_times_are_put_back_behind_long_silences(clip: Samples, use_context: bool) -> None:
    recording = np.concatenate([silence(4), clip, silence(10), clip, silence(300), clip])
    port = hears(clip)
    transcript = await Transcriber(port, Config()).transcribe(
        wav_of(recording), replace(DEFAULTS, use_context=use_context)
    )
    assert [word.start for word in transcript.words] == pytest.approx(peaks(recording))
    assert [word.end - word.start for word in transcript.words] == pytest.approx([PEAK_S] * 3)
    assert transcript.duration == pytest.approx(seconds(len(recording)))
    heard_s = sum(task.duration_s for task in port.tasks)
    assert heard_s < 2 * 3 * seconds(len(clip))


@pytest.mark.parametrize("use_context", [True, False])
async def test_nothing_is_heard_twice_or_lost_over_many_windows(
    clip: Samples, use_context: bool
) -> None:
    recording = np.concatenate([clip, clip[::-1], clip, clip, clip[::-1]])
    config = config_of(chunking={"chunk_duration": 5.0, "overlap": 0.5})
    transcript = await Transcriber(hears(clip), config).transcribe(
        wav_of(recording), replace(DEFAULTS, use_context=use_context)
    )
    assert [word.start for word in transcript.words] == pytest.approx(peaks(recording))


@pytest.mark.parametrize("recording", [silence(3), silence(0.01)])
@pytest.mark.parametrize("use_context", [True, False])
async def test_silence_is_no_text_and_no_work_for_an_engine(
    recording: Samples, use_context: bool
) -> None:
    port = HearsPeaks(0)
    transcript = await Transcriber(port, Config()).transcribe(
        wav_of(recording), replace(DEFAULTS, language="de", use_context=use_context)
    )
    assert port.tasks == []
    assert (transcript.text, transcript.segments, transcript.word_count) == ("", (), 0)
    assert (transcript.language, transcript.language_probability) == ("de", 0.0)
    assert transcript.duration == pytest.approx(seconds(len(recording)))


@pytest.mark.parametrize(
    "name", ["silence_30s", "siren_20s", "swelling_noise_20s", "white_noise_30s"]
)
async def test_noise_is_no_text_either(corpus: Path, name: str) -> None:
    port = HearsPeaks(0)
    with (corpus / "nonspeech" / f"{name}.flac").open("rb") as file:
        transcript = await Transcriber(port, Config()).transcribe(file, DEFAULTS)
    assert port.tasks == []
    assert (transcript.text, transcript.language) == ("", None)


async def test_what_a_client_chooses_reaches_every_window(clip: Samples) -> None:
    port = hears(clip)
    config = config_of(
        chunking={"chunk_duration": 5.0}, limits={"window_timeout_s": 7.0}, model={"beam_size": 3}
    )
    options = TranscribeOptions(
        language="de",
        task="translate",
        prompt="A play.",
        hotwords="Beckett",
        temperature=0.4,
        beam_size=2,
        best_of=4,
        suppress_tokens=(-1, 13),
        request_id="r1",
    )
    await Transcriber(port, config).transcribe(wav_of(clip, clip), options)
    assert len(port.tasks) > 2
    for task in port.tasks:
        assert 0 < task.duration_s <= 5.0
        assert (task.language, task.task, task.hotwords) == ("de", "translate", "Beckett")
        assert task.context.startswith("A play.")
        assert task.temperature == TemperaturePolicy(temperatures=(0.4, 0.6, 0.8, 1.0))
        assert (task.beam_size, task.best_of, task.suppress_tokens) == (2, 4, (-1, 13))
        assert (task.request_id, task.timeout_s) == ("r1", 7.0)
        assert task.want_words


async def test_what_a_client_leaves_open_is_as_configured_or_as_in_whisper(clip: Samples) -> None:
    port = hears(clip)
    await Transcriber(port, config_of(model={"beam_size": 3})).transcribe(wav_of(clip), DEFAULTS)
    [task] = port.tasks
    assert (task.beam_size, task.best_of, task.suppress_tokens) == (3, 5, (-1,))
    assert task.temperature == TemperaturePolicy()


@pytest.mark.parametrize(
    ("configured", "chosen", "expected"),
    [
        (True, None, True),
        (False, None, False),
        (True, False, False),
        (False, True, True),
    ],
)
async def test_a_request_may_choose_context_or_leave_it_to_the_configuration(
    clip: Samples, configured: bool, chosen: bool | None, expected: bool
) -> None:
    port = hears(clip)
    config = config_of(chunking={"chunk_duration": 5.0, "use_context": configured})
    await Transcriber(port, config).transcribe(
        wav_of(clip, clip), replace(DEFAULTS, use_context=chosen)
    )
    assert any(task.context for task in port.tasks) is expected


async def test_no_more_windows_of_one_file_are_decoded_at_once_than_configured(
    clip: Samples,
) -> None:
    port = hears(clip)
    config = config_of(chunking={"chunk_duration": 5.0}, limits={"max_windows_per_file": 2})
    await Transcriber(port, config).transcribe(
        wav_of(*[clip] * 4), replace(DEFAULTS, use_context=False)
    )
    assert port.at_once == 2


# Piece by piece


@pytest.mark.parametrize("use_context", [True, False])
async def test_the_pieces_are_the_whole(clip: Samples, use_context: bool) -> None:
    recording = wav_of(clip, silence(10), clip, clip[::-1])
    transcriber = Transcriber(hears(clip), config_of(chunking={"chunk_duration": 5.0}))
    options = replace(DEFAULTS, use_context=use_context)
    pieces = [piece async for piece in transcriber.stream(recording, options)]
    recording.seek(0)
    whole = await transcriber.transcribe(recording, options)
    assert len(pieces) > 3
    assert [s for piece in pieces for s in piece.segments] == [*whole.segments]
    assert replace(pieces[-1], segments=whole.segments) == whole
    assert {piece.duration for piece in pieces} == {whole.duration}


async def test_a_piece_comes_before_the_next_window_is_heard(clip: Samples) -> None:
    port = hears(clip)
    transcriber = Transcriber(port, config_of(chunking={"chunk_duration": 5.0}))
    async with aclosing(transcriber.stream(wav_of(clip, clip), DEFAULTS)) as pieces:
        for count in (1, 2, 3):
            await anext(pieces)
            assert len(port.tasks) == count


async def test_the_file_is_not_needed_behind_the_first_piece(clip: Samples) -> None:
    transcriber = Transcriber(hears(clip), config_of(chunking={"chunk_duration": 5.0}))
    recording = wav_of(clip, clip)
    async with aclosing(transcriber.stream(recording, DEFAULTS)) as pieces:
        heard = [*(await anext(pieces)).words]
        recording.close()
        async for piece in pieces:
            heard += piece.words
    assert len(heard) == 2


async def test_silence_is_one_piece() -> None:
    transcriber = Transcriber(HearsPeaks(0), Config())
    [piece] = [piece async for piece in transcriber.stream(wav_of(silence(3)), DEFAULTS)]
    assert (piece.text, piece.duration) == ("", 3.0)


class Gated(io.BytesIO):
    """A file that says when it is read first, and then waits."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.begun, self.gate = threading.Event(), threading.Event()

    def read(self, size: int | None = -1, /) -> bytes:
        self.begun.set()
        assert self.gate.wait(10)
        return super().read(size)


async def test_no_more_files_are_unpacked_at_once_than_configured(clip: Samples) -> None:
    config = config_of(limits={"max_decoding_files": 1})
    transcriber = Transcriber(hears(clip), config)
    first, second = (Gated(wav_of(clip).getvalue()) for _ in range(2))
    calls = [asyncio.ensure_future(transcriber.transcribe(f, DEFAULTS)) for f in (first, second)]
    assert await asyncio.to_thread(first.begun.wait, 10)
    await asyncio.sleep(0.05)
    assert not second.begun.is_set()
    assert transcriber.unpacking == 2
    for file in (first, second):
        file.gate.set()
    one, other = await asyncio.gather(*calls)
    assert one.words == other.words != ()
    assert transcriber.unpacking == 0


async def test_what_is_no_audio_is_refused() -> None:
    transcriber = Transcriber(HearsPeaks(0), Config())
    with pytest.raises(EmptyAudio):
        await transcriber.transcribe(io.BytesIO(b""), DEFAULTS)
    with pytest.raises(UnreadableAudio):
        await transcriber.transcribe(io.BytesIO(b"no audio" * 99), DEFAULTS)


async def test_a_recording_over_the_limit_is_refused() -> None:
    transcriber = Transcriber(HearsPeaks(0), config_of(limits={"max_audio_s": 2.0}))
    with pytest.raises(AudioTooLong):
        await transcriber.transcribe(wav_of(silence(3)), DEFAULTS)


async def test_a_failure_of_the_engine_is_raised(clip: Samples) -> None:
    class Full:
        async def transcribe(self, task: DecodeTask) -> Hypothesis:
            raise Overloaded(task.timeout_s)

    with pytest.raises(Overloaded):
        await Transcriber(Full(), Config()).transcribe(wav_of(clip), DEFAULTS)


def test_short_pauses_are_kept_as_they_are(clip: Samples) -> None:
    first, *_ = find_speech(clip, Config().vad).regions
    phrase = find_speech(clip, Config().vad).timeline.samples[first.start : first.end]
    recording = np.concatenate([silence(3), phrase, silence(1.5), phrase, silence(3)])
    speech = find_speech(recording, Config().vad)
    assert len(speech.regions) == 2
    start = to_samples(speech.timeline.restore(Segment(0, 0, "")).start)
    end = start + len(speech.timeline.samples)
    np.testing.assert_array_equal(speech.timeline.samples, recording[start:end])


def test_long_pauses_are_cut_out_with_some_silence_left_around_speech(clip: Samples) -> None:
    recording = np.concatenate([silence(5), clip, silence(10), clip, silence(5)])
    config = Config().vad
    speech = find_speech(recording, config)
    assert speech.duration_s == pytest.approx(seconds(len(recording)))
    assert seconds(len(speech.timeline.samples)) < 2 * seconds(len(clip)) + 4 * config.padding_s
    pad = to_samples(config.padding_s)
    assert speech.regions[0].start == pad
    assert len(speech.timeline.samples) - speech.regions[-1].end == pad


# Another voice activity detection for one recording


def heard_s(port: HearsPeaks) -> float:
    return sum(task.duration_s for task in port.tasks)


async def heard_of(recording: Samples, port: HearsPeaks, **chosen: Any) -> float:
    """Seconds that the engine hears."""
    await Transcriber(port, Config()).transcribe(wav_of(recording), replace(DEFAULTS, **chosen))
    return heard_s(port)


async def test_a_request_may_choose_what_is_loud_enough(clip: Samples) -> None:
    strict = Config().vad.model_copy(update={"threshold": 0.9999})
    assert await heard_of(clip, hears(clip), vad=strict) < await heard_of(clip, hears(clip))


async def test_a_request_may_choose_which_pauses_are_cut_out(clip: Samples) -> None:
    recording = np.concatenate([clip, silence(1), clip])
    impatient = Config().vad.model_copy(update={"max_pause_s": 0.5})
    as_configured = await heard_of(recording, hears(clip))
    assert await heard_of(recording, hears(clip), vad=impatient) < as_configured - 0.5


async def test_a_request_may_choose_what_is_kept_before_speech(clip: Samples) -> None:
    recording = np.concatenate([silence(4), clip, silence(4)])
    as_configured = await heard_of(recording, hears(clip))
    for prefix_padding_s in (0.0, 1.5):
        heard = await heard_of(recording, hears(clip), prefix_padding_s=prefix_padding_s)
        assert heard - as_configured == pytest.approx(prefix_padding_s - 0.1)


async def test_times_stay_true_whatever_is_kept(clip: Samples) -> None:
    recording = np.concatenate([silence(0.2), clip, silence(1), clip])
    vad = Config().vad.model_copy(update={"max_pause_s": 0.01})
    options = replace(DEFAULTS, vad=vad, prefix_padding_s=0.4)
    transcript = await Transcriber(hears(clip), Config()).transcribe(wav_of(recording), options)
    assert [word.start for word in transcript.words] == pytest.approx(peaks(recording))


def test_regions_lie_within_the_speech_and_say_where_it_is_loud(clip: Samples) -> None:
    recording = np.concatenate([clip, silence(10), clip[: to_samples(6.1)]])
    speech = find_speech(recording, Config().vad)
    ends = [edge for region in speech.regions for edge in (region.start, region.end)]
    assert ends == sorted(ends)
    assert ends[-1] <= len(speech.timeline.samples)
    energy = speech.timeline.samples.astype(np.float64) ** 2
    inside = sum(energy[r.start : r.end].sum() for r in speech.regions)
    assert inside > 0.98 * energy.sum()


class Local:
    """A real engine in this process."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def transcribe(self, task: DecodeTask) -> Hypothesis:
        return await asyncio.wrap_future(self._engine.submit(task))


@pytest.fixture
def engine(tiny_ctranslate2: Path) -> Iterator[Engine]:
    options = EngineOptions(
        model=str(tiny_ctranslate2),
        model_dir=tiny_ctranslate2.parent,
        sources=("model_dir",),
        engine="ctranslate2",
        device="cpu",
        compute_type="int8",
        workers=1,
        max_queued=8,
        threads_per_worker=2,
    )
    threads = torch.get_num_threads()
    engine = build_engine(options)
    yield engine
    engine.close()
    torch.set_num_threads(threads)


@pytest.mark.weights
async def test_real_words_get_their_true_times_behind_a_long_silence(
    clip: Samples, engine: Engine
) -> None:
    transcriber = Transcriber(Local(engine), config_of(model={"beam_size": 1}))
    alone = await transcriber.transcribe(wav_of(clip), DEFAULTS)
    twice = await transcriber.transcribe(wav_of(clip, silence(10), clip), DEFAULTS)
    assert words_of(alone)
    assert words_of(twice) == 2 * words_of(alone)
    behind = seconds(len(clip)) + 10
    assert starts(twice.words) == pytest.approx(
        [*starts(alone.words), *(start + behind for start in starts(alone.words))], abs=0.5
    )


def starts(words: Sequence[Word]) -> list[float]:
    return [word.start for word in words]
