from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import whisper
from faster_whisper.audio import decode_audio
from torch import nn
from whisper.decoding import DecodingOptions, DecodingResult, GreedyDecoder, detect_language
from whisper.model import ModelDimensions, Whisper
from whisper.timing import find_alignment
from whisper.tokenizer import Tokenizer

from whisper_serve.engines.base import DecodeTask, Samples
from whisper_serve.engines.checkpoints import Checkpoint, read_openai_checkpoint
from whisper_serve.engines.ctranslate2_engine import CTranslate2Backend
from whisper_serve.engines.decoder import WindowDecoder, mel_of
from whisper_serve.engines.fallback import Candidate
from whisper_serve.engines.prompt import MAX_PREFIX_TOKENS, Prompt, build_prompt
from whisper_serve.engines.torch_whisper.alignment import alignment_heads, compiled_dtw
from whisper_serve.engines.torch_whisper.backend import TorchBackend
from whisper_serve.engines.torch_whisper.decoding import SeededSampling
from whisper_serve.engines.torch_whisper.model import load_model
from whisper_serve.engines.word_times import SECONDS_PER_FRAME, Alignment
from whisper_serve.errors import ConfigError, EngineFailed, WeightsError

SMALL = ModelDimensions(
    n_mels=80,
    n_audio_ctx=1500,
    n_audio_state=16,
    n_audio_head=2,
    n_audio_layer=1,
    n_vocab=51865,
    n_text_ctx=96,
    n_text_state=16,
    n_text_head=2,
    n_text_layer=2,
)
NOISE_HEADS = ((0, 1), (1, 0))
SPOKEN = "ask not what your country can do for you"

# openai-whisper's beam search hands torch tensors to NumPy.
pytestmark = pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small are slower on several threads, much slower on a busy machine.

    The number is the process's choice; numba's own threads would change it under torch.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    kept = torch.get_num_threads()
    torch.set_num_threads(before)
    assert kept == 1


@pytest.fixture(scope="module")
def noise_weights() -> Checkpoint:
    return noise_of(SMALL)


@pytest.fixture(scope="module")
def noise(noise_weights: Checkpoint) -> TorchBackend:
    return backend_of(noise_weights)


