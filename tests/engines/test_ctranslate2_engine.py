from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import ctranslate2
import numpy as np
import pytest
from faster_whisper import WhisperModel
from faster_whisper.audio import decode_audio
from faster_whisper.feature_extractor import FeatureExtractor
from hypothesis import given
from hypothesis import strategies as st
from whisper.audio import log_mel_spectrogram, pad_or_trim
from whisper.tokenizer import get_tokenizer

from whisper_serve.engines.base import DecodeTask, Samples, TemperaturePolicy
from whisper_serve.engines.batch_worker import BatchWorker, decode_alone
from whisper_serve.engines.ctranslate2_engine import CTranslate2Backend, mel_of, prompt_of
from whisper_serve.engines.fallback import Candidate
from whisper_serve.engines.intake import Intake, Limits
from whisper_serve.engines.padding import WHOLE_FRAMES, WHOLE_ONLY, Padding
from whisper_serve.engines.prompt import build_prompt, suppressed_tokens
from whisper_serve.engines.scheduler import Job
from whisper_serve.engines.steps import (
    MIN_ALIGNED_FRAMES,
    Align,
    DetectLanguage,
    Encode,
    Generate,
)
from whisper_serve.engines.word_times import to_words, words_from_alignment
from whisper_serve.errors import ConfigError, WeightsError
from whisper_serve.text.transcript import DecodeStats, Hypothesis, Segment

SPOKEN = "ask not what your country can do for you"
PATIENCE_S = 100.0
# Sampling gives something else each time.
GREEDY = TemperaturePolicy(temperatures=(0.0,))
SHORT = Padding(margin_s=2.0)
TALK = "He spoke at length about the country, its people and what was to be done in those years."


class Backend(CTranslate2Backend):
    """Remembers how many windows each call of the model was for."""

    def __init__(self, path: Path, compute_type: str = "int8", workers: int = 1) -> None:
        self.generated: list[int] = []
        super().__init__(
            path,
            name=path.name,
            device="cpu",
            compute_type=compute_type,
            workers=workers,
            threads_per_worker=1,
        )

    def _generate(self, steps: Sequence[Generate]) -> Sequence[Candidate]:
        self.generated.append(len(steps))
        return super()._generate(steps)


@pytest.fixture(scope="module")
def tiny(tiny_ctranslate2: Path) -> Iterator[Backend]:
    backend = Backend(tiny_ctranslate2, workers=2)
    yield backend
    backend.close()


@pytest.fixture(scope="module")
def base(base_ctranslate2: Path) -> Iterator[Backend]:
    backend = Backend(base_ctranslate2)
    yield backend
    backend.close()


@pytest.fixture(scope="module")
def faster_whisper(tiny_ctranslate2: Path) -> WhisperModel:
    return WhisperModel(str(tiny_ctranslate2), device="cpu", compute_type="int8", cpu_threads=2)


@pytest.fixture(scope="module")
def clip(sample: Path) -> DecodeTask:
    """Ten seconds of English."""
    return DecodeTask(samples_of(sample), temperature=GREEDY)


@pytest.fixture(scope="module")
def speech(tiny: Backend, clip: DecodeTask) -> Generate:
    """The first decode of the clip."""
    tokenizer = tiny.shape.tokenizer("en", "transcribe")
    [encoded] = tiny.encode([Encode(clip.samples, WHOLE_FRAMES)])
    return Generate(
        encoded,
        build_prompt(clip, tokenizer),
        tokenizer,
        temperature=0.0,
        beam_size=1,
        best_of=1,
        suppressed=suppressed_tokens(tokenizer),
        max_tokens=224,
    )


def samples_of(path: Path) -> Samples:
    samples: Samples = (decode_audio(str(path)) * 32768.0).astype(np.int16)
    return samples


def heard(backend: Backend, task: DecodeTask, padding: Padding = WHOLE_ONLY) -> Hypothesis:
    return decode_alone(backend, padding, task)


