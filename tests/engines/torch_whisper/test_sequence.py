from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from whisper.decoding import BeamSearchDecoder, GreedyDecoder, MaximumLikelihoodRanker

from whisper_serve.engines.fallback import Candidate
from whisper_serve.engines.prompt import Prompt
from whisper_serve.engines.steps import Generate
from whisper_serve.engines.torch_whisper.sampling import Ranked, choose
from whisper_serve.engines.torch_whisper.sequence import TokenSequence, sequence_of
from whisper_serve.errors import EngineFailed

# openai-whisper's beam search hands torch tensors to NumPy.
pytestmark = pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")

VOCAB, EOT = 12, 9
N_TEXT_CTX = 40
START = (10, 11)


@dataclass(frozen=True)
class Letters:
    """A tokenizer of twelve tokens."""

    eot: int = EOT
    sot_prev: int = 8

    def decode(self, tokens: Sequence[int]) -> str:
        return " " + "".join(chr(97 + token) for token in tokens)


STEP = Generate(
    encoded=None,
    prompt=Prompt(previous=(), start=START, prefix=()),
    tokenizer=Letters(),
    temperature=0.0,
    beam_size=1,
    best_of=1,
    suppressed=(),
    max_tokens=20,
)


class Speaker:
    """Says what comes behind a text: always the same, without a network."""

    def __init__(self, seed: int, eagerness: float = 0.0) -> None:
        """`eagerness` to end."""
        self._seed = seed
        self._eagerness = eagerness

    def logits(self, texts: Sequence[Sequence[int]]) -> torch.Tensor:
        """Shape (texts, VOCAB)."""
        rows = [np.random.default_rng([self._seed, *text]).normal(size=VOCAB) for text in texts]
        logits = torch.tensor(np.array(rows), dtype=torch.float32) * 2
        logits[:, EOT] += self._eagerness
        return logits

    def rearrange_kv_cache(self, sources: Sequence[int]) -> None:
        """There is none."""


def run(sequence: TokenSequence, speaker: Speaker) -> Candidate:
    begin = len(sequence.prompt) - len(sequence.step.prompt.prefix)
    while not sequence.done:
        live = sequence.live
        before = [list(row.tokens) for row in live]
        logits = speaker.logits([[*sequence.prompt[:begin], *row.tokens] for row in live])
        sources = sequence.advance(choose(logits, sequence.wishes()))
        for row, source in zip(live, sources, strict=True):
            assert row.tokens[: len(before[source])] == before[source]
    return sequence.candidate()


def whispered(step: Generate, speaker: Speaker) -> tuple[list[int], float]:
    """Tokens and mean logarithm of openai-whisper's own decoders, run as in `_main_loop`."""
    rows = max(step.beam_size, 1)
    decoder: Any = GreedyDecoder(0.0, EOT)
    if step.beam_size > 1:
        decoder = BeamSearchDecoder(step.beam_size, EOT, speaker)
    tokens = torch.tensor([step.prompt.tokens(step.tokenizer)] * rows)
    begin = tokens.shape[1] - len(step.prompt.prefix)
    sums = torch.zeros(rows)
    for _ in range(step.max_tokens - len(step.prompt.prefix)):
        logits = speaker.logits([row.tolist() for row in tokens])
        tokens, completed = decoder.update(tokens, logits, sums)
        if completed or tokens.shape[1] > N_TEXT_CTX:
            break
    groups, logprobs = decoder.finalize(tokens[None], sums[None])
    texts = [[t[begin : (t == EOT).nonzero()[0, 0]] for t in group] for group in groups]
    [best] = MaximumLikelihoodRanker(None).rank(texts, logprobs)
    text = texts[0][best].tolist()
    return text, logprobs[0][best] / (len(text) + 1)


@settings(max_examples=150)
@given(
    seed=st.integers(0, 10_000),
    eagerness=st.floats(-4, 4),
    beam_size=st.integers(1, 5),
    prefix=st.lists(st.integers(0, 7), min_size=1, max_size=4),
    context=st.lists(st.integers(0, 7), max_size=30),
    max_tokens=st.integers(5, 20),
)
def test_a_decode_is_the_one_of_openai_whisper(
    *,
    seed: int,
    eagerness: float,
    beam_size: int,
    prefix: list[int],
    context: list[int],
    max_tokens: int,
) -> None:
    prompt = Prompt(tuple(context), START, tuple(prefix))
    step = replace(STEP, prompt=prompt, beam_size=beam_size, max_tokens=max_tokens)
    speaker = Speaker(seed, eagerness)
    candidate = run(sequence_of(step, N_TEXT_CTX, 8), speaker)
    tokens, avg_logprob = whispered(step, speaker)
    assert list(candidate.tokens) == tokens
    assert candidate.avg_logprob == pytest.approx(avg_logprob, abs=1e-5)
    assert candidate.text == "".join(chr(97 + token) for token in tokens)
    assert candidate.temperature == 0.0


