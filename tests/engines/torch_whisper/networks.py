"""Networks for the tests, and openai-whisper's own loop to compare with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from whisper.decoding import DecodingOptions, DecodingTask
from whisper.model import ModelDimensions, Whisper

from whisper_serve.engines.base import DecodeTask, Samples
from whisper_serve.engines.checkpoints import Checkpoint
from whisper_serve.engines.fallback import Candidate
from whisper_serve.engines.prompt import build_prompt, suppressed_tokens
from whisper_serve.engines.steps import Generate
from whisper_serve.engines.torch_whisper.batch import Batch
from whisper_serve.engines.torch_whisper.model import load_model
from whisper_serve.engines.torch_whisper.model_runner import ModelRunner
from whisper_serve.engines.torch_whisper.network import EncodedAudio

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


@contextmanager
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


def noise_of(dims: ModelDimensions) -> Checkpoint:
    """A multilingual network that has learnt nothing: small, and never silent."""
    random = torch.Generator().manual_seed(1)
    tensors = {
        name: 0.3 * torch.randn(tensor.shape, generator=random)
        for name, tensor in Whisper(dims).state_dict().items()
    }
    return Checkpoint(dims, tensors, NOISE_HEADS)


def noise_model(dims: ModelDimensions = SMALL, compute_type: str = "auto") -> Whisper:
    return load_model(noise_of(dims), "cpu", compute_type)


def sound(seed: int, samples: int = 480_000) -> Samples:
    random = np.random.default_rng(seed)
    return random.integers(-9_000, 9_000, samples).astype(np.int16)


def generate(
    runner: ModelRunner,
    encoded: EncodedAudio,
    *,
    context: str = "",
    prefix: str = "",
    language: str = "en",
    temperature: float = 0.0,
    beam_size: int = 1,
    best_of: int = 1,
    max_tokens: int = 224,
    suppressed: tuple[int, ...] | None = None,
) -> Generate:
    tokenizer = runner.shape.tokenizer(language, "transcribe")
    task = DecodeTask(np.zeros(1, np.int16), context=context, prefix=prefix)
    if suppressed is None:
        suppressed = tuple(suppressed_tokens(tokenizer, (-1,)))
    return Generate(
        encoded,
        build_prompt(task, tokenizer),
        tokenizer,
        temperature,
        beam_size,
        best_of,
        suppressed,
        max_tokens,
    )


def decoded(
    runner: ModelRunner,
    steps: Sequence[Generate],
    arrivals: Iterable[int] = (),
    *,
    limit: int = 8,
) -> list[Candidate]:
    """The outcomes of `steps`, in their order. `arrivals`: how many steps the batch makes before
    each next one is added; what is missing is 0."""
    batch: Batch[int] = Batch(runner)
    outcomes: dict[int, Candidate | Exception] = {}
    pauses = [*arrivals, *[0] * len(steps)]
    with torch.inference_mode():
        for number, step in enumerate(steps):
            for _ in range(pauses[number]):
                outcomes |= batch.admit(limit, 100_000) | batch.step()
            batch.add(number, step)
        while len(outcomes) < len(steps):
            outcomes |= batch.admit(limit, 100_000) | batch.step()
    assert batch.free == batch.slots
    return [succeeded(outcomes[number]) for number in range(len(steps))]


def succeeded(outcome: Candidate | Exception) -> Candidate:
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def reference(model: Whisper, step: Generate) -> Candidate:
    """What openai-whisper makes of a whole window by itself, at temperature 0."""
    [result] = PromptedDecoding(model, step).run(step.encoded.features[None])
    return Candidate(
        tuple(result.tokens), result.text, result.avg_logprob, result.no_speech_prob, 0.0
    )


class PromptedDecoding(DecodingTask):  # type: ignore[misc]  # whisper has no types
    """openai-whisper's decoding loop, told exactly which tokens stand before the decode. The
    forced prefix counts as decoded."""

    def __init__(self, model: Whisper, step: Generate) -> None:
        self._prompt_tokens = tuple(step.prompt.tokens(step.tokenizer))
        n_forced = len(step.prompt.prefix)
        options = DecodingOptions(
            language=step.tokenizer.language or "en",
            fp16=False,
            sample_len=min(step.max_tokens, model.dims.n_text_ctx // 2) - n_forced,
            beam_size=step.beam_size if step.beam_size > 1 else None,
            suppress_tokens=list(step.suppressed),
        )
        super().__init__(model, options)
        self.sample_begin = len(self._prompt_tokens) - n_forced
        for rule in self.logit_filters:
            if hasattr(rule, "sample_begin"):
                rule.sample_begin = self.sample_begin

    def _get_initial_tokens(self) -> tuple[int, ...]:
        return self._prompt_tokens


def same(outcome: Candidate, expected: Candidate) -> bool:
    """The same decode, but for what the order of additions changes."""
    assert outcome.tokens == expected.tokens
    assert outcome.avg_logprob == pytest.approx(expected.avg_logprob, abs=1e-3)
    assert outcome.no_speech_prob == pytest.approx(expected.no_speech_prob, abs=1e-3)
    return replace(outcome, avg_logprob=0, no_speech_prob=0) == replace(
        expected, avg_logprob=0, no_speech_prob=0
    )
