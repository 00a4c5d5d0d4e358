"""How often something may happen in a minute, counted in this process alone.

With several processes each counts for itself, so a limit holds for what one of them answers.
"""

from __future__ import annotations

import time
import zlib

from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter


class Rates:
    """Counts by name. The last minute is weighed from two counters rather than remembered hit by
    hit, so many names cost little; at most one hit too many passes."""

    def __init__(self, what: str, *, most_names: int | None = None) -> None:
        """With more names than `most_names` some share a counter, for names that a stranger can
        make up without end."""
        self._what = what
        self._most_names = most_names
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())

    async def hit(self, name: str, per_minute: int) -> float:
        """0 when it may happen, else the seconds after which it may."""
        limit = RateLimitItemPerMinute(per_minute)
        if self._most_names is not None:
            name = str(zlib.crc32(name.encode()) % self._most_names)
        if await self._limiter.hit(limit, self._what, name):
            return 0.0
        stats = await self._limiter.get_window_stats(limit, self._what, name)
        return max(1.0, stats.reset_time - time.time())
