"""What each row may say next: openai-whisper's three filters, for rows of unlike state at once.

Source: `SuppressBlank`, `SuppressTokens` and `ApplyTimestampRules` in `whisper/decoding.py` of
openai-whisper.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from whisper.tokenizer import Tokenizer

# The first timestamp of a window lies within its first second.
MAX_INITIAL_TIMESTAMP_S = 1.0
WINDOW_S = 30.0
# How many sets of suppressed tokens are remembered; nearly all tasks have the same.
REMEMBERED = 64


class Bounds(NamedTuple):
    """A row may say the text tokens from `first_text` on, the end of text included, and the
    timestamps from `first_timestamp` to the one before `behind`."""

    first_text: int
    first_timestamp: int
    behind: int


class LogitRules:
    """The rules of one model; `apply` is the same for a row in any company."""

    def __init__(self, tokenizer: Tokenizer, n_vocab: int, n_audio_ctx: int) -> None:
        """`tokenizer`: any of the model's, they differ in language and task only."""
        self._eot = tokenizer.eot
        self._no_timestamps = tokenizer.no_timestamps
        self._timestamps = tokenizer.timestamp_begin
        self._n_vocab = n_vocab
        self._max_initial = round(MAX_INITIAL_TIMESTAMP_S / (WINDOW_S / n_audio_ctx))
        self._suppressed = lru_cache(maxsize=REMEMBERED)(self._suppressed_tensor)

    def apply(
        self,
        logits: torch.Tensor,
        said: Sequence[Sequence[int]],
        suppressed: Sequence[tuple[int, ...]],
    ) -> None:
        """Set the `logits` of what may not be said to -inf; float32, shape (rows, vocab).

        `said`: what each row has said behind the start sequence, its forced prefix included;
        the blank and the end of text are suppressed where that is nothing. `suppressed`: the
        tokens that each row may never say.
        """
        self._suppress(logits, suppressed)
        bounds = [self.bounds(tokens) for tokens in said]
        self._bound(logits, bounds)
        self._prefer_timestamps(logits)

    def bounds(self, said: Sequence[int]) -> Bounds:
        """Timestamps come in pairs, except before the end of text, and never go back."""
        if not said:
            first = self._timestamps
            return Bounds(first, first, first + self._max_initial + 1)
        last = said[-1] >= self._timestamps
        penultimate = len(said) < 2 or said[-2] >= self._timestamps
        if last and penultimate:
            return Bounds(0, self._n_vocab, self._n_vocab)
        if last:
            return Bounds(self._eot, said[-1], self._n_vocab)
        latest = next((t for t in reversed(said) if t >= self._timestamps), self._timestamps - 1)
        # Behind text, so that no segment is without length.
        return Bounds(0, latest + 1, self._n_vocab)

    def _suppress(self, logits: torch.Tensor, suppressed: Sequence[tuple[int, ...]]) -> None:
        for tokens in set(suppressed):
            ids = self._suppressed(tokens, logits.device)
            rows = [row for row, theirs in enumerate(suppressed) if theirs == tokens]
            if len(rows) == len(suppressed):
                logits.index_fill_(1, ids, float("-inf"))
            else:
                logits[torch.tensor(rows, device=logits.device)[:, None], ids] = float("-inf")

    def _suppressed_tensor(self, tokens: tuple[int, ...], device: torch.device) -> torch.Tensor:
        return torch.tensor([*tokens, self._no_timestamps], device=device)

    def _bound(self, logits: torch.Tensor, bounds: Sequence[Bounds]) -> None:
        for first_text in {each.first_text for each in bounds} - {0}:
            rows = [row for row, each in enumerate(bounds) if each.first_text == first_text]
            logits[rows, :first_text] = float("-inf")
        timestamps = logits[:, self._timestamps :]  # (rows, 1501)
        limits = torch.tensor(bounds, device=logits.device)[:, :, None] - self._timestamps
        numbers = torch.arange(timestamps.shape[1], device=logits.device)
        outside = (numbers < limits[:, 1]) | (numbers >= limits[:, 2])
        timestamps.masked_fill_(outside, float("-inf"))

    def _prefer_timestamps(self, logits: torch.Tensor) -> None:
        """Where all timestamps together are likelier than any text token, only they may be
        said."""
        text, timestamps = logits[:, : self._timestamps], logits[:, self._timestamps :]
        preferred = timestamps.logsumexp(dim=-1) > text.amax(dim=-1)
        text[preferred] = float("-inf")
