"""How much memory a replica's process may have before another takes its place."""

from __future__ import annotations

from collections.abc import Callable

import psutil

GIB = 2**30


class MemoryGuard:
    """`limit_gib`: None for as much as there is. `resident` gives the process's resident bytes."""

    def __init__(self, limit_gib: float | None, resident: Callable[[], int] | None = None) -> None:
        self._limit_gib = limit_gib
        self._resident = resident or _resident

    def check(self) -> None:
        """Raises `RuntimeError`, which makes Serve replace the replica when it comes three times
        in a row from `check_health`."""
        if self._limit_gib is None:
            return
        used_gib = self._resident() / GIB
        if used_gib > self._limit_gib:
            raise RuntimeError(
                f"the process has {used_gib:.2f} GiB, more than the {self._limit_gib:g} GiB of "
                "deployment.max_replica_memory_gib"
            )


def _resident() -> int:
    resident: int = psutil.Process().memory_info().rss
    return resident