def together(
    backend: Backend, tasks: Sequence[DecodeTask], padding: Padding = WHOLE_ONLY
) -> list[Hypothesis]:
    """The windows decoded in one batch."""
    rows = len(tasks)
    intake = Intake(Limits(max_queued=rows, rows=rows))
    jobs = [Job(task, time.monotonic()) for task in tasks]
    for job in jobs:
        intake.offer(job)
    worker = BatchWorker(backend, padding, rows=rows)
    thread = threading.Thread(target=worker.work, args=(intake,), daemon=True)
    thread.start()
    try:
        return [job.future.result(PATIENCE_S) for job in jobs]
    finally:
        intake.close()
        thread.join(PATIENCE_S)


def words_in(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


def times_are_sound(hypothesis: Hypothesis, duration_s: float) -> bool:
    words = hypothesis.words
    return (
        all(0.0 <= word.start <= word.end <= duration_s for word in words)
        and all(a.end <= b.start + 1e-6 for a, b in pairwise(words))
        and all(0.0 < word.probability <= 1.0 for word in words)
    )


def are_alike(alone: Sequence[Hypothesis], batched: Sequence[Hypothesis]) -> bool:
    """The same but for what a float loses on another way."""
    return all(
        len(a.words) == len(b.words)
        and [s.text for s in a.segments] == [s.text for s in b.segments]
        and a.language == b.language
        and a.language_probability == pytest.approx(b.language_probability, abs=0.01)
        and [s.avg_logprob for s in a.segments]
        == pytest.approx([s.avg_logprob for s in b.segments], abs=0.05)
        and [(w.start, w.end) for w in a.words]
        == [pytest.approx((w.start, w.end), abs=0.04) for w in b.words]
        for a, b in zip(alone, batched, strict=True)
    )


# Loading


def test_a_folder_without_a_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="cannot be loaded"):
        Backend(tmp_path)


