"""The next token of each row: the likeliest, a drawn one, or the likeliest few for a beam."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

# Tokens of one row with the logarithm of their probability, the likeliest first.
Ranked = list[tuple[int, float]]


class Wish(NamedTuple):
    """How a row's token is chosen: the `width` likeliest, or, at a `temperature` above 0, the
    one that `draw`, from [0, 1), points at."""

    width: int = 1
    temperature: float = 0.0
    draw: float = 0.0


def choose(logits: torch.Tensor, wishes: Sequence[Wish]) -> list[Ranked]:
    """One list for each row of `logits`, float32, shape (rows, vocab).

    The logarithms are those of the distribution without temperature, as in Whisper.
    """
    width = max(wish.width for wish in wishes)
    logprobs = logits.log_softmax(dim=-1)
    if width == 1:
        best, tokens = logprobs.max(dim=-1, keepdim=True)
    else:
        best, tokens = logprobs.topk(width, dim=-1)
    drawn = [row for row, wish in enumerate(wishes) if wish.temperature > 0]
    if drawn:
        chosen = draw(logits[drawn], [wishes[row] for row in drawn])
        tokens[drawn, 0] = chosen
        best[drawn, 0] = logprobs[drawn, chosen]
    pairs = zip(tokens.tolist(), best.tolist(), wishes, strict=True)
    return [list(zip(t, p, strict=True))[: wish.width] for t, p, wish in pairs]


def draw(logits: torch.Tensor, wishes: Sequence[Wish]) -> torch.Tensor:
    """One token a row, shape (rows,).

    The draw points into the sum of the probabilities, so one number decides, and it decides the
    same in any company.
    """
    pairs = [(wish.temperature, wish.draw) for wish in wishes]
    numbers = torch.tensor(pairs, dtype=torch.float64, device=logits.device)
    probabilities = (logits / numbers[:, :1]).softmax(dim=-1)
    sums = probabilities.cumsum(dim=-1)  # (rows, vocab)
    pointed = torch.searchsorted(sums, numbers[:, 1:] * sums[:, -1:], right=True)
    return pointed.clamp_(max=logits.shape[1] - 1).squeeze(1)
