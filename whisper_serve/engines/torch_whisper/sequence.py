"""One decode on its way: what it has said so far, and when it is done.

A sequence has one row, or a group of rows that begin alike: the samples of which the likeliest
is taken, or the beams of a search. No tensors here; a row's slot says where its keys and values
are.
Source: `GreedyDecoder`, `BeamSearchDecoder` and `MaximumLikelihoodRanker` in
`whisper/decoding.py` of openai-whisper.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import nan

import numpy as np

from whisper_serve.engines.fallback import Candidate
from whisper_serve.engines.steps import Generate
from whisper_serve.engines.torch_whisper.sampling import Ranked, Wish
from whisper_serve.errors import EngineFailed

SEED = 0


@dataclass(eq=False, slots=True)
class Row:
    """`tokens`: what was said behind the start sequence, the forced prefix included.
    `slot`: its place in the cache, None before it is admitted and after it has ended."""

    tokens: list[int]
    sum_logprob: float = 0.0
    slot: int | None = None
    ended: bool = False


class TokenSequence(ABC):
    """All rows are admitted together. `advance` is told what each live row may say next."""

    def __init__(self, step: Generate, n_text_ctx: int, rows: int) -> None:
        """Raises `EngineFailed` when the prompt leaves no room in the text context."""
        self.step = step
        self.prompt = step.prompt.tokens(step.tokenizer)
        self.no_speech_prob = nan
        n_prefix = len(step.prompt.prefix)
        self._begin = len(self.prompt) - n_prefix
        if len(self.prompt) > n_text_ctx:
            raise EngineFailed(f"a prompt of {len(self.prompt)} tokens is too long")
        # The last token is said and not read, so it needs no position. One is always said.
        room = min(step.max_tokens, n_text_ctx // 2, n_text_ctx + 1 - self._begin)
        self._max_tokens = max(room, n_prefix + 1)
        self.rows = [Row(list(step.prompt.prefix)) for _ in range(rows)]

    @property
    def live(self) -> list[Row]:
        return [row for row in self.rows if not row.ended]

    @property
    def done(self) -> bool:
        return all(row.ended for row in self.rows)

    @property
    def start_index(self) -> int:
        """Where <|startoftranscript|> stands in the prompt."""
        return self._begin - len(self.step.prompt.start)

    def position(self, row: Row) -> int:
        """Where the row's last token stands."""
        return self._begin + len(row.tokens) - 1

    @abstractmethod
    def wishes(self) -> list[Wish]:
        """How the next token of each live row is to be chosen."""

    @abstractmethod
    def advance(self, ranked: Sequence[Ranked]) -> list[int]:
        """Let the live rows say their next token. The answer tells for each of them which one it
        goes on from."""

    @abstractmethod
    def candidate(self) -> Candidate:
        """The outcome, once it is done."""

    def _outcome(self, tokens: Sequence[int], sum_logprob: float) -> Candidate:
        return Candidate(
            tokens=tuple(tokens),
            text=self.step.tokenizer.decode(list(tokens)).strip(),
            avg_logprob=sum_logprob / (len(tokens) + 1),
            no_speech_prob=self.no_speech_prob,
            temperature=self.step.temperature,
        )


class Samples(TokenSequence):
    """Rows that go on and end independently of each other. At temperature 0 there is one, which
    takes the likeliest token; above, the draws of each are settled from the start, so that it
    says the same in any company."""

    def __init__(self, step: Generate, n_text_ctx: int, max_rows: int) -> None:
        drawing = step.temperature > 0
        super().__init__(step, n_text_ctx, min(step.best_of, max_rows) if drawing else 1)
        self._draws = np.random.default_rng(SEED).random((len(self.rows), self._max_tokens))

    def wishes(self) -> list[Wish]:
        temperature = self.step.temperature
        if temperature == 0:
            return [Wish()]
        pairs = zip(self.rows, self._draws, strict=True)
        return [
            Wish(1, temperature, draws[len(row.tokens)]) for row, draws in pairs if not row.ended
        ]

    def advance(self, ranked: Sequence[Ranked]) -> list[int]:
        live = self.live
        for row, [(token, logprob), *_] in zip(live, ranked, strict=True):
            row.sum_logprob += logprob
            if token == self.step.tokenizer.eot:
                row.ended = True
            else:
                row.tokens.append(token)
                row.ended = len(row.tokens) >= self._max_tokens
        return list(range(len(live)))

    def candidate(self) -> Candidate:
        best = max(self.rows, key=lambda row: likelihood(row.tokens, row.sum_logprob))
        return self._outcome(best.tokens, best.sum_logprob)