@pytest.fixture(scope="module")
def noise_mel() -> torch.Tensor:
    return torch.randn(80, 3000, generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module")
def tiny_en_model(tiny_openai: Path) -> Whisper:
    return load_model(read_openai_checkpoint(tiny_openai), "cpu", "auto")


@pytest.fixture(scope="module")
def tiny_en(tiny_en_model: Whisper) -> TorchBackend:
    return TorchBackend(tiny_en_model, name="tiny.en", load_s=0.0)


@pytest.fixture(scope="module")
def jfk(corpus: Path) -> Samples:
    samples: Samples = (decode_audio(str(corpus / "formats/jfk.flac")) * 32768.0).astype(np.int16)
    return samples


def noise_of(dims: ModelDimensions) -> Checkpoint:
    """A multilingual network that has learnt nothing: small, and never silent."""
    random = torch.Generator().manual_seed(1)
    tensors = {
        name: 0.3 * torch.randn(tensor.shape, generator=random)
        for name, tensor in Whisper(dims).state_dict().items()
    }
    return Checkpoint(dims, tensors, NOISE_HEADS)


def backend_of(weights: Checkpoint, compute_type: str = "auto") -> TorchBackend:
    return TorchBackend(load_model(weights, "cpu", compute_type), name="test", load_s=0.0)


def tokenizer_of(backend: TorchBackend) -> Tokenizer:
    return backend.shape.tokenizer("en", "transcribe")


def prompt_for(backend: TorchBackend, context: str = "", prefix: str = "") -> Prompt:
    task = DecodeTask(np.zeros(16_000, np.int16), context=context, prefix=prefix)
    return build_prompt(task, tokenizer_of(backend))


def generate(
    backend: TorchBackend,
    mel: torch.Tensor,
    *,
    context: str = "",
    prefix: str = "",
    temperature: float = 0.0,
    beam_size: int = 1,
) -> Candidate:
    prompt = prompt_for(backend, context, prefix)
    encoded = backend.encode(mel)
    return backend.generate(encoded, prompt, tokenizer_of(backend), temperature, beam_size)


def hooks_on(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


# Loading


def test_the_network_holds_the_tensors_of_the_checkpoint(noise_weights: Checkpoint) -> None:
    held = load_model(noise_weights, "cpu", "auto").state_dict()
    assert held.keys() == noise_weights.tensors.keys()
    assert all(torch.equal(held[name], noise_weights.tensors[name]) for name in held)


def test_a_cpu_computes_in_float32_unless_told_otherwise(noise: TorchBackend) -> None:
    assert (noise.info.engine, noise.info.device) == ("torch", "cpu")
    assert noise.info.compute_type == "float32"
    assert noise.shape.multilingual
    assert noise.shape.num_languages == 99


@pytest.mark.parametrize("compute_type", ["float16", "bfloat16"])
def test_a_short_number_type_is_used_from_mel_to_words(
    noise_weights: Checkpoint, noise_mel: torch.Tensor, compute_type: str
) -> None:
    backend = backend_of(noise_weights, compute_type)
    encoded = backend.encode(noise_mel)
    assert backend.info.compute_type == compute_type
    assert encoded.dtype == getattr(torch, compute_type)
    assert generate(backend, noise_mel).tokens
    assert len(backend.align(encoded, tokenizer_of(backend), [50, 51], 300).probabilities) == 2


def test_an_unknown_compute_type_is_a_fault_of_the_configuration(noise_weights: Checkpoint) -> None:
    with pytest.raises(ConfigError, match="float32, float16, bfloat16") as caught:
        load_model(noise_weights, "cpu", "int8")
    assert caught.value.problems[0].key == "model.compute_type"


@pytest.mark.parametrize("device", ["cuda:63", "abacus"])
def test_a_device_that_is_not_there_is_a_fault_of_the_configuration(
    noise_weights: Checkpoint, device: str
) -> None:
    with pytest.raises(ConfigError, match=device) as caught:
        load_model(noise_weights, device, "auto")
    assert caught.value.problems[0].key == "model.device"


def test_tensors_of_other_dimensions_are_refused(noise_weights: Checkpoint) -> None:
    larger = replace(SMALL, n_text_state=32)
    with pytest.raises(WeightsError, match="decoder"):
        load_model(replace(noise_weights, dims=larger), "cpu", "auto")


def test_words_are_aligned_by_the_heads_that_the_checkpoint_names(
    noise_weights: Checkpoint,
) -> None:
    assert alignment_heads(load_model(noise_weights, "cpu", "auto")) == list(NOISE_HEADS)


# Language


def test_the_likeliest_language_is_the_one_that_whisper_finds(
    noise_weights: Checkpoint, noise_mel: torch.Tensor
) -> None:
    model = load_model(noise_weights, "cpu", "auto")
    backend = TorchBackend(model, name="test", load_s=0.0)
    _, expected = detect_language(model, noise_mel)
    language, probability = backend.detect_language(backend.encode(noise_mel))
    assert probability == pytest.approx(max(expected.values()))
    assert expected[language] == pytest.approx(probability)


# Decoding


@pytest.mark.weights
@pytest.mark.parametrize("beam_size", [1, 5])
def test_a_decode_is_the_one_that_whisper_gives(
    tiny_en: TorchBackend, tiny_en_model: Whisper, jfk: Samples, beam_size: int
) -> None:
    mel = mel_of(jfk, 80)
    beam = beam_size if beam_size > 1 else None
    expected = whisper_decode(tiny_en_model, mel, beam_size=beam)
    assert_same_decode(generate(tiny_en, mel, beam_size=beam_size), expected)


@pytest.mark.weights
def test_context_stands_before_the_decode_as_in_whisper(
    tiny_en: TorchBackend, tiny_en_model: Whisper, jfk: Samples
) -> None:
    mel, context = mel_of(jfk, 80), "An inaugural address, with commas, was given."
    expected = whisper_decode(tiny_en_model, mel, prompt=context)
    decoded = generate(tiny_en, mel, context=context)
    assert_same_decode(decoded, expected)
    assert decoded.tokens != generate(tiny_en, mel).tokens


def whisper_decode(model: Whisper, mel: torch.Tensor, **options: object) -> DecodingResult:
    return whisper.decode(model, mel, DecodingOptions(language="en", fp16=False, **options))


def assert_same_decode(decoded: Candidate, expected: Candidate | DecodingResult) -> None:
    assert list(decoded.tokens) == list(expected.tokens)
    assert decoded.text == expected.text
    assert decoded.avg_logprob == pytest.approx(expected.avg_logprob, rel=1e-4)
    assert decoded.no_speech_prob == pytest.approx(expected.no_speech_prob, rel=1e-3)
    assert decoded.temperature == expected.temperature


@pytest.mark.parametrize(("temperature", "beam_size"), [(0.0, 1), (0.0, 3), (0.8, 1)])
def test_a_decode_begins_with_the_forced_prefix(
    noise: TorchBackend, noise_mel: torch.Tensor, temperature: float, beam_size: int
) -> None:
    prefix = prompt_for(noise, prefix="What is known").prefix
    decoded = generate(
        noise,
        noise_mel,
        context="Before it.",
        prefix="What is known",
        temperature=temperature,
        beam_size=beam_size,
    )
    assert decoded.tokens[: len(prefix)] == prefix
    assert len(decoded.tokens) > len(prefix)
    assert decoded.text.startswith("What is known")


@pytest.mark.weights
def test_a_prefix_that_whisper_would_write_itself_changes_nothing(
    tiny_en: TorchBackend, jfk: Samples
) -> None:
    mel = mel_of(jfk, 80)
    free = generate(tiny_en, mel)
    forced = generate(tiny_en, mel, prefix="And so my fellow")
    assert free.text.startswith("And so my fellow")
    assert forced.tokens == free.tokens
    assert forced.text == free.text


@pytest.mark.weights
def test_both_backends_treat_a_prefix_alike(
    tiny_en: TorchBackend, tiny_ctranslate2: Path, jfk: Samples
) -> None:
    other = CTranslate2Backend(
        tiny_ctranslate2,
        name="tiny.en",
        device="cpu",
        compute_type="float32",
        workers=1,
        threads_per_worker=1,
    )
    tokenizer = tokenizer_of(tiny_en)
    task = DecodeTask(jfk, prefix="And so, my")
    mel, prompt = mel_of(jfk, 80), build_prompt(task, tokenizer)
    expected = other.generate(other.encode(mel), prompt, tokenizer, 0.0, 1)
    decoded = tiny_en.generate(tiny_en.encode(mel), prompt, tokenizer, 0.0, 1)
    assert decoded.tokens[: len(prompt.prefix)] == prompt.prefix
    assert decoded.tokens == expected.tokens
    assert decoded.text == expected.text
    assert decoded.avg_logprob == pytest.approx(expected.avg_logprob, rel=1e-2)


@pytest.mark.parametrize("context", ["", "before " * 300])
def test_context_prefix_and_decode_fit_in_the_text_context(
    noise_mel: torch.Tensor, context: str
) -> None:
    whole = backend_of(noise_of(replace(SMALL, n_text_ctx=448)))
    tokenizer = tokenizer_of(whole)
    decoded = generate(whole, noise_mel, context=context, prefix="within " * 300)
    assert len(prompt_for(whole, prefix="within " * 300).prefix) == 1 + MAX_PREFIX_TOKENS
    assert 112 < len(decoded.tokens) <= 224
    text = [token for token in decoded.tokens if token < tokenizer.eot]
    aligned = whole.align(whole.encode(noise_mel), tokenizer, text, 3000)
    assert len(aligned.probabilities) == len(text)


# Sampling


def test_a_sampled_decode_can_be_repeated_whatever_is_drawn_elsewhere(
    noise: TorchBackend, noise_mel: torch.Tensor
) -> None:
    first = generate(noise, noise_mel, temperature=0.6)
    torch.manual_seed(3)
    torch.rand(5)
    generate(noise, noise_mel, temperature=1.0)
    assert_same_decode(generate(noise, noise_mel, temperature=0.6), first)
    assert first.tokens != generate(noise, noise_mel).tokens


def test_a_sampled_decode_draws_nothing_from_the_process(
    noise: TorchBackend, noise_mel: torch.Tensor
) -> None:
    before = torch.get_rng_state()
    generate(noise, noise_mel, temperature=0.6)
    assert torch.equal(torch.get_rng_state(), before)


def test_sampling_counts_a_sure_token_as_whisper_does_and_keeps_an_ended_row() -> None:
    eot, sure = 7, 3
    tokens = torch.tensor([[1, 2], [1, eot]])
    logits = torch.zeros(2, 10)
    logits[:, sure] = 90.0
    sums, expected_sums = torch.tensor([-1.0, -2.0]), torch.tensor([-1.0, -2.0])
    sampled, done = SeededSampling(0.5, eot, torch.device("cpu")).update(tokens, logits, sums)
    expected, _ = GreedyDecoder(0.0, eot).update(tokens, logits, expected_sums)
    assert sampled.tolist() == expected.tolist() == [[1, 2, sure], [1, eot, eot]]
    assert torch.equal(sums, expected_sums)
    assert not done
    assert SeededSampling(0.5, sure, torch.device("cpu")).update(tokens, logits, sums)[1]


# Alignment


@pytest.mark.weights
def test_the_alignment_is_the_one_that_whisper_finds(
    tiny_en: TorchBackend,
    tiny_en_model: Whisper,
    jfk: Samples,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("whisper.timing.dtw_cpu", compiled_dtw())
    mel, tokenizer, num_frames = mel_of(jfk, 80), tokenizer_of(tiny_en), len(jfk) // 160
    text = list(tokenizer.encode(" And so, my fellow Americans, ask not what your country can do"))
    expected = find_alignment(tiny_en_model, tokenizer, text, mel, num_frames)
    found = tiny_en.align(tiny_en.encode(mel), tokenizer, text, num_frames)
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


@pytest.mark.parametrize("num_frames", [2, 3, 4, 40])
def test_a_window_shorter_than_its_text_still_has_a_place_for_each_token(
    noise: TorchBackend, noise_mel: torch.Tensor, num_frames: int
) -> None:
    text = [50, 51, 52, 53, 54]
    found = noise.align(noise.encode(noise_mel), tokenizer_of(noise), text, num_frames)
    assert sorted(set(found.token_indices.tolist())) == [0, 1, 2, 3, 4, 5]
    assert set(found.frame_indices.tolist()) == set(range(num_frames // 2))


def test_a_failed_call_leaves_no_hooks_behind(
    noise_weights: Checkpoint, noise_mel: torch.Tensor
) -> None:
    model = load_model(noise_weights, "cpu", "auto")
    backend = TorchBackend(model, name="test", load_s=0.0)
    tokenizer, encoded = tokenizer_of(backend), backend.encode(noise_mel)
    before = backend.generate(encoded, prompt_for(backend), tokenizer, 0.0, 1)
    with pytest.raises(RuntimeError):
        backend.align(encoded, tokenizer, [50] * 500, 3000)
    with pytest.raises(RuntimeError):
        backend.generate(encoded[..., :-1], prompt_for(backend), tokenizer, 0.0, 1)
    assert hooks_on(model) == 0
    after = backend.generate(encoded, prompt_for(backend), tokenizer, 0.0, 1)
    assert_same_decode(after, before)


# Company


def test_threads_get_what_each_would_get_alone(noise: TorchBackend) -> None:
    def answer(seed: int) -> tuple[Candidate, list[int]]:
        mel = torch.randn(80, 3000, generator=torch.Generator().manual_seed(seed))
        decoded = generate(noise, mel, prefix="Known" * (seed % 2), temperature=0.5 * (seed % 3))
        encoded, tokenizer = noise.encode(mel), tokenizer_of(noise)
        noise.detect_language(encoded)
        return decoded, noise.align(encoded, tokenizer, [50, 51, 52], 600).frame_indices.tolist()

    alone = [answer(seed) for seed in range(4)]
    with ThreadPoolExecutor(2) as threads:
        together = list(threads.map(answer, range(4)))
    for (decoded, frames), (expected, expected_frames) in zip(together, alone, strict=True):
        assert_same_decode(decoded, expected)
        assert frames == expected_frames


@pytest.mark.weights
def test_a_window_is_transcribed_with_words_and_times(tiny_en: TorchBackend, jfk: Samples) -> None:
    heard = WindowDecoder(tiny_en).decode(DecodeTask(jfk))
    assert SPOKEN in heard.text.lower().replace(",", "")
    assert heard.language == "en"
    assert "".join(word.text for word in heard.words).strip() == heard.text
    assert all(0.0 <= word.start <= word.end <= 11.0 for word in heard.words)
    [country, _] = [word for word in heard.words if word.text.strip(" .,") == "country"]
    assert country.start == pytest.approx(6.0, abs=0.3)


# End


def test_a_closed_backend_lets_its_weights_go_and_says_so(
    noise_weights: Checkpoint, noise_mel: torch.Tensor
) -> None:
    model = load_model(noise_weights, "cpu", "auto")
    backend, alive = TorchBackend(model, name="test", load_s=0.0), weakref.ref(model)
    del model
    generate(backend, noise_mel)
    backend.close()
    backend.close()
    gc.collect()
    assert alive() is None
    with pytest.raises(EngineFailed):
        backend.encode(noise_mel)


def test_a_cpu_uses_no_gpu_memory(noise: TorchBackend) -> None:
    assert noise.gpu_memory_gib() == 0.0
