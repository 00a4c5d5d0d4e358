"""A count of used audio that tests can look into, and a clock of days."""

from __future__ import annotations

from datetime import datetime, timezone

from whisper_serve.api.auth.bill import Bill
from whisper_serve.api.auth.callers import Caller
from whisper_serve.errors import StorageUnavailable

NOON = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)


class Ledger:
    """Counts audio as a database does; `is_away`: it cannot be reached."""

    def __init__(self) -> None:
        self.totals: dict[tuple[str, str], float] = {}
        self.is_away = False

    async def add(self, name: str, day: str, seconds: float) -> float:
        if self.is_away:
            raise StorageUnavailable("no route", 5.0)
        total = self.totals.get((name, day), 0.0) + seconds
        self.totals[name, day] = total
        return total

    @property
    def total(self) -> float:
        return sum(self.totals.values())


class Clock:
    def __init__(self, now: datetime = NOON) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


def bill(ledger: Ledger, limit_s: float | None = 100.0, clock: Clock | None = None) -> Bill:
    """Of somebody who has `limit_s` seconds a day."""
    caller = Caller("radio", frozenset(), daily_audio_s=limit_s)
    return Bill(caller, ledger, clock or Clock())
