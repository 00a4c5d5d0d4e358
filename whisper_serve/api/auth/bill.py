"""What one request or stream takes from its caller's daily seconds of audio."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from datetime import datetime, timedelta, timezone
from typing import TypeVar

from starlette.requests import HTTPConnection

from whisper_serve.api.auth.callers import Caller
from whisper_serve.api.auth.usage import CountsAudio
from whisper_serve.errors import QuotaExceeded, WhisperServeError

logger = logging.getLogger(__name__)
Item = TypeVar("Item")


def utc_now() -> datetime:
    return datetime.now(timezone.utc)


class Bill:
    """Charges `usage` for a caller that has `daily_audio_s`; for others nothing is counted."""

    def __init__(
        self, caller: Caller, usage: CountsAudio, now: Callable[[], datetime] = utc_now
    ) -> None:
        self._name, self._limit_s = caller.name, caller.daily_audio_s
        self._usage = usage
        self._now = now
        # What is charged, by day: a stream may go on beyond midnight.
        self._charged: defaultdict[str, float] = defaultdict(float)

    async def charge(self, seconds: float) -> None:
        """Before the work is done. Raises `QuotaExceeded` when so much is not left; then nothing
        is charged."""
        if await self._take(seconds):
            await self._take(-seconds)
            raise self._exceeded()

    async def meter(self, seconds: float) -> None:
        """Charge for what came already. Raises `QuotaExceeded` when more came than was left."""
        if await self._take(seconds):
            raise self._exceeded()

    async def require_rest(self) -> None:
        """Raises `QuotaExceeded` when nothing is left."""
        if self._limit_s is not None and not await self._rest():
            raise self._exceeded()

    async def give_back(self, seconds: float | None = None) -> None:
        """Everything, or `seconds` of what was charged last."""
        left = sum(self._charged.values()) if seconds is None else seconds
        for day in sorted(self._charged, reverse=True):
            part = min(left, self._charged[day])
            if part > 0:
                await self._usage.add(self._name, day, -part)
                self._charged[day] -= part
                left -= part

    async def void(self, seconds: float | None = None) -> None:
        """As `give_back`, when nobody is there any more to be told of a failure."""
        try:
            await self.give_back(seconds)
        except WhisperServeError as exc:
            logger.warning("audio of %s that failed stays charged: %s", self._name, exc)

    async def unless_failed(self, items: AsyncGenerator[Item, None]) -> AsyncGenerator[Item, None]:
        """The items; what was charged is given back when they fail for our fault."""
        async with aclosing(items):
            try:
                async for item in items:
                    yield item
            except Exception as exc:
                if is_our_fault(exc):
                    await self.void()
                raise

    async def _take(self, seconds: float) -> bool:
        """Whether it is more than is left."""
        if self._limit_s is None:
            return False
        day = self._now().date().isoformat()
        total = await self._usage.add(self._name, day, seconds)
        self._charged[day] += seconds
        return total > self._limit_s

    async def _rest(self) -> bool:
        assert self._limit_s is not None
        day = self._now().date().isoformat()
        return await self._usage.add(self._name, day, 0.0) < self._limit_s

    def _exceeded(self) -> QuotaExceeded:
        assert self._limit_s is not None
        return QuotaExceeded(self._limit_s, seconds_to_midnight(self._now()))


def is_our_fault(exc: Exception) -> bool:
    return not isinstance(exc, WhisperServeError) or exc.http_status >= 500


def seconds_to_midnight(now: datetime) -> float:
    """Until the next UTC day begins."""
    tomorrow = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    return (tomorrow - now).total_seconds()


def bill_of(connection: HTTPConnection) -> Bill:
    """That of the request or stream, as `BillMiddleware` has made it."""
    bill: Bill = connection.state.bill
    return bill
