"""When engines that fail are left alone: a circuit breaker, as plain bookkeeping.

    closed --(failures in a row)--> open --(pause)--> half-open --(an answer)--> closed
                                     ^                    |
                                     +----(a failure)-----+

Closed, every request may go. Open, none does, so that each fails at once instead of after its
time-out. Half-open, one request probes the engines, and all others still fail at once.

Times are seconds of any one clock. Source of the pattern: M. Nygard, "Release It!", chapter 5.
"""

from __future__ import annotations

from typing import Literal

# Of replicas that died or engines that broke, one after the other, without an answer between.
FAILURES = 5
PAUSE_S = 5.0
# What fails so soon after a failure fails with it: all windows that one dead replica had.
TOGETHER_S = 0.5
# A probe that nobody waits for any more must not keep all others waiting.
PROBE_S = 60.0

State = Literal["closed", "open", "half_open"]


class Breaker:
    """`failures` in a row open it, for `pause_s` seconds."""

    def __init__(self, failures: int = FAILURES, pause_s: float = PAUSE_S) -> None:
        self._allowed, self._pause_s = failures, pause_s
        self._failures = 0
        self._failed_at = float("-inf")
        self._open_until: float | None = None
        self._probe_until = float("-inf")

    def wait_s(self, now: float) -> float:
        """0 when a request may go, and then its outcome has to be told: with `succeeded`,
        `failed`, or `learned_nothing`. Otherwise seconds after which it may be tried again."""
        if self._open_until is None:
            return 0.0
        if now < self._open_until:
            return self._open_until - now
        if now < self._probe_until:
            return self._pause_s
        self._probe_until = now + PROBE_S
        return 0.0

    def succeeded(self) -> None:
        """An engine answered, whatever it was asked."""
        self._failures = 0
        self._open_until = None
        self._probe_until = float("-inf")

    def failed(self, now: float) -> None:
        """A replica died or its engine broke."""
        if self._open_until is not None:
            # Those that were on their way when it opened say nothing new.
            if now >= self._open_until:
                self._open(now)
            return
        if now - self._failed_at < TOGETHER_S:
            return
        self._failed_at = now
        self._failures += 1
        if self._failures >= self._allowed:
            self._open(now)

    def learned_nothing(self) -> None:
        """A request ended without a word about the engines: it was cancelled, or waited too
        long. If it was the probe, another may go."""
        self._probe_until = float("-inf")

    def state(self, now: float) -> State:
        if self._open_until is None:
            return "closed"
        return "open" if now < self._open_until else "half_open"

    def _open(self, now: float) -> None:
        self._open_until = now + self._pause_s
        self._probe_until = float("-inf")
