"""What a live stream is charged: audio as it comes, and in the end what became final of it."""

from __future__ import annotations

import logging

from whisper_serve.api.auth.bill import Bill
from whisper_serve.errors import QuotaExceeded, WhisperServeError

logger = logging.getLogger(__name__)

CHARGED_EVERY_S = 10.0


class Tab:
    """One stream's running account. What cannot be charged now is charged the next time."""

    def __init__(self, bill: Bill, *, every_s: float = CHARGED_EVERY_S) -> None:
        self._bill = bill
        self._every_s = every_s
        self._charged_s = 0.0

    async def charge(self, received_s: float) -> None:
        """`received_s`: of audio since the stream began. Raises `QuotaExceeded`."""
        if received_s - self._charged_s >= self._every_s:
            await self._charge(received_s - self._charged_s)

    async def settle(self, settled_s: float) -> None:
        """The stream is over. What of it is not final, because it broke off, is heard elsewhere,
        and is charged there."""
        missing_s = settled_s - self._charged_s
        if missing_s >= 0:
            try:
                await self._charge(missing_s)
            except QuotaExceeded:
                return  # there is nothing left to refuse
        else:
            await self._bill.void(-missing_s)

    async def _charge(self, seconds: float) -> None:
        try:
            await self._bill.meter(seconds)
        except QuotaExceeded:
            self._charged_s += seconds
            raise
        except WhisperServeError as exc:
            logger.warning("a stream's audio could not be charged: %s", exc)
        else:
            self._charged_s += seconds
