"""When a stream's audio is decoded, and which of its words are final then.

One small class for each policy of `docs/protocol.md`. A policy sees how the stream stands
(`Progress`) and what a window gave, and keeps nothing but what its own rule needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from whisper_serve.streaming.messages import StreamConfig
from whisper_serve.text.agreement import agreed
from whisper_serve.text.transcript import Word

# Silence after which the words before it are whole, whatever follows.
SETTLED_PAUSE_S = 0.3
AGREEMENT_STEP_S = 1.0
AGREEMENT_SLACK, MAX_STEP_S = 1.25, 5.0
# Hypotheses hardly disagree for longer.
AGREEMENT_ROOM_S = 8.0
UTTERANCE_PAUSE_S = 0.6
MAX_UTTERANCE_S = 15.0


@dataclass(frozen=True, slots=True)
class Progress:
    """How a stream stands, in seconds: audio since the last window for final text, the
    speech in it, silence up to now, and how long the answer to that last window took."""

    new_s: float
    new_speech_s: float
    silence_s: float
    answer_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Ending:
    """How a window ends: at `end_s` of the stream, the last `silence_s` of which nobody
    speaks."""

    end_s: float
    silence_s: float = 0.0


class Policy(Protocol):
    """Decides for one stream."""

    @property
    def room_s(self) -> float:
        """How long the audio behind the final text may become, as a rule."""
        ...

    def is_due(self, progress: Progress) -> bool:
        """Whether a window that ends now should be decoded for final text."""
        ...

    def final_words(self, words: Sequence[Word], ending: Ending) -> int:
        """How many of the first `words` of a window are final."""
        ...

    def remember(self, tail: Sequence[Word]) -> None:
        """Go on from here: `tail` was heard behind the final words, and nothing else was."""
        ...


def trusted(words: Sequence[Word], ending: Ending, overlap_s: float) -> int:
    """How many words end before the window's last `overlap_s` seconds; all when these are
    silence, because then nothing was cut off."""
    if ending.silence_s >= min(SETTLED_PAUSE_S, overlap_s):
        return len(words)
    return _before(words, ending.end_s - overlap_s)


def _before(words: Sequence[Word], cut_s: float) -> int:
    whole = [number for number, word in enumerate(words, 1) if word.end <= cut_s]
    return whole[-1] if whole else 0


class ChunkPolicy:
    """A window every `chunk_s` seconds of audio."""

    def __init__(self, chunk_s: float, overlap_s: float) -> None:
        self._chunk_s, self._overlap_s = chunk_s, overlap_s

    @property
    def room_s(self) -> float:
        return self._chunk_s + self._overlap_s

    def is_due(self, progress: Progress) -> bool:
        return progress.new_s >= self._chunk_s and progress.new_speech_s > 0

    def final_words(self, words: Sequence[Word], ending: Ending) -> int:
        return trusted(words, ending, self._overlap_s)

    def remember(self, tail: Sequence[Word]) -> None:
        """The rule looks at one window alone."""


class AgreementPolicy:
    """A window every second, or as often as the engine can; final is what two in a row agree
    on."""

    def __init__(self, overlap_s: float) -> None:
        self._overlap_s = overlap_s
        self._before: tuple[Word, ...] = ()

    @property
    def room_s(self) -> float:
        return AGREEMENT_ROOM_S

    def is_due(self, progress: Progress) -> bool:
        # An engine that takes longer than a step would never catch up.
        step_s = max(AGREEMENT_STEP_S, min(AGREEMENT_SLACK * progress.answer_s, MAX_STEP_S))
        return progress.new_s >= step_s and progress.new_speech_s > 0

    def final_words(self, words: Sequence[Word], ending: Ending) -> int:
        count = min(agreed(self._before, words), trusted(words, ending, self._overlap_s))
        self._before = tuple(words[count:])
        return count

    def remember(self, tail: Sequence[Word]) -> None:
        self._before = tuple(tail)


class UtterancePolicy:
    """A window at every pause, and within speech that goes on and on."""

    def __init__(self, overlap_s: float) -> None:
        self._overlap_s = overlap_s

    @property
    def room_s(self) -> float:
        return MAX_UTTERANCE_S + self._overlap_s

    def is_due(self, progress: Progress) -> bool:
        if progress.new_speech_s <= 0:
            return False
        return progress.silence_s >= UTTERANCE_PAUSE_S or progress.new_s >= MAX_UTTERANCE_S

    def final_words(self, words: Sequence[Word], ending: Ending) -> int:
        return trusted(words, ending, self._overlap_s)

    def remember(self, tail: Sequence[Word]) -> None:
        """The rule looks at one window alone."""


def make_policy(config: StreamConfig) -> Policy:
    match config.policy:
        case "chunk":
            return ChunkPolicy(config.chunk_duration, config.overlap)
        case "agreement":
            return AgreementPolicy(config.overlap)
        case "utterance":
            return UtterancePolicy(config.overlap)
