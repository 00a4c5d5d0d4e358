"""One window from samples to a `Hypothesis`: the same steps whatever computes them.

A `Backend` runs the network. `WindowDecoder` decides: language, prompt, temperatures,
silence, segments and words.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch
from whisper.audio import HOP_LENGTH, N_FRAMES, log_mel_spectrogram, pad_or_trim
from whisper.tokenizer import LANGUAGES, Tokenizer, get_tokenizer

from whisper_serve.engines.base import DecodeTask, EngineInfo, Samples
from whisper_serve.engines.fallback import Candidate, decode_with_fallback, is_silence
from whisper_serve.engines.prompt import Prompt, build_prompt
from whisper_serve.engines.spans import TokenSpan, split_at_timestamps
from whisper_serve.engines.word_times import Alignment, to_words, words_from_alignment
from whisper_serve.errors import InvalidParameter
from whisper_serve.text.transcript import DecodeStats, Hypothesis, Segment, Word

Encoded = TypeVar("Encoded")

# CTranslate2 cannot align within less.
MIN_ALIGNED_FRAMES = 4


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What the decoding steps need to know of a loaded model."""

    n_mels: int
    multilingual: bool
    num_languages: int

    @property
    def languages(self) -> tuple[str, ...]:
        return tuple(LANGUAGES)[: self.num_languages]

    def tokenizer(self, language: str | None, task: str) -> Tokenizer:
        return get_tokenizer(
            self.multilingual, num_languages=self.num_languages, language=language, task=task
        )


class Backend(Protocol[Encoded]):
    """A loaded network. Its methods block and may be called from several threads."""

    @property
    def info(self) -> EngineInfo: ...

    @property
    def shape(self) -> ModelShape: ...

    def encode(self, mel: torch.Tensor) -> Encoded:
        """`mel`: float32, shape (n_mels, 3000)."""
        ...

    def detect_language(self, encoded: Encoded) -> tuple[str, float]:
        """The likeliest language code and its probability; multilingual models only."""
        ...

    def generate(
        self,
        encoded: Encoded,
        prompt: Prompt,
        tokenizer: Tokenizer,
        temperature: float,
        beam_size: int,
    ) -> Candidate: ...

    def align(
        self,
        encoded: Encoded,
        tokenizer: Tokenizer,
        text_tokens: Sequence[int],
        num_frames: int,
    ) -> Alignment:
        """`num_frames`: mel frames of 10 ms that hold audio, the rest is padding."""
        ...

    def gpu_memory_gib(self) -> float: ...

    def close(self) -> None: ...


class WindowDecoder(Generic[Encoded]):
    """Decodes one `DecodeTask` at a time in the calling thread."""

    def __init__(self, backend: Backend[Encoded]) -> None:
        self._backend = backend

    @property
    def info(self) -> EngineInfo:
        return self._backend.info

    def decode(self, task: DecodeTask) -> Hypothesis:
        began = time.monotonic()
        encoded = self._backend.encode(mel_of(task.samples, self._backend.shape.n_mels))
        encoded_at = time.monotonic()
        language, probability = self._language(task, encoded)
        tokenizer = self._backend.shape.tokenizer(language, task.task)
        prompt = build_prompt(task, tokenizer)
        candidate = decode_with_fallback(
            partial(self._generate, encoded, prompt, tokenizer, task), task.temperature
        )
        segments: tuple[Segment, ...] = ()
        if not is_silence(candidate, task.temperature):
            known = prompt.known(tokenizer)
            segments = self._segments(encoded, candidate, known, tokenizer, task)
        stats = DecodeStats(
            encoded_s=encoded_at - began,
            decoded_s=time.monotonic() - encoded_at,
            gpu_memory_gib=self._backend.gpu_memory_gib(),
        )
        return Hypothesis(segments, language, probability, stats)

    def close(self) -> None:
        self._backend.close()

    def _language(self, task: DecodeTask, encoded: Encoded) -> tuple[str, float]:
        if not self._backend.shape.multilingual:
            self._require_english(task)
            return "en", 1.0
        if task.language is None:
            return self._backend.detect_language(encoded)
        if task.language not in self._backend.shape.languages:
            model = self._backend.info.model
            raise InvalidParameter("language", f"the model {model!r} does not know it")
        return task.language, 1.0

    def _require_english(self, task: DecodeTask) -> None:
        model = self._backend.info.model
        if task.language not in {None, "en"}:
            raise InvalidParameter("language", f"the model {model!r} knows English only")
        if task.task == "translate":
            raise InvalidParameter("task", f"the model {model!r} cannot translate")

    def _generate(
        self,
        encoded: Encoded,
        prompt: Prompt,
        tokenizer: Tokenizer,
        task: DecodeTask,
        temperature: float,
    ) -> Candidate:
        generate = partial(self._backend.generate, encoded, prompt, tokenizer, temperature)
        candidate = generate(task.beam_size)
        if prompt.prefix and task.beam_size > 1 and _adds_nothing(candidate, prompt, tokenizer):
            # Behind a prefix, beam search finds ending at once more likely than it is.
            return generate(1)
        return candidate

    def _segments(
        self,
        encoded: Encoded,
        candidate: Candidate,
        known: int,
        tokenizer: Tokenizer,
        task: DecodeTask,
    ) -> tuple[Segment, ...]:
        """The segments behind the first `known` text tokens, which are the forced prefix."""
        spans = split_at_timestamps(candidate.tokens, tokenizer, task.duration_s)
        new_spans = _behind(spans, known)
        segments = [segment_of(span, candidate, tokenizer) for span in new_spans]
        if task.want_words and spans:
            owned = self._words(encoded, spans, known, tokenizer, task)
            owned = owned[len(spans) - len(new_spans) :]
            # A span whose words all went to its neighbour is no segment any more.
            pairs = zip(segments, owned, strict=True)
            segments = [segment.with_words(words) for segment, words in pairs if words]
        return tuple(segment for segment in segments if segment.text.strip())

    def _words(
        self,
        encoded: Encoded,
        spans: Sequence[TokenSpan],
        known: int,
        tokenizer: Tokenizer,
        task: DecodeTask,
    ) -> list[tuple[Word, ...]]:
        """The words of each span that lie behind the first `known` tokens. A word that merging
        moved over a span's edge stays with the span that holds its last token."""
        text_tokens = [token for span in spans for token in span.tokens]
        num_frames = max(MIN_ALIGNED_FRAMES, min(N_FRAMES, len(task.samples) // HOP_LENGTH))
        alignment = self._backend.align(encoded, tokenizer, text_tokens, num_frames)
        timings = words_from_alignment(alignment, text_tokens, tokenizer)
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


def _adds_nothing(candidate: Candidate, prompt: Prompt, tokenizer: Tokenizer) -> bool:
    text_tokens = sum(token < tokenizer.eot for token in candidate.tokens)
    return bool(text_tokens <= prompt.known(tokenizer))


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


def mel_of(samples: Samples, n_mels: int) -> torch.Tensor:
    """The window as Whisper's encoder wants it: float32, shape (n_mels, 3000).

    It is padded with silence. Padding the spectrogram with zeros, which stand for a rather
    loud noise, made base stop before the end of speech more often.
    """
    audio = torch.from_numpy(samples.astype(np.float32) / 32768.0)
    mel: torch.Tensor = log_mel_spectrogram(pad_or_trim(audio), n_mels)
    return mel
