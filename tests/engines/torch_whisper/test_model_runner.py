from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
import whisper
from faster_whisper.audio import decode_audio
from torch import nn
from whisper.audio import log_mel_spectrogram, pad_or_trim
from whisper.model import Whisper
from whisper.timing import find_alignment

from tests.engines.torch_whisper.networks import noise_model, one_thread, sound
from whisper_serve.engines.base import Samples
from whisper_serve.engines.checkpoints import read_openai_checkpoint
from whisper_serve.engines.steps import Align
from whisper_serve.engines.torch_whisper.alignment import compiled_dtw
from whisper_serve.engines.torch_whisper.model import load_model
from whisper_serve.engines.torch_whisper.model_runner import (
    MAX_SLOTS_CPU,
    ModelRunner,
    Prefill,
    planned_slots,
)
from whisper_serve.engines.torch_whisper.network import EncodedAudio
from whisper_serve.engines.word_times import SECONDS_PER_FRAME, Alignment

START = [50_258, 50_259, 50_359]
LATER = [50_361, 300, 301, 302, *START]


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def model() -> Whisper:
    return noise_model()


@pytest.fixture(scope="module")
def runner(model: Whisper) -> ModelRunner:
    return ModelRunner(model, slots=6, name="noise")


@pytest.fixture(scope="module")
def windows(runner: ModelRunner) -> list[EncodedAudio]:
    """Of unlike lengths: 30 s, 6 s, 30 s, 1 s."""
    with one_thread():
        lengths = (3000, 600, 3000, 100)
        return [runner.encode([sound(seed)], n)[0] for seed, n in enumerate(lengths)]


def mel_of(samples: Samples, frames: int = 3000) -> torch.Tensor:
    audio = torch.from_numpy(samples.astype(np.float32) / 32768.0)
    mel: torch.Tensor = log_mel_spectrogram(pad_or_trim(audio, frames * 160), 80)
    return mel


@torch.inference_mode()
def known(model: Whisper, audio: EncodedAudio, tokens: Sequence[int]) -> torch.Tensor:
    """openai-whisper's logits for the whole text at once, shape (tokens, vocab)."""
    logits: torch.Tensor = model.decoder(torch.tensor([tokens]), audio.features[None])[0]
    return logits


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=1e-4)


# What it is


def test_a_runner_knows_its_model(runner: ModelRunner) -> None:
    assert (runner.shape.name, runner.shape.n_mels, runner.shape.num_languages) == ("noise", 80, 99)
    assert runner.shape.multilingual
    assert (runner.device.type, runner.dtype, runner.slots) == ("cpu", torch.float32, 6)
    assert runner.memory_gib() == 0.0


def test_a_cpu_has_a_few_slots_unless_told_otherwise(model: Whisper) -> None:
    assert planned_slots(model, share=0.0) == MAX_SLOTS_CPU
    assert planned_slots(model, share=0.0, maximum=3) == 3


def test_nothing_is_left_on_the_modules_it_shares(
    model: Whisper, runner: ModelRunner, windows: list[EncodedAudio]
) -> None:
    runner.prefill([Prefill(windows[0], START, 0, [0])])
    assert not any(hooks_of(module) for module in model.modules())


def hooks_of(module: nn.Module) -> int:
    return len(module._forward_hooks) + len(module._forward_pre_hooks)


# Encoding


@torch.inference_mode()
def test_a_whole_window_is_encoded_as_by_whisper(model: Whisper, runner: ModelRunner) -> None:
    samples = sound(5, 200_000)
    [audio] = runner.encode([samples], 3000)
    close(audio.features, model.embed_audio(mel_of(samples)[None])[0])


