"""How much work a stream's windows may be, so that their answers come in time.

A window that reaches back over final text is heard better and costs more. When an engine has
many streams its answers come late; then windows reach back less, until answers come in time.
"""

from __future__ import annotations

# Late answers take effect at once; in time, more is dared step by step.
LESS, MORE = 0.5, 0.1
# Less is not worth the words that are forced.
LEAST = 0.1
# From this share on there is time for a beam.
THOROUGH = 0.75


class Effort:
    """`max_reach_s`: how far windows reach back at most. `target_s`: seconds that an answer
    may take; None: however long it takes."""

    def __init__(self, max_reach_s: float, target_s: float | None) -> None:
        self._max_reach_s, self._target_s = max_reach_s, target_s
        self._share = 1.0

    @property
    def reach_s(self) -> float:
        return self._share * self._max_reach_s

    @property
    def is_thorough(self) -> bool:
        """Whether there is time for more than the fastest decode."""
        return self._share >= THOROUGH

    def learn(self, answer_s: float) -> None:
        """An answer took so long."""
        if self._target_s is None:
            return
        if answer_s > self._target_s:
            share = self._share * LESS
            self._share = share if share >= LEAST else 0.0
        elif answer_s < self._target_s / 2:
            self._share = min(1.0, self._share + MORE)