def test_a_model_of_another_kind_is_told(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(bytes(range(64)))
    with pytest.raises(WeightsError, match="cannot be loaded"):
        Backend(tmp_path)


@pytest.mark.weights
@pytest.mark.parametrize("compute_type", ["float16", "int4"])
def test_a_compute_type_that_it_lacks_is_told(tiny_ctranslate2: Path, compute_type: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Backend(tiny_ctranslate2, compute_type)
    [problem] = refused.value.problems
    assert (problem.key, problem.value) == ("model.compute_type", compute_type)


@pytest.mark.weights
def test_it_says_what_it_is(tiny: Backend) -> None:
    info = tiny.info
    assert (info.engine, info.model, info.device) == ("ctranslate2", "tiny.en", "cpu")
    assert not info.multilingual
    assert info.compute_type.startswith("int8")
    assert info.load_s > 0
    assert (tiny.shape.n_mels, tiny.shape.multilingual, tiny.shape.name) == (80, False, "tiny.en")


# What is heard


@pytest.mark.weights
@pytest.mark.parametrize("padding", [WHOLE_ONLY, SHORT])
def test_words_lie_inside_the_clip_and_in_order(
    tiny: Backend, clip: DecodeTask, padding: Padding
) -> None:
    hypothesis = heard(tiny, clip, padding)
    assert len(hypothesis.words) > 8
    assert times_are_sound(hypothesis, clip.duration_s)
    assert "".join(word.text for word in hypothesis.words).strip() == hypothesis.text


@pytest.mark.weights
@pytest.mark.parametrize("padding", [WHOLE_ONLY, SHORT])
def test_a_word_lies_where_it_is_spoken(tiny: Backend, corpus: Path, padding: Padding) -> None:
    task = DecodeTask(samples_of(corpus / "formats" / "jfk.flac"))
    hypothesis = heard(tiny, task, padding)
    assert SPOKEN in " ".join(words_in(hypothesis.text))
    late = DecodeTask(np.concatenate([np.zeros(5 * 16_000, np.int16), task.samples]))
    shifts = [
        after.start - before.start
        for before, after in zip(hypothesis.words, heard(tiny, late, padding).words, strict=True)
    ]
    assert np.median(shifts) == pytest.approx(5.0, abs=0.1)


@pytest.mark.weights
def test_short_padding_moves_no_words(tiny: Backend, clip: DecodeTask) -> None:
    whole, short = heard(tiny, clip), heard(tiny, clip, SHORT)
    assert words_in(short.text) == words_in(whole.text)
    shifts = [a.start - b.start for a, b in zip(whole.words, short.words, strict=True)]
    assert np.median(np.abs(shifts)) < 0.1


@pytest.mark.weights
@pytest.mark.parametrize("name", ["formats/jfk.flac", "fleurs/fleurs-en-*"])
def test_greedy_text_is_faster_whisper_s(
    tiny: Backend, faster_whisper: WhisperModel, corpus: Path, name: str
) -> None:
    path = min(corpus.glob(name))
    segments, _ = faster_whisper.transcribe(str(path), beam_size=1, best_of=1, temperature=0.0)
    expected = "".join(segment.text for segment in segments)
    assert words_in(heard(tiny, DecodeTask(samples_of(path))).text) == words_in(expected)


@pytest.mark.weights
def test_an_answer_begins_behind_the_forced_prefix(tiny: Backend, clip: DecodeTask) -> None:
    whole = heard(tiny, clip)
    half = len(whole.words) // 2
    known = "".join(word.text for word in whole.words[:half])
    rest = heard(tiny, replace(clip, prefix=known))
    assert words_in(rest.text) == words_in("".join(word.text for word in whole.words[half:]))
    assert rest.words[0].start == pytest.approx(whole.words[half].start, abs=0.2)


@pytest.mark.weights
def test_a_prefix_without_words_asked_for_is_left_out_too(tiny: Backend, clip: DecodeTask) -> None:
    rest = heard(tiny, replace(clip, prefix="Ever tried.", want_words=False))
    assert words_in(rest.text)[:2] == ["ever", "failed"]


@pytest.mark.weights
@pytest.mark.parametrize("samples", [1, 160, 320, 480, 639, 640, 800, 1600])
@pytest.mark.parametrize("frames", [200, WHOLE_FRAMES])
def test_a_window_of_a_few_frames_has_sound_times(tiny: Backend, samples: int, frames: int) -> None:
    tokenizer = tiny.shape.tokenizer("en", "transcribe")
    [encoded] = tiny.encode([Encode(np.full(samples, 3000, np.int16), frames)])
    tokens = tuple(tokenizer.encode(" Hello"))
    step = Align(encoded, tokenizer, tokens, max(MIN_ALIGNED_FRAMES, samples // 160))
    words = to_words(words_from_alignment(tiny.align([step])[0], tokens, tokenizer))
    assert [word.text for word in words] == [" Hello"]
    segment = Segment(0.0, 1.0, "").with_words(words)
    assert times_are_sound(Hypothesis((segment,), "en", 1.0), max(samples / 16_000, 0.04))


@pytest.mark.weights
def test_two_threads_hear_what_one_hears(tiny: Backend, clip: DecodeTask) -> None:
    alone = heard(tiny, clip)
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda task: heard(tiny, task), [clip, clip]))
    assert [hypothesis.text for hypothesis in both] == [alone.text] * 2


# Batches


def cuts_of(task: DecodeTask) -> list[DecodeTask]:
    """Windows of one recording that differ in all that may differ."""
    ends = {seconds: task.samples[: round(seconds * 16_000)] for seconds in (2.5, 4, 7, 8)}
    return [
        task,
        replace(task, samples=ends[8], context=TALK),
        replace(task, samples=ends[7], context=f"{TALK} {TALK} And then:"),
        replace(task, samples=ends[8], prefix="Ever tried."),
        replace(task, samples=ends[7], prefix="Ever tried. Ever failed.", context=TALK),
        replace(task, samples=ends[4], want_words=False),
        replace(task, samples=ends[2.5], hotwords="try, fail"),
        replace(task, samples=ends[8], beam_size=3),
    ]


@pytest.mark.weights
@pytest.mark.parametrize("padding", [WHOLE_ONLY, SHORT])
def test_windows_hear_together_what_each_hears_alone(
    tiny: Backend, clip: DecodeTask, padding: Padding
) -> None:
    tasks = cuts_of(clip)
    alone = [heard(tiny, task, padding) for task in tasks]
    tiny.generated.clear()
    # Twice, so that each has company.
    batched = together(tiny, [*tasks, *tasks], padding)
    assert max(tiny.generated) > 1
    assert are_alike([*alone, *alone], batched)
    assert all(hypothesis.text for hypothesis in alone)


@pytest.mark.weights
def test_windows_of_many_languages_are_heard_together(base: Backend, corpus: Path) -> None:
    languages = ["de", "fr", "es", "en"]
    clips = [samples_of(corpus / f"fleurs/fleurs-{name}-000.ogg")[:128_000] for name in languages]
    detected = [DecodeTask(samples, temperature=GREEDY) for samples in clips]
    told = [replace(detected[0], language="de"), replace(detected[3], language="en", context=TALK)]
    tasks = [*detected, *told, replace(detected[1], task="translate", want_words=False)]
    batched = together(base, tasks, SHORT)
    assert [h.language for h in batched[:4]] == languages
    assert are_alike([heard(base, task, SHORT) for task in tasks], batched)


@pytest.mark.weights
def test_a_language_is_detected(base: Backend, corpus: Path) -> None:
    for name in ("de", "fr"):
        samples = samples_of(corpus / f"fleurs/fleurs-{name}-000.ogg")
        [encoded] = base.encode([Encode(samples, WHOLE_FRAMES)])
        [(language, probability)] = base.detect_language([DetectLanguage(encoded)])
        assert language == name
        assert 0.5 < probability <= 1


@pytest.mark.weights
@pytest.mark.parametrize("frames", [[400, 1_000, 400], [WHOLE_FRAMES, 200]])
def test_what_is_encoded_is_as_long_as_it_was_asked_for(
    tiny: Backend, clip: DecodeTask, frames: list[int]
) -> None:
    encoded = tiny.encode([Encode(clip.samples, each) for each in frames])
    assert [each.shape for each in encoded] == [(each // 2, 384) for each in frames]


def with_previous(step: Generate, count: int) -> Generate:
    return replace(step, prompt=replace(step.prompt, previous=tuple(range(1_000, 1_000 + count))))


@given(st.integers(0, 223))
def test_contexts_are_cut_so_that_rows_line_up(count: int) -> None:
    tokenizer = get_tokenizer(multilingual=True, num_languages=99, language="en")
    task = DecodeTask(np.zeros(160, np.int16), prefix="Hello")
    step = Generate(
        None, build_prompt(task, tokenizer), tokenizer, 0.0, 1, 1, suppressed=(), max_tokens=9
    )
    prompts = [prompt_of(with_previous(step, n)) for n in range(224)]
    assert len({len(prompt) for prompt in prompts[20:]}) < 10
    alone = prompt_of(step)
    cut = prompts[count][: -len(alone)]
    assert prompts[count][-len(alone) :] == alone
    assert len(cut) <= count + 1
    if cut:
        # What was spoken last is next to the speech.
        assert cut[0] == tokenizer.sot_prev
        assert cut[-1] == 1_000 + count - 1
        assert cut[1:] == list(range(cut[1], cut[-1] + 1))


@pytest.mark.weights
def test_windows_with_contexts_of_like_length_go_together(tiny: Backend, speech: Generate) -> None:
    tiny.generated.clear()
    tiny.generate([with_previous(speech, count) for count in (0, 33, 40, 60, 0)])
    assert sorted(tiny.generated) == [2, 3]


@pytest.mark.weights
def test_windows_that_are_decoded_differently_do_not_go_together(
    tiny: Backend, speech: Generate, clip: DecodeTask
) -> None:
    [shorter] = tiny.encode([Encode(clip.samples, 1_200)])
    steps = [
        speech,
        replace(speech, encoded=shorter),
        replace(speech, beam_size=2),
        replace(speech, suppressed=(50,)),
        replace(speech, temperature=0.2, best_of=2),
        replace(speech, temperature=0.4, best_of=2),
        replace(speech, temperature=0.4, best_of=3),
    ]
    tiny.generated.clear()
    candidates = tiny.generate(steps)
    assert tiny.generated == [1] * len(steps)
    assert [c.temperature for c in candidates] == [0.0, 0.0, 0.0, 0.0, 0.2, 0.4, 0.4]
    assert candidates[0] == tiny.generate([speech])[0]


# Beams, samples and what may be said


@pytest.mark.weights
def test_a_beam_finds_a_likelier_text(tiny: Backend, speech: Generate) -> None:
    greedy, beam = tiny.generate([speech, replace(speech, beam_size=5)])
    assert "try again" in beam.text.lower()
    assert beam.avg_logprob >= greedy.avg_logprob - 0.05


@pytest.mark.weights
def test_the_likeliest_of_the_samples_is_taken(tiny: Backend, speech: Generate) -> None:
    ctranslate2.set_random_seed(1)
    sample = replace(speech, temperature=1.0, best_of=1, max_tokens=40)
    samples = tiny.generate([sample] * 6)
    [best] = tiny.generate([replace(sample, best_of=8)])
    assert len({candidate.text for candidate in samples}) > 1
    assert best.avg_logprob > np.mean([candidate.avg_logprob for candidate in samples])
    assert best.temperature == 1.0


@pytest.mark.weights
def test_a_token_that_is_forbidden_is_not_said(tiny: Backend, clip: DecodeTask) -> None:
    tokenizer = tiny.shape.tokenizer("en", "transcribe")
    tried = tokenizer.encode(" tried")
    assert len(tried) == 1
    assert " tried" in heard(tiny, clip).text
    forbidden = heard(tiny, replace(clip, suppress_tokens=(-1, *tried)))
    assert forbidden.text
    assert " tried" not in forbidden.text


@pytest.mark.weights
@pytest.mark.parametrize("max_tokens", [30, 224])
@pytest.mark.parametrize("n_previous", [0, 40, 223])
@pytest.mark.parametrize("prefix", ["", "Ever tried. Ever failed."])
def test_a_decode_has_as_many_tokens_as_it_may(
    tiny: Backend, speech: Generate, max_tokens: int, n_previous: int, prefix: str
) -> None:
    """The forced prefix included; this one cannot end by itself."""
    task = DecodeTask(np.zeros(160, np.int16), prefix=prefix)
    endless = replace(
        speech,
        prompt=build_prompt(task, speech.tokenizer),
        suppressed=(speech.tokenizer.eot,),
        max_tokens=max_tokens,
    )
    [candidate] = tiny.generate([with_previous(endless, n_previous)])
    assert len(candidate.tokens) == max_tokens
    assert candidate.tokens[: len(endless.prompt.prefix)] == endless.prompt.prefix


@pytest.mark.weights
def test_a_window_s_limit_is_not_lower_than_its_own_for_the_company_it_has(
    tiny: Backend, speech: Generate
) -> None:
    endless = replace(speech, suppressed=(speech.tokenizer.eot,))
    limits = (30, 80, 50)
    candidates = tiny.generate([replace(endless, max_tokens=limit) for limit in limits])
    assert all(len(c.tokens) >= limit for c, limit in zip(candidates, limits, strict=True))


@pytest.mark.weights
def test_a_hypothesis_tells_what_it_cost(tiny: Backend, clip: DecodeTask) -> None:
    stats = heard(tiny, clip).stats
    assert 0 < stats.encoded_s < PATIENCE_S
    assert 0 < stats.decoded_s < PATIENCE_S
    assert replace(stats, encoded_s=0.0, decoded_s=0.0) == DecodeStats()


# Features


def noise(samples: int) -> Samples:
    return np.random.default_rng(0).integers(-9_000, 9_000, samples).astype(np.int16)


@pytest.mark.parametrize("n_mels", [80, 128])
@pytest.mark.parametrize(
    ("samples", "frames"), [(1, 3_000), (16_000, 3_000), (480_000, 3_000), (16_000, 400)]
)
def test_features_are_openai_whisper_s(samples: int, frames: int, n_mels: int) -> None:
    audio = noise(samples)
    padded = pad_or_trim(audio.astype(np.float32) / 32768.0, frames * 160)
    mel = mel_of(Encode(audio, frames), n_mels)
    assert mel.shape == (n_mels, frames)
    assert mel.dtype == np.float32
    assert np.array_equal(mel, log_mel_spectrogram(padded, n_mels))


@pytest.mark.parametrize("n_mels", [80, 128])
@pytest.mark.parametrize("samples", [16_000, 480_000])
def test_features_are_faster_whisper_s_for_padded_audio(samples: int, n_mels: int) -> None:
    audio = noise(samples)
    padded = np.pad(audio, (0, 480_000 - samples)).astype(np.float32) / 32768.0
    expected = FeatureExtractor(feature_size=n_mels)(padded)[:, :3000]
    # The last frames differ: one mirrors the audio's end, the other pads it.
    mel = mel_of(Encode(audio, WHOLE_FRAMES), n_mels)
    assert np.allclose(mel[:, :2998], expected[:, :2998], atol=2e-3)