@torch.inference_mode()
@pytest.mark.parametrize("frames", [2, 100, 1998])
def test_less_audio_stands_at_the_first_positions(
    model: Whisper, runner: ModelRunner, frames: int
) -> None:
    samples = sound(5, frames * 160)
    [audio] = runner.encode([samples], frames)
    shorter = deepcopy(model.encoder)
    shorter.positional_embedding = shorter.positional_embedding[: frames // 2]
    assert audio.frames == frames // 2
    close(audio.features, shorter(mel_of(samples, frames)[None])[0])


def test_windows_encoded_together_come_out_as_alone(runner: ModelRunner) -> None:
    windows = [sound(1, 90_000), sound(2, 5_000), sound(3, 96_000)]
    together = runner.encode(windows, 600)
    for samples, audio in zip(windows, together, strict=True):
        close(audio.features, runner.encode([samples], 600)[0].features)


# Languages


def test_the_language_is_the_one_that_whisper_finds(
    model: Whisper, runner: ModelRunner, windows: list[EncodedAudio]
) -> None:
    whole = [windows[0], windows[2]]
    _, expected = model.detect_language(torch.stack([audio.features for audio in whole]))
    found = runner.detect_language(windows)
    for (language, probability), theirs in zip([found[0], found[2]], expected, strict=True):
        assert language == max(theirs, key=theirs.__getitem__)
        assert probability == pytest.approx(theirs[language], rel=1e-3)


def test_languages_found_together_are_those_found_alone(
    runner: ModelRunner, windows: list[EncodedAudio]
) -> None:
    together = runner.detect_language(windows)
    alone = [runner.detect_language([audio])[0] for audio in windows]
    assert [language for language, _ in together] == [language for language, _ in alone]
    assert [p for _, p in together] == pytest.approx([p for _, p in alone], rel=1e-3)


# Reading


def test_prompts_of_any_length_are_read_together(
    model: Whisper, runner: ModelRunner, windows: list[EncodedAudio]
) -> None:
    texts = [START, LATER, [*LATER, 50_364, 400, 401], START]
    starts = [0, 4, 4, 0]
    prompts = [
        Prefill(audio, text, start, [slot])
        for slot, (audio, text, start) in enumerate(zip(windows, texts, starts, strict=True))
    ]
    prefilled = runner.prefill(prompts)
    for row, (audio, text) in enumerate(zip(windows, texts, strict=True)):
        logits = known(model, audio, text)
        close(prefilled.logits[row], logits[-1])
        probability = logits[starts[row]].softmax(dim=-1)[50_362].item()
        assert prefilled.no_speech_probs[row] == pytest.approx(probability, rel=1e-3)


def test_every_row_goes_on_at_its_own_position(
    model: Whisper, runner: ModelRunner, windows: list[EncodedAudio]
) -> None:
    texts = [list(START), list(LATER), [*LATER, 50_364, 400], list(START)]
    pairs = zip(windows, texts, strict=True)
    runner.prefill([Prefill(a, t, 0, [s]) for s, (a, t) in enumerate(pairs)])
    random = np.random.default_rng(0)
    for _ in range(5):
        for text in texts:
            text.append(int(random.integers(50_000)))
        logits = runner.step([text[-1] for text in texts], [len(text) - 1 for text in texts])
        for row, (audio, text) in enumerate(zip(windows, texts, strict=True)):
            close(logits[row], known(model, audio, text)[-1])


def test_rows_of_one_length_are_read_together_too(
    model: Whisper, runner: ModelRunner, windows: list[EncodedAudio]
) -> None:
    runner.prefill([Prefill(windows[0], START, 0, [0]), Prefill(windows[2], START, 0, [1])])
    logits = runner.step([7, 8], [3, 3])
    close(logits[0], known(model, windows[0], [*START, 7])[-1])
    close(logits[1], known(model, windows[2], [*START, 8])[-1])


def test_the_rows_of_a_group_share_what_was_read(
    model: Whisper, runner: ModelRunner, windows: list[EncodedAudio]
) -> None:
    runner.prefill(
        [Prefill(windows[1], LATER, 4, [1, 2, 4]), Prefill(windows[0], START, 0, [0, 3])]
    )
    runner.cache.reorder([1, 2, 4], [1, 1, 4])
    logits = runner.step([5, 6, 7, 8, 9], [3, 7, 7, 3, 7])
    for row, (audio, text) in enumerate(
        [
            (windows[0], [*START, 5]),
            (windows[1], [*LATER, 6]),
            (windows[1], [*LATER, 7]),
            (windows[0], [*START, 8]),
            (windows[1], [*LATER, 9]),
        ]
    ):
        close(logits[row], known(model, audio, text)[-1])


def test_a_step_can_be_repeated_and_a_row_tried_alone(
    model: Whisper, runner: ModelRunner, windows: list[EncodedAudio]
) -> None:
    runner.prefill([Prefill(windows[n], START, 0, [n]) for n in range(3)])
    runner.step([5, 6, 7], [3, 3, 3])
    alone = runner.step([6], [3], first=1)
    close(alone[0], known(model, windows[1], [*START, 6])[-1])
    close(runner.step([6, 7], [3, 3], first=1)[1], known(model, windows[2], [*START, 7])[-1])


def test_a_row_that_moved_goes_on(
    model: Whisper, runner: ModelRunner, windows: list[EncodedAudio]
) -> None:
    runner.prefill([Prefill(windows[n], [*LATER, n], 4, [n]) for n in range(4)])
    runner.cache.move(3, 0)
    logits = runner.step([50], [8])
    close(logits[0], known(model, windows[3], [*LATER, 3, 50])[-1])


def test_with_other_slots_everything_begins_again(model: Whisper) -> None:
    runner = ModelRunner(model, slots=2)
    runner.resize(4)
    assert (runner.slots, runner.cache.text_lengths) == (4, [0] * 4)


@pytest.mark.parametrize("compute_type", ["float16", "bfloat16"])
def test_a_short_number_type_is_used_from_mel_to_words(compute_type: str) -> None:
    runner = ModelRunner(noise_model(compute_type=compute_type), slots=2)
    encoded = runner.encode([sound(1), sound(2)], 400)
    prefilled = runner.prefill([Prefill(audio, START, 0, [n]) for n, audio in enumerate(encoded)])
    assert runner.dtype == encoded[0].features.dtype == getattr(torch, compute_type)
    assert prefilled.logits.dtype == runner.step([5, 6], [3, 3]).dtype == torch.float32
    tokenizer = runner.shape.tokenizer("en", "transcribe")
    alignments = runner.align([Align(audio, tokenizer, (50, 51), 300) for audio in encoded])
    assert [len(alignment.probabilities) for alignment in alignments] == [2, 2]


# Alignment


def aligns(runner: ModelRunner, windows: Sequence[EncodedAudio]) -> list[Align]:
    """Texts and audio of unlike lengths."""
    english, german = (runner.shape.tokenizer(code, "transcribe") for code in ("en", "de"))
    return [
        Align(windows[0], english, (50, 51, 52, 53, 54), 2000),
        Align(windows[1], german, (60,), 600),
        Align(windows[2], english, tuple(range(300, 340)), 3000),
        Align(windows[3], german, (7, 8), 31),
    ]


def test_texts_aligned_together_are_aligned_as_alone(
    runner: ModelRunner, windows: list[EncodedAudio]
) -> None:
    steps = aligns(runner, windows)
    for step, found in zip(steps, runner.align(steps), strict=True):
        [alone] = runner.align([step])
        assert np.array_equal(found.token_indices, alone.token_indices)
        assert np.array_equal(found.frame_indices, alone.frame_indices)
        assert found.probabilities == pytest.approx(alone.probabilities, rel=1e-3)


@pytest.mark.parametrize("num_frames", [2, 3, 4, 40])
def test_a_window_shorter_than_its_text_still_has_a_place_for_each_token(
    runner: ModelRunner, windows: list[EncodedAudio], num_frames: int
) -> None:
    tokenizer = runner.shape.tokenizer("en", "transcribe")
    [found] = runner.align([Align(windows[0], tokenizer, (50, 51, 52, 53, 54), num_frames)])
    assert sorted(set(found.token_indices.tolist())) == [0, 1, 2, 3, 4, 5]
    assert set(found.frame_indices.tolist()) == set(range(num_frames // 2))


@pytest.mark.weights
def test_the_alignment_is_the_one_that_whisper_finds(
    tiny_openai: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whisper.timing, "dtw_cpu", compiled_dtw())
    model = load_model(read_openai_checkpoint(tiny_openai), "cpu", "auto")
    runner = ModelRunner(model, slots=1)
    audio = decode_audio(str(corpus / "formats/jfk.flac"))
    samples: Samples = (audio * 32768.0).astype(np.int16)
    tokenizer, num_frames = runner.shape.tokenizer("en", "transcribe"), len(samples) // 160
    text = tuple(tokenizer.encode(" And so, my fellow Americans, ask not what your country can do"))
    expected = find_alignment(model, tokenizer, list(text), mel_of(samples), num_frames)
    [encoded] = runner.encode([samples], 3000)
    [found] = runner.align([Align(encoded, tokenizer, text, num_frames)])
    starts, first = token_starts(found), 0
    for word in expected:
        last = first + len(word.tokens)
        assert [starts[first], starts[last]] == pytest.approx([word.start, word.end])
        assert found.probabilities[first:last].mean() == pytest.approx(word.probability, rel=1e-3)
        first = last
    assert first == len(text)


def token_starts(alignment: Alignment) -> list[float]:
    """Seconds at which each text token begins, and the last one ends."""
    _, enters = np.unique(alignment.token_indices, return_index=True)
    return [frame * SECONDS_PER_FRAME for frame in alignment.frame_indices[enters].tolist()]
