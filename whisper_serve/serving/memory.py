"""How much memory a replica's process has: what it may, and what it does not need any more."""

from __future__ import annotations

import asyncio
import ctypes
import time
from collections.abc import Callable

import psutil

GIB = 2**30
GIVEN_BACK_EVERY_S = 60.0


class MemoryGuard:
    """`limit_gib`: None for as much as there is. `resident` gives the process's resident bytes."""

    def __init__(self, limit_gib: float | None, resident: Callable[[], int] | None = None) -> None:
        self._limit_gib = limit_gib
        self._resident = resident or _resident

    @property
    def is_over(self) -> bool:
        """Whether it is more than allowed."""
        return self._limit_gib is not None and self._resident() / GIB > self._limit_gib

    def check(self) -> None:
        """Raises `RuntimeError`, which makes Serve replace the replica when it comes three times
        in a row from `check_health`."""
        if self.is_over:
            raise RuntimeError(
                f"the process has {self._resident() / GIB:.2f} GiB, more than the "
                f"{self._limit_gib:g} GiB of deployment.max_replica_memory_gib"
            )


class FreedMemory:
    """Gives the system back what the process has freed. glibc keeps that for the thread that had
    it, and a process whose threads take turns with large recordings seems to grow for ever.
    `trim` does it."""

    def __init__(self, trim: Callable[[], None] | None = None) -> None:
        self._trim = trim or trim_heap
        self._given_back_at = time.monotonic()

    async def give_back(self) -> None:
        """To be asked every few seconds; does something once a minute."""
        now = time.monotonic()
        if now - self._given_back_at >= GIVEN_BACK_EVERY_S:
            self._given_back_at = now
            await asyncio.to_thread(self._trim)


def trim_heap() -> None:
    """Give the system what the process has freed; C libraries other than glibc have no such
    thing."""
    if (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)


def _resident() -> int:
    resident: int = psutil.Process().memory_info().rss
    return resident
