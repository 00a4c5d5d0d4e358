from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from faster_whisper import WhisperModel
from faster_whisper.audio import decode_audio

from whisper_serve.engines.base import DecodeTask, Samples
from whisper_serve.engines.ctranslate2_engine import CTranslate2Backend
from whisper_serve.engines.decoder import MIN_ALIGNED_FRAMES, WindowDecoder, mel_of
from whisper_serve.engines.word_times import to_words, words_from_alignment
from whisper_serve.errors import ConfigError, WeightsError
from whisper_serve.text.transcript import Hypothesis, Segment

SPOKEN = "ask not what your country can do for you"

Decoder = WindowDecoder[object]


def backend_of(path: Path, compute_type: str = "int8", workers: int = 1) -> CTranslate2Backend:
    return CTranslate2Backend(
        path,
        name="tiny.en",
        device="cpu",
        compute_type=compute_type,
        workers=workers,
        threads_per_worker=1,
    )


@pytest.fixture(scope="module")
def tiny(tiny_ctranslate2: Path) -> Iterator[Decoder]:
    decoder = WindowDecoder(backend_of(tiny_ctranslate2, workers=2))
    yield decoder
    decoder.close()


@pytest.fixture(scope="module")
def faster_whisper(tiny_ctranslate2: Path) -> WhisperModel:
    return WhisperModel(str(tiny_ctranslate2), device="cpu", compute_type="int8", cpu_threads=2)


@pytest.fixture(scope="module")
def clip(sample: Path) -> DecodeTask:
    """Ten seconds of English."""
    return DecodeTask(samples_of(sample))


def samples_of(path: Path) -> Samples:
    samples: Samples = (decode_audio(str(path)) * 32768.0).astype(np.int16)
    return samples


def words_in(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


def times_are_sound(hypothesis: Hypothesis, duration_s: float) -> bool:
    words = hypothesis.words
    return (
        all(0.0 <= word.start <= word.end <= duration_s for word in words)
        and all(a.end <= b.start + 1e-6 for a, b in pairwise(words))
        and all(0.0 < word.probability <= 1.0 for word in words)
    )


def test_a_folder_without_a_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="cannot be loaded"):
        backend_of(tmp_path)


def test_a_model_of_another_kind_is_told(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(bytes(range(64)))
    with pytest.raises(WeightsError, match="cannot be loaded"):
        backend_of(tmp_path)


@pytest.mark.weights
@pytest.mark.parametrize("compute_type", ["float16", "int4"])
def test_a_compute_type_that_it_lacks_is_told(tiny_ctranslate2: Path, compute_type: str) -> None:
    with pytest.raises(ConfigError) as refused:
        backend_of(tiny_ctranslate2, compute_type)
    [problem] = refused.value.problems
    assert (problem.key, problem.value) == ("model.compute_type", compute_type)


@pytest.mark.weights
def test_it_says_what_it_is(tiny: Decoder) -> None:
    info = tiny.info
    assert (info.engine, info.model, info.device) == ("ctranslate2", "tiny.en", "cpu")
    assert not info.multilingual
    assert info.compute_type.startswith("int8")
    assert info.load_s > 0


@pytest.mark.weights
def test_words_lie_inside_the_clip_and_in_order(tiny: Decoder, clip: DecodeTask) -> None:
    hypothesis = tiny.decode(clip)
    assert len(hypothesis.words) > 8
    assert times_are_sound(hypothesis, clip.duration_s)
    assert "".join(word.text for word in hypothesis.words).strip() == hypothesis.text


@pytest.mark.weights
def test_a_word_lies_where_it_is_spoken(tiny: Decoder, corpus: Path) -> None:
    task = DecodeTask(samples_of(corpus / "formats" / "jfk.flac"))
    hypothesis = tiny.decode(task)
    assert SPOKEN in " ".join(words_in(hypothesis.text))
    late = DecodeTask(np.concatenate([np.zeros(5 * 16_000, np.int16), task.samples]))
    shifts = [
        after.start - before.start
        for before, after in zip(hypothesis.words, tiny.decode(late).words, strict=True)
    ]
    assert np.median(shifts) == pytest.approx(5.0, abs=0.1)


@pytest.mark.weights
@pytest.mark.parametrize("name", ["formats/jfk.flac", "fleurs/fleurs-en-*"])
def test_greedy_text_is_faster_whisper_s(
    tiny: Decoder, faster_whisper: WhisperModel, corpus: Path, name: str
) -> None:
    path = min(corpus.glob(name))
    segments, _ = faster_whisper.transcribe(str(path), beam_size=1, best_of=1, temperature=0.0)
    expected = "".join(segment.text for segment in segments)
    assert words_in(tiny.decode(DecodeTask(samples_of(path))).text) == words_in(expected)


@pytest.mark.weights
def test_an_answer_begins_behind_the_forced_prefix(tiny: Decoder, clip: DecodeTask) -> None:
    whole = tiny.decode(clip)
    half = len(whole.words) // 2
    known = "".join(word.text for word in whole.words[:half])
    rest = tiny.decode(replace(clip, prefix=known))
    assert words_in(rest.text) == words_in("".join(word.text for word in whole.words[half:]))
    assert rest.words[0].start == pytest.approx(whole.words[half].start, abs=0.2)


@pytest.mark.weights
def test_a_prefix_without_words_asked_for_is_left_out_too(tiny: Decoder, clip: DecodeTask) -> None:
    rest = tiny.decode(replace(clip, prefix="Ever tried.", want_words=False))
    assert words_in(rest.text)[:2] == ["ever", "failed"]


@pytest.mark.weights
@pytest.mark.parametrize("samples", [1, 160, 320, 480, 639, 640, 800, 1600])
def test_a_window_of_a_few_frames_has_sound_times(tiny: Decoder, samples: int) -> None:
    backend = tiny._backend
    tokenizer = backend.shape.tokenizer("en", "transcribe")
    encoded = backend.encode(mel_of(np.full(samples, 3000, np.int16), 80))
    tokens = tokenizer.encode(" Hello")
    frames = max(MIN_ALIGNED_FRAMES, samples // 160)
    words = to_words(
        words_from_alignment(backend.align(encoded, tokenizer, tokens, frames), tokens, tokenizer)
    )
    assert [word.text for word in words] == [" Hello"]
    segment = Segment(0.0, 1.0, "").with_words(words)
    assert times_are_sound(Hypothesis((segment,), "en", 1.0), max(samples / 16_000, 0.04))


@pytest.mark.weights
def test_two_threads_hear_what_one_hears(tiny: Decoder, clip: DecodeTask) -> None:
    alone = tiny.decode(clip)
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(tiny.decode, [clip, clip]))
    assert [hypothesis.text for hypothesis in together] == [alone.text] * 2


@pytest.mark.weights
def test_a_language_is_detected(base_ctranslate2: Path, corpus: Path) -> None:
    decoder = WindowDecoder(backend_of(base_ctranslate2))
    clip = DecodeTask(samples_of(corpus / "fleurs" / "fleurs-de-000.ogg"), want_words=False)
    hypothesis = decoder.decode(clip)
    decoder.close()
    assert hypothesis.language == "de"
    assert hypothesis.language_probability > 0.5
