"""The steps from a window's samples to its `Hypothesis`: the same whatever computes them.

`decode_window` is a generator. It asks for what has to be computed by yielding an `Encode`,
`DetectLanguage`, `Generate` or `Align`, is sent the answer, and returns the hypothesis. So an
engine may answer the steps of many windows at once, and each window keeps its own way: its
language, its prompt, its temperatures.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from whisper.audio import HOP_LENGTH
from whisper.tokenizer import Tokenizer

from whisper_serve.engines.base import DecodeTask, Samples
from whisper_serve.engines.fallback import Candidate, is_acceptable, is_silence, likeliest
from whisper_serve.engines.padding import WHOLE_FRAMES, Padding
from whisper_serve.engines.prompt import Prompt, build_prompt, suppressed_tokens
from whisper_serve.engines.shape import ModelShape
from whisper_serve.engines.spans import TokenSpan, split_at_timestamps
from whisper_serve.engines.word_times import Alignment, to_words, words_from_alignment
from whisper_serve.text.transcript import DecodeStats, Hypothesis, Segment, Word

# CTranslate2 cannot align within less.
MIN_ALIGNED_FRAMES = 4

# Half of Whisper's text context, behind the start sequence.
MAX_TOKENS = 224

# What an engine's encoder gave; only the engine that made it looks into it.
Encoded = Any


@dataclass(frozen=True, slots=True)
class Encode:
    """Answer with the encoder's output for `samples`, padded with silence to `frames` mel frames
    of 10 ms (an even number, at most 3,000)."""

    samples: Samples
    frames: int


@dataclass(frozen=True, slots=True)
class DetectLanguage:
    """Answer with the likeliest language code and its probability."""

    encoded: Encoded


@dataclass(frozen=True, slots=True)
class Generate:
    """Answer with the `Candidate` that follows `prompt`.

    At temperature 0 it is greedy or, with a `beam_size` above 1, of a beam search; above, it is
    the likeliest of `best_of` samples. `suppressed`: token ids that it may not hold.
    `max_tokens`: how many may follow the start sequence, the forced prefix included.
    """

    encoded: Encoded
    prompt: Prompt
    tokenizer: Tokenizer
    temperature: float
    beam_size: int
    best_of: int
    suppressed: tuple[int, ...]
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Align:
    """Answer with the `Alignment` of `text_tokens` (not empty) to the first `num_frames` mel
    frames, which hold the audio."""

    encoded: Encoded
    tokenizer: Tokenizer
    text_tokens: tuple[int, ...]
    num_frames: int


Step = Encode | DetectLanguage | Generate | Align
T = TypeVar("T")
Steps = Generator[Step, Any, T]


def decode_window(task: DecodeTask, shape: ModelShape, padding: Padding) -> Steps[Hypothesis]:
    """Raises `InvalidParameter` when the model cannot do what is asked.

    The window is decoded with short padding first, once. When the outcome is suspicious, and
    without short padding, it is padded to 30 s and Whisper's own rules hold.
    """
    began = time.monotonic()
    shape.check(task)
    frames = padding.frames(task)
    encoded = yield Encode(task.samples, frames)
    encoded_at = time.monotonic()
    language, probability = yield from _language(task, shape, encoded)
    decoding = Decoding(task, shape.tokenizer(language, task.task))
    candidate = None
    if frames < WHOLE_FRAMES:
        candidate = yield from decoding.once(encoded, padding)
        if candidate is None:
            encoded = yield Encode(task.samples, WHOLE_FRAMES)
    if candidate is None:
        candidate = yield from decoding.with_fallback(encoded)
    segments = yield from decoding.segments(encoded, candidate)
    stats = DecodeStats(
        encoded_s=encoded_at - began,
        decoded_s=time.monotonic() - encoded_at,
        fallbacks=decoding.decodes - 1,
        temperature=candidate.temperature,
    )
    return Hypothesis(segments, language, probability, stats)


def _language(task: DecodeTask, shape: ModelShape, encoded: Encoded) -> Steps[tuple[str, float]]:
    if not shape.multilingual:
        return "en", 1.0
    if task.language is not None:
        return task.language, 1.0
    found: tuple[str, float] = yield DetectLanguage(encoded)
    return found


class Decoding:
    """From encoded audio to segments, in the language of `tokenizer`; `decodes` counts how often
    it was tried."""

    def __init__(self, task: DecodeTask, tokenizer: Tokenizer) -> None:
        self.decodes = 0
        self._task = task
        self._tokenizer = tokenizer
        self._prompt = build_prompt(task, tokenizer)
        self._suppressed = suppressed_tokens(tokenizer, task.suppress_tokens)

    def once(self, encoded: Encoded, padding: Padding) -> Steps[Candidate | None]:
        """One decode; None when its outcome is suspicious."""
        spoken = padding.max_tokens(self._task.duration_s, self._tokenizer.language)
        max_tokens = min(MAX_TOKENS, len(self._prompt.prefix) + spoken)
        candidate = yield from self.generate(encoded, self._task.temperature.first, max_tokens)
        return None if padding.is_suspicious(candidate, max_tokens) else candidate

    def with_fallback(self, encoded: Encoded) -> Steps[Candidate]:
        """Try the task's temperatures until a candidate is accepted; without one, take the
        likeliest."""
        policy = self._task.temperature
        candidates: list[Candidate] = []
        for temperature in policy.temperatures:
            candidate = yield from self.generate(encoded, temperature, MAX_TOKENS)
            if is_acceptable(candidate, policy) or is_silence(candidate, policy):
                return candidate
            candidates.append(candidate)
        return likeliest(candidates, policy)

    def generate(self, encoded: Encoded, temperature: float, max_tokens: int) -> Steps[Candidate]:
        self.decodes += 1
        step = Generate(
            encoded,
            self._prompt,
            self._tokenizer,
            temperature,
            beam_size=self._task.beam_size if temperature == 0 else 1,
            best_of=self._task.best_of if temperature > 0 else 1,
            suppressed=self._suppressed,
            max_tokens=max_tokens,
        )
        candidate: Candidate = yield step
        if self._prompt.prefix and step.beam_size > 1 and self._adds_nothing(candidate):
            # Behind a prefix, beam search finds ending at once more likely than it is.
            candidate = yield replace(step, beam_size=1)
        return candidate

    def segments(self, encoded: Encoded, candidate: Candidate) -> Steps[tuple[Segment, ...]]:
        """The segments behind the forced prefix; none when the window is silence."""
        if is_silence(candidate, self._task.temperature):
            return ()
        known = self._prompt.known(self._tokenizer)
        spans = split_at_timestamps(candidate.tokens, self._tokenizer, self._task.duration_s)
        new_spans = _behind(spans, known)
        segments = [segment_of(span, candidate, self._tokenizer) for span in new_spans]
        if self._task.want_words and spans:
            owned = yield from self._words(encoded, spans, known)
            owned = owned[len(spans) - len(new_spans) :]
            # A span whose words all went to its neighbour is no segment any more.
            pairs = zip(segments, owned, strict=True)
            segments = [segment.with_words(words) for segment, words in pairs if words]
        return tuple(segment for segment in segments if segment.text.strip())

    def _words(
        self, encoded: Encoded, spans: Sequence[TokenSpan], known: int
    ) -> Steps[list[tuple[Word, ...]]]:
        """The words of each span that lie behind the first `known` tokens. A word that merging
        moved over a span's edge stays with the span that holds its last token."""
        text_tokens = tuple(token for span in spans for token in span.tokens)
        num_frames = max(MIN_ALIGNED_FRAMES, len(self._task.samples) // HOP_LENGTH)
        alignment: Alignment = yield Align(encoded, self._tokenizer, text_tokens, num_frames)
        timings = words_from_alignment(alignment, text_tokens, self._tokenizer)
        ends = np.cumsum([len(span.tokens) for span in spans])
        last_tokens = np.cumsum([len(timing.tokens) for timing in timings])
        owners = np.searchsorted(ends, last_tokens)
        new = [
            (timing, owner)
            for timing, owner, last in zip(timings, owners, last_tokens, strict=True)
            if last > known
        ]
        return [
            to_words([timing for timing, owner in new if owner == index])
            for index in range(len(spans))
        ]

    def _adds_nothing(self, candidate: Candidate) -> bool:
        text_tokens = sum(token < self._tokenizer.eot for token in candidate.tokens)
        return bool(text_tokens <= self._prompt.known(self._tokenizer))


def _behind(spans: Sequence[TokenSpan], known: int) -> list[TokenSpan]:
    """The spans without their first `known` tokens."""
    behind: list[TokenSpan] = []
    for span in spans:
        if len(span.tokens) > known:
            behind.append(replace(span, tokens=span.tokens[known:]))
        known = max(0, known - len(span.tokens))
    return behind


def segment_of(span: TokenSpan, candidate: Candidate, tokenizer: Tokenizer) -> Segment:
    return Segment(
        start=span.start,
        end=span.end,
        text=tokenizer.decode(list(span.tokens)),
        tokens=span.tokens,
        temperature=candidate.temperature,
        avg_logprob=candidate.avg_logprob,
        compression_ratio=candidate.compression_ratio,
        no_speech_prob=candidate.no_speech_prob,
    )
