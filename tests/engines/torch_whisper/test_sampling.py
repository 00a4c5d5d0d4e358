from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from whisper_serve.engines.torch_whisper.sampling import Wish, choose


def random_logits(rows: int, seed: int = 0) -> torch.Tensor:
    return 2 * torch.randn(rows, 300, generator=torch.Generator().manual_seed(seed))


def test_without_temperature_the_likeliest_token_is_taken() -> None:
    logits = random_logits(3)
    chosen = choose(logits, [Wish()] * 3)
    assert [token for [(token, _)] in chosen] == logits.argmax(dim=-1).tolist()
    logprobs = logits.log_softmax(dim=-1).amax(dim=-1).tolist()
    assert [logprob for [(_, logprob)] in chosen] == pytest.approx(logprobs)


def test_a_beam_gets_its_likeliest_tokens_in_order() -> None:
    logits = random_logits(2)
    first, beam = choose(logits, [Wish(), Wish(width=4)])
    best, tokens = logits[1].log_softmax(dim=-1).topk(4)
    assert len(first) == 1
    assert [token for token, _ in beam] == tokens.tolist()
    assert [logprob for _, logprob in beam] == pytest.approx(best.tolist())


def test_drawn_tokens_are_as_frequent_as_they_are_probable() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0, float("-inf")]])
    draws = np.random.default_rng(1).random(4_000)
    wishes = [Wish(1, 0.7, draw) for draw in draws]
    chosen = choose(logits.expand(len(wishes), -1), wishes)
    frequency = np.bincount([token for [(token, _)] in chosen], minlength=4) / len(wishes)
    assert frequency == pytest.approx((logits[0] / 0.7).softmax(dim=-1).tolist(), abs=0.03)


def test_what_is_drawn_counts_as_without_temperature() -> None:
    logits = random_logits(1)
    [[(token, logprob)]] = choose(logits, [Wish(1, 2.0, 0.5)])
    assert logprob == pytest.approx(logits.log_softmax(dim=-1)[0, token].item())


@pytest.mark.parametrize("draw", [0.0, 0.5, 1 - 2**-53])
def test_a_suppressed_token_is_never_drawn(draw: float) -> None:
    logits = torch.full((1, 300), float("-inf"))
    logits[0, [7, 200]] = 0.0
    [[(token, logprob)]] = choose(logits, [Wish(1, 1.0, draw)])
    assert token in {7, 200}
    assert logprob == pytest.approx(np.log(0.5))


@given(
    draws=st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=5),
    row=st.integers(0, 4),
)
def test_a_row_draws_the_same_in_any_company(draws: list[float], row: int) -> None:
    wishes = [Wish(1, 0.4, draw) for draw in draws]
    logits = random_logits(len(draws))
    row %= len(draws)
    [alone] = choose(logits[row : row + 1], [wishes[row]])
    together = choose(torch.cat([logits, logits]), [*wishes, *[Wish(3)] * len(draws)])
    assert together[row][0][0] == alone[0][0]