class Beams(TokenSequence):
    """A beam search: the rows are the likeliest beginnings so far. It is done when as many
    texts have ended as there are beams."""

    def __init__(self, step: Generate, n_text_ctx: int, max_rows: int) -> None:
        super().__init__(step, n_text_ctx, min(step.beam_size, max_rows))
        self._finished: dict[tuple[int, ...], float] = {}

    def wishes(self) -> list[Wish]:
        return [Wish(len(self.rows) + 1)] * len(self.rows)

    def advance(self, ranked: Sequence[Ranked]) -> list[int]:
        scores, sources = self._continued(ranked)
        going_on, ending = self._best(scores)
        for row, tokens in zip(self.rows, going_on, strict=True):
            row.tokens, row.sum_logprob = list(tokens), scores[tokens]
        for tokens in ending[: len(self.rows) - len(self._finished)]:
            self._finished[tokens] = scores[(*tokens, self.step.tokenizer.eot)]
        self._end_when_done()
        return [sources[tokens] for tokens in going_on]

    def candidate(self) -> Candidate:
        tokens = max(self._finished, key=lambda text: likelihood(text, self._finished[text]))
        return self._outcome(tokens, self._finished[tokens])

    def _continued(
        self, ranked: Sequence[Ranked]
    ) -> tuple[dict[tuple[int, ...], float], dict[tuple[int, ...], int]]:
        """What each row could say next: the sums of the logarithms, and the row it comes from.
        Rows that say the same, as at the start, count once."""
        scores: dict[tuple[int, ...], float] = {}
        sources: dict[tuple[int, ...], int] = {}
        for index, (row, choices) in enumerate(zip(self.rows, ranked, strict=True)):
            for token, logprob in choices:
                tokens = (*row.tokens, token)
                # Rounded as by Whisper, which decides between equals.
                scores[tokens] = float(np.float32(row.sum_logprob) + np.float32(logprob))
                sources[tokens] = index
        return scores, sources

    def _best(
        self, scores: dict[tuple[int, ...], float]
    ) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
        """The likeliest texts that go on, as many as there are rows, and those likelier than
        the last of them that end, without their end."""
        going_on: list[tuple[int, ...]] = []
        ending: list[tuple[int, ...]] = []
        for tokens in sorted(scores, key=scores.__getitem__, reverse=True):
            if tokens[-1] == self.step.tokenizer.eot:
                ending.append(tokens[:-1])
            else:
                going_on.append(tokens)
                if len(going_on) == len(self.rows):
                    break
        return going_on, ending

    def _end_when_done(self) -> None:
        at_limit = len(self.rows[0].tokens) >= self._max_tokens
        if len(self._finished) < len(self.rows) and not at_limit:
            return
        for row in sorted(self.rows, key=lambda row: row.sum_logprob, reverse=True):
            row.ended = True
            if len(self._finished) < len(self.rows):
                self._finished[tuple(row.tokens)] = row.sum_logprob


def likelihood(tokens: Sequence[int], sum_logprob: float) -> float:
    """How samples and beams are ranked: the mean over the tokens without the end of text."""
    return sum_logprob / max(1, len(tokens))


def sequence_of(step: Generate, n_text_ctx: int, max_rows: int) -> TokenSequence:
    """With fewer slots than the step asks rows for, it gets `max_rows`: a narrower search is
    better than none. Raises `EngineFailed`."""
    searching = step.temperature == 0 and min(step.beam_size, max_rows) > 1
    return (Beams if searching else Samples)(step, n_text_ctx, max_rows)
