"""When to try again after a connection was lost, and when no more."""

from __future__ import annotations

import random
from collections.abc import Callable

FIRST_DELAY_S = 0.25
DOUBLINGS = 5
LONGEST_DELAY_S = FIRST_DELAY_S * 2**DOUBLINGS


class Patience:
    """Exponential backoff with jitter, over `give_up_after_s` seconds without progress.

    Times are seconds of any one clock. `chance` gives numbers from 0 to 1.
    """

    def __init__(
        self, give_up_after_s: float, *, chance: Callable[[], float] = random.random
    ) -> None:
        self._give_up_after_s = give_up_after_s
        self._chance = chance
        self._failing_since: float | None = None
        self._connected_at: float | None = None
        self._has_parted = False
        self.attempt = 0

    def progressed(self) -> None:
        """Something was settled."""
        self._failing_since, self._has_parted, self.attempt = None, False, 0

    def connected(self, now: float) -> None:
        self._connected_at = now

    def parted(self, now: float) -> float | None:
        """Seconds to wait after a server took its leave, which is no failure. None when it did
        so before and nothing was settled since: that is one."""
        if self._stood_long(now):
            self.progressed()
        if self._has_parted or self._failing_since is not None:
            return None
        self._has_parted, self._connected_at = True, None
        delay = self._backoff_s()
        self.attempt += 1
        return delay

    def failed(self, now: float, retry_after_s: float = 0.0) -> float | None:
        """Seconds to wait, at least `retry_after_s`; None when it is time to give up."""
        if self._stood_long(now):
            self.progressed()
        self._connected_at = None
        if self._failing_since is None:
            self._failing_since = now
        delay = max(self._backoff_s(), retry_after_s)
        if now + delay - self._failing_since > self._give_up_after_s:
            return None
        self.attempt += 1
        return delay

    def _stood_long(self, now: float) -> bool:
        """A connection that stood that long was a good one, even if nothing was said."""
        return self._connected_at is not None and now - self._connected_at > self._give_up_after_s

    def _backoff_s(self) -> float:
        longest: float = FIRST_DELAY_S * 2 ** min(self.attempt, DOUBLINGS)
        return longest * (0.5 + self._chance() / 2)
