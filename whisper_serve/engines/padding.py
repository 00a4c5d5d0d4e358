"""How far a window is padded with silence before it is encoded.

Whisper was trained on 30 s, most of it silence where a window is short. Its encoder takes less,
in half the time for 14 s; but then the decoder now and then does not find the end. Such an
outcome can be told, and is decoded again in full.
"""

from __future__ import annotations

from dataclasses import dataclass

from whisper.audio import HOP_LENGTH, N_FRAMES

from whisper_serve.engines.base import DecodeTask
from whisper_serve.engines.fallback import Candidate
from whisper_serve.text.normalize import normalize_word

WHOLE_FRAMES: int = N_FRAMES
# Mel frames; windows of like length come out alike, so that they can be decoded together.
LENGTHS = (600, 750, 900, 1_050, 1_300, 1_600, 2_000, 2_400, WHOLE_FRAMES)
FRAMES_PER_S = 100
# More is hardly spoken, timestamps not counted: of 170 windows of English read aloud, the fastest
# had 4.6 a second. Others are written with more tokens.
TOKENS_PER_S, OTHER_TOKENS_PER_S = {"en": 5.0}, 8.0
MORE_TOKENS = 8
# Longer repetitions make text compress well.
LONGEST_REPEATED = 8
SENTENCE_ENDS = (".", "!", "?")


@dataclass(frozen=True, slots=True)
class Padding:
    """`margin_s`: least silence behind the audio in the first decode, in seconds. The second,
    which follows a suspicious outcome, is padded to 30 s, and so are all with None.

    An outcome is suspicious when it has more tokens than are spoken in its time, when its text
    repeats itself, be it two words that stand twice in a row, or when the model doubts it.
    """

    margin_s: float | None = 3.0
    compression_ratio: float = 2.0
    avg_logprob: float = -0.8

    def frames(self, task: DecodeTask) -> int:
        """Mel frames of the first decode of a window."""
        if self.margin_s is None or task.full_padding:
            return WHOLE_FRAMES
        frames = len(task.samples) / HOP_LENGTH + self.margin_s * FRAMES_PER_S
        return next((length for length in LENGTHS if length >= frames), WHOLE_FRAMES)

    def max_tokens(self, duration_s: float, language: str | None) -> int:
        """So many tokens are suspicious in a window of `duration_s`."""
        per_s = TOKENS_PER_S.get(language or "", OTHER_TOKENS_PER_S)
        return MORE_TOKENS + int(per_s * duration_s)

    def is_suspicious(self, candidate: Candidate, max_tokens: int) -> bool:
        return (
            len(candidate.tokens) >= max_tokens
            or candidate.compression_ratio > self.compression_ratio
            or candidate.avg_logprob < self.avg_logprob
            or repeats_words(candidate.text)
        )


def repeats_words(text: str) -> bool:
    """Whether two words or more from the beginning of a sentence stand twice in a row, as in
    `Try again. Try again.`"""
    written = text.split()
    words = [normalize_word(word) for word in written]
    begins = [True, *(word.endswith(SENTENCE_ENDS) for word in written)]
    return any(
        words[first : first + size] == words[first + size : first + 2 * size]
        for size in range(2, min(LONGEST_REPEATED, len(words) // 2) + 1)
        for first in range(len(words) - 2 * size + 1)
        if begins[first]
    )


WHOLE_ONLY = Padding(margin_s=None)
