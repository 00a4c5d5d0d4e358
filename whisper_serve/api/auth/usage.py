"""Seconds of audio that callers have used, by UTC day."""

from __future__ import annotations

from typing import Protocol


class CountsAudio(Protocol):
    """Shared by all processes that answer for the service, or else each has a day of its own."""

    async def add(self, name: str, day: str, seconds: float) -> float:
        """The total of `name` on `day` (`YYYY-MM-DD`) with `seconds` more, or fewer when they
        are negative."""
        ...


class AudioInMemory:
    """For one process, and until it ends. Days that are over are forgotten."""

    def __init__(self) -> None:
        self._day = ""
        self._totals: dict[str, float] = {}

    async def add(self, name: str, day: str, seconds: float) -> float:
        if day > self._day:
            self._day, self._totals = day, {}
        if day < self._day:  # given back after midnight, to a day that is over
            return 0.0
        total = self._totals.get(name, 0.0) + seconds
        self._totals[name] = total
        return total