def test_a_decode_begins_with_its_forced_prefix_and_says_one_token_more_at_least() -> None:
    step = replace(STEP, prompt=Prompt((), START, (1, 2, 3)), max_tokens=1)
    candidate = run(sequence_of(step, N_TEXT_CTX, 1), Speaker(0, eagerness=-50))
    assert candidate.tokens[:3] == (1, 2, 3)
    assert len(candidate.tokens) == 4


def test_a_decode_ends_where_the_text_context_ends() -> None:
    step = replace(STEP, prompt=Prompt((1,) * 35, START, ()), max_tokens=50)
    sequence = sequence_of(step, N_TEXT_CTX, 1)
    [row] = sequence.rows
    read = []
    while not sequence.done:
        read.append(sequence.position(row))
        sequence.advance(choose(Speaker(0, -50).logits([row.tokens]), sequence.wishes()))
    # The last token is said, but never read.
    assert read == [37, 38, 39]
    assert len(row.tokens) == 3


def test_half_of_the_text_context_is_the_most_that_is_said() -> None:
    step = replace(STEP, max_tokens=1_000)
    assert len(run(sequence_of(step, N_TEXT_CTX, 1), Speaker(0, -50)).tokens) == 20


def test_a_prompt_that_is_too_long_is_refused() -> None:
    with pytest.raises(EngineFailed) as refused:
        sequence_of(replace(STEP, prompt=Prompt((1,) * 40, START, ())), N_TEXT_CTX, 1)
    assert "43" in refused.value.detail


def test_the_start_of_the_transcript_is_found_behind_the_context() -> None:
    step = replace(STEP, prompt=Prompt((1, 2), START, (3,)))
    sequence = sequence_of(step, N_TEXT_CTX, 1)
    assert sequence.prompt[sequence.start_index] == START[0]


# Samples


def drawn(seed: int = 0, **changes: Any) -> TokenSequence:
    sequence = sequence_of(replace(STEP, temperature=0.8, **changes), N_TEXT_CTX, 8)
    sequence.no_speech_prob = 0.25
    return sequence


def test_of_several_samples_the_likeliest_is_taken() -> None:
    speaker, sequence = Speaker(3), drawn(best_of=4)
    candidate = run(sequence, speaker)
    scores = [row.sum_logprob / max(1, len(row.tokens)) for row in sequence.rows]
    best = sequence.rows[int(np.argmax(scores))]
    assert len({tuple(row.tokens) for row in sequence.rows}) > 1
    assert candidate.tokens == tuple(best.tokens)
    assert candidate.avg_logprob == best.sum_logprob / (len(best.tokens) + 1)
    assert (candidate.temperature, candidate.no_speech_prob) == (0.8, 0.25)


def test_a_sample_that_has_ended_leaves_the_others_alone() -> None:
    sequence = drawn(best_of=3)
    ends: list[Ranked] = [[(EOT, -0.5)], [(1, -0.25)], [(2, -0.25)]]
    assert sequence.advance(ends) == [0, 1, 2]
    assert [row.ended for row in sequence.rows] == [True, False, False]
    assert len(sequence.wishes()) == 2
    assert sequence.advance([[(3, -0.25)], [(EOT, -1.0)]]) == [0, 1]
    assert [row.tokens for row in sequence.rows] == [[], [1, 3], [2]]


def test_samples_can_be_drawn_again_and_come_out_alike() -> None:
    assert run(drawn(best_of=3), Speaker(1)) == run(drawn(best_of=3), Speaker(1))


def test_every_token_of_every_sample_has_a_draw_of_its_own() -> None:
    sequence, draws = drawn(best_of=3), set()
    for _ in range(4):
        draws |= {wish.draw for wish in sequence.wishes()}
        sequence.advance([[(1, -0.5)]] * 3)
    assert len(draws) == 12
    assert all(0 <= draw < 1 for draw in draws)


def test_asking_twice_for_a_token_draws_the_same() -> None:
    sequence = drawn(best_of=3)
    assert sequence.wishes() == sequence.wishes()


# Few slots


@pytest.mark.parametrize(("temperature", "rows"), [(0.0, 2), (0.5, 2)])
def test_a_group_is_no_larger_than_all_slots(temperature: float, rows: int) -> None:
    step = replace(STEP, temperature=temperature, beam_size=5, best_of=5)
    assert len(sequence_of(step, N_TEXT_CTX, 2).rows) == rows


def test_with_one_slot_a_beam_search_is_greedy() -> None:
    narrow = run(sequence_of(replace(STEP, beam_size=5), N_TEXT_CTX, 1), Speaker(4))
    assert narrow == run(sequence_of(STEP, N_TEXT_CTX, 1), Speaker(4))
