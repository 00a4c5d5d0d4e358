"""How far a window is padded with silence before it is encoded.

Whisper was trained on 30 s, most of it silence where a window is short. Its encoder takes less,
in half the time for 14 s; but then the decoder now and then does not find the end. Such an
outcome can be told, and is decoded again in full.
"""

from __future__ import annotations

from dataclasses import dataclass

from whisper.audio import HOP_LENGTH, N_FRAMES

from whisper_serve.engines.fallback import Candidate

WHOLE_FRAMES: int = N_FRAMES
# Mel frames; windows of like length come out alike, so that they can be decoded together.
LENGTHS = (600, 800, 1_000, 1_300, 1_600, 2_000, 2_400, WHOLE_FRAMES)
FRAMES_PER_S = 100


@dataclass(frozen=True, slots=True)
class Padding:
    """`margin_s`: least silence behind the audio in the first decode, in seconds. The second,
    which follows a suspicious outcome, is padded to 30 s, and so are all with None.

    An outcome is suspicious when it is longer than `tokens_per_s` and `tokens_more` allow, when
    its text repeats itself, or when the model doubts it.
    """

    margin_s: float | None = 3.0
    tokens_per_s: float = 8.0
    tokens_more: int = 12
    compression_ratio: float = 2.0
    avg_logprob: float = -0.6

    def frames(self, n_samples: int) -> int:
        """Mel frames of the first decode of a window."""
        if self.margin_s is None:
            return WHOLE_FRAMES
        frames = n_samples / HOP_LENGTH + self.margin_s * FRAMES_PER_S
        return next((length for length in LENGTHS if length >= frames), WHOLE_FRAMES)

    def max_tokens(self, duration_s: float, n_prefix: int) -> int:
        """So many tokens are suspicious in a window of `duration_s`, of which `n_prefix` were
        forced."""
        return n_prefix + self.tokens_more + int(self.tokens_per_s * duration_s)

    def is_suspicious(self, candidate: Candidate, max_tokens: int) -> bool:
        return (
            len(candidate.tokens) >= max_tokens
            or candidate.compression_ratio > self.compression_ratio
            or candidate.avg_logprob < self.avg_logprob
        )


WHOLE_ONLY = Padding(margin_s=None)
