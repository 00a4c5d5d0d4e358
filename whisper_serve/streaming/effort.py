"""How much work a stream's windows may be, so that their answers come in time.

A window that reaches back over final text is heard better and costs more. When an engine has
many streams its answers come late; then windows reach back less, until answers come in time.
"""

from __future__ import annotations

from whisper_serve.streaming.settled import CONTEXT_CHARS

# A stream begins with nothing to reach back to, and dares more with each answer in time; once
# answers have been late, in smaller steps.
FIRST_MORE, MORE, LESS = 0.25, 0.05, 0.5
# Less is not worth the words that are forced.
LEAST = 0.1
# From this share on there is time for a beam.
THOROUGH = 0.5
# Who waits longer than this part of the target is not alone with the engine.
IDLE = 0.1
# About 45 tokens, which are decoded together with those of other streams.
SHORT_CONTEXT_CHARS = 200


class Effort:
    """`max_reach_s`: how far windows reach back at most. `target_s`: seconds that an answer
    may take; None: however long it takes."""

    def __init__(self, max_reach_s: float, target_s: float | None) -> None:
        self._max_reach_s, self._target_s = max_reach_s, target_s
        self._share = 1.0 if target_s is None else 0.0
        self._more = FIRST_MORE

    @property
    def reach_s(self) -> float:
        return self._share * self._max_reach_s

    @property
    def is_thorough(self) -> bool:
        """Whether there is time for more than the fastest decode."""
        return self._share >= THOROUGH

    @property
    def context_chars(self) -> int:
        """How much text before a window is its prompt."""
        return CONTEXT_CHARS if self.is_thorough else SHORT_CONTEXT_CHARS

    def learn(self, answer_s: float, queued_s: float) -> None:
        """An answer took so long, of which its window waited `queued_s` for its turn."""
        if self._target_s is None:
            return
        if answer_s > self._target_s:
            share = self._share * LESS
            self._share, self._more = (share if share >= LEAST else 0.0), MORE
        elif answer_s < self._target_s / 2 and queued_s < self._target_s * IDLE:
            self._share = min(1.0, self._share + self._more)
