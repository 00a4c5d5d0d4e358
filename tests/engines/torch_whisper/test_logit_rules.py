from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from whisper.decoding import ApplyTimestampRules, SuppressBlank, SuppressTokens
from whisper.tokenizer import Tokenizer, get_tokenizer

from whisper_serve.engines.prompt import suppressed_tokens
from whisper_serve.engines.torch_whisper.logit_rules import LogitRules

TOKENIZERS = {
    51_864: get_tokenizer(multilingual=False),
    51_865: get_tokenizer(multilingual=True, num_languages=99),
    51_866: get_tokenizer(multilingual=True, num_languages=100),
}
BEGUN = [50_258, 50_259, 50_359]  # what stands before counts for nothing


def filtered(
    logits: torch.Tensor, said: Sequence[int], suppressed: tuple[int, ...], tokenizer: Tokenizer
) -> torch.Tensor:
    """One row, shape (vocab,), through openai-whisper's filters."""
    row = logits.clone()[None]
    tokens = torch.tensor([[*BEGUN, *said]])
    SuppressBlank(tokenizer, len(BEGUN)).apply(row, tokens)
    SuppressTokens(suppressed).apply(row, tokens)
    ApplyTimestampRules(tokenizer, len(BEGUN), 50).apply(row, tokens)
    return row[0]


def random_logits(seed: int, rows: int, n_vocab: int) -> torch.Tensor:
    """Rows in which timestamps are sometimes likelier than text, and sometimes nearly so."""
    random = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(rows, n_vocab, generator=random)
    logits[:, -1501:] += 6 * torch.randn(rows, 1, generator=random)
    return logits


@st.composite
def histories(draw: st.DrawFn) -> list[int]:
    """Text and timestamps as numbers, below 0 the latter; those go back too, now and then."""
    return draw(st.lists(st.integers(-1501, 900), max_size=6))


def tokens_of(history: Sequence[int], tokenizer: Tokenizer) -> list[int]:
    first = tokenizer.timestamp_begin
    return [first - 1 - number if number < 0 else number for number in history]


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**20),
    n_vocab=st.sampled_from(sorted(TOKENIZERS)),
    said=st.lists(histories(), min_size=1, max_size=6),
    data=st.data(),
)
def test_each_row_may_say_what_openai_whisper_lets_it_say(
    seed: int, n_vocab: int, said: list[list[int]], data: st.DataObject
) -> None:
    tokenizer = TOKENIZERS[n_vocab]
    usual = tuple(suppressed_tokens(tokenizer, (-1,)))
    sets = st.sampled_from([usual, (), (11, 13, 300)])
    suppressed = [data.draw(sets) for _ in said]
    tokens = [tokens_of(history, tokenizer) for history in said]
    logits = random_logits(seed, len(said), n_vocab)
    expected = [
        filtered(row, each, theirs, tokenizer)
        for row, each, theirs in zip(logits, tokens, suppressed, strict=True)
    ]
    LogitRules(tokenizer, n_vocab, 1500).apply(logits, tokens, suppressed)
    assert torch.equal(logits, torch.stack(expected))


@pytest.mark.parametrize("probable", [True, False])
def test_timestamps_are_preferred_when_together_they_are_likelier(probable: bool) -> None:
    tokenizer = TOKENIZERS[51_865]
    logits = torch.full((1, 51_865), -30.0)
    logits[0, 400] = 5.0
    # A thousand of them sum up to 6.9 more than one.
    logits[0, tokenizer.timestamp_begin + 100 : tokenizer.timestamp_begin + 1100] = (
        -1.0 if probable else -3.0
    )
    LogitRules(tokenizer, 51_865, 1500).apply(logits, [[400]], [()])
    assert torch.isinf(logits[0, 400]).item() is probable
    assert torch.isfinite(logits[0, tokenizer.timestamp_begin + 500])


def test_a_row_is_bound_in_any_company_as_alone() -> None:
    tokenizer = TOKENIZERS[51_865]
    rules = LogitRules(tokenizer, 51_865, 1500)
    said = [[], [tokenizer.timestamp_begin], [tokenizer.timestamp_begin, 400], [400, 401]]
    logits = random_logits(3, len(said), 51_865)
    together = logits.clone()
    rules.apply(together, said, [(7,), (), (7,), (8, 9)])
    for row, (tokens, suppressed) in enumerate(zip(said, [(7,), (), (7,), (8, 9)], strict=True)):
        alone = logits[row : row + 1].clone()
        rules.apply(alone, [tokens], [suppressed])
        assert torch.equal(together[row], alone[0])
