"""The values that the whole service passes around: words with times, and what holds them.

Times are seconds. A `Hypothesis` counts them from the start of its window, a `Transcript`
from the start of the recording; `shifted` goes from one to the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

# Of Whisper's spectrogram.
FRAMES_PER_S = 100


@dataclass(frozen=True, slots=True)
class Word:
    """One word as Whisper writes it: `text` keeps its leading space and its punctuation.
    `tokens` are the model's ids of the text, where an engine gave the word."""

    text: str
    start: float
    end: float
    probability: float
    tokens: tuple[int, ...] = ()

    def shifted(self, offset_s: float) -> Word:
        return replace(self, start=self.start + offset_s, end=self.end + offset_s)


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of speech between two of Whisper's timestamps.

    `words` is empty when word times were not asked for. `seek` is where its window began, in
    seconds. The four numbers at the end are
    those of the decode that gave the segment and mean what they mean in Whisper.
    """

    start: float
    end: float
    text: str
    words: tuple[Word, ...] = ()
    tokens: tuple[int, ...] = ()
    seek: float = 0.0
    temperature: float = 0.0
    avg_logprob: float = 0.0
    compression_ratio: float = 0.0
    no_speech_prob: float = 0.0

    @property
    def seek_frames(self) -> int:
        """`seek` as Whisper counts it, in whole frames of 10 ms."""
        # A time that is whole frames may lie a little below them.
        return int(self.seek * FRAMES_PER_S + 1e-6)

    def shifted(self, offset_s: float) -> Segment:
        return replace(
            self,
            start=self.start + offset_s,
            end=self.end + offset_s,
            seek=self.seek + offset_s,
            words=tuple(word.shifted(offset_s) for word in self.words),
        )

    def with_words(self, words: Sequence[Word]) -> Segment:
        """The segment cut down to `words` (not empty), and to their tokens if they are known."""
        tokens = tuple(token for word in words for token in word.tokens)
        return replace(
            self,
            start=words[0].start,
            end=words[-1].end,
            text="".join(word.text for word in words),
            words=tuple(words),
            tokens=tokens or self.tokens,
        )


@dataclass(frozen=True, slots=True)
class DecodeStats:
    """What a decode cost: seconds, and GiB of GPU memory in use (0 on a CPU).

    `batch_size`: windows that were decoded side by side, this one included, when it began.
    `fallbacks`: decodes beyond the first, because of a suspicious outcome; `temperature`: of the
    decode that counts. `attempts`: how often replicas were asked for it.
    """

    queued_s: float = 0.0
    encoded_s: float = 0.0
    decoded_s: float = 0.0
    gpu_memory_gib: float = 0.0
    batch_size: int = 1
    fallbacks: int = 0
    temperature: float = 0.0
    attempts: int = 1

    @property
    def total_s(self) -> float:
        """From the queue to the answer."""
        return self.queued_s + self.encoded_s + self.decoded_s


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """What an engine heard in one window; no segments means that nobody spoke."""

    segments: tuple[Segment, ...]
    language: str
    language_probability: float
    stats: DecodeStats = field(default_factory=DecodeStats)

    @property
    def words(self) -> tuple[Word, ...]:
        return words_of(self.segments)

    @property
    def text(self) -> str:
        return text_of(self.segments)


@dataclass(frozen=True, slots=True)
class Transcript:
    """The text of a whole recording of `duration` seconds."""

    segments: tuple[Segment, ...]
    language: str | None
    language_probability: float
    duration: float
    gpu_memory_gib: float = 0.0

    @property
    def words(self) -> tuple[Word, ...]:
        return words_of(self.segments)

    @property
    def text(self) -> str:
        return text_of(self.segments)

    @property
    def word_count(self) -> int:
        return len(self.text.split())


def words_of(segments: Sequence[Segment]) -> tuple[Word, ...]:
    return tuple(word for segment in segments for word in segment.words)


def text_of(segments: Sequence[Segment]) -> str:
    return "".join(segment.text for segment in segments).strip()
