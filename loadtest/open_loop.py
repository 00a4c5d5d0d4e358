"""Requests that start at their times, whether or not earlier ones have ended.

A client that waits for its answer before it asks again slows down with the server, and then tells
that the server is quick: it left out what others would have met meanwhile ("coordinated
omission"). Here nothing waits for an answer, and a request's delay counts from when it was to
start. `Ledger` decides and is given the time; `offered` waits.

Two things can make the load another one than was asked for, and neither is hidden. What would be
more than `most_open` at once is *not sent*, and counted. And this program may itself be late, when
it has not enough of a CPU: a `Watch` looks at how late it starts requests, and how late its event
loop wakes up between them. `Record.doubts` says both in words.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

TICK_S = 0.05


@dataclass(slots=True)
class Attempt:
    """A request, of which all times are of one clock. `due_s`: when it was to start; `ended_s`:
    None as long as it has not ended."""

    number: int
    due_s: float
    began_s: float
    ended_s: float | None = None

    @property
    def late_s(self) -> float:
        """What this program was late itself."""
        return self.began_s - self.due_s


@dataclass(slots=True)
class Record:
    """What became of a load. `ticks_s`: how late the event loop woke up between requests."""

    attempts: list[Attempt] = field(default_factory=list)
    not_sent: int = 0
    most_open: int = 0
    ticks_s: list[float] = field(default_factory=list)
    began_s: float = 0.0
    ended_s: float = 0.0

    @property
    def due(self) -> int:
        """Requests that there were to be."""
        return len(self.attempts) + self.not_sent

    @property
    def unfinished(self) -> int:
        return sum(each.ended_s is None for each in self.attempts)

    def late_s(self, share: float) -> float:
        """How late this program was: a quantile of starts and of wake-ups, of each by itself,
        and the larger of the two. Many wake-ups on time do not excuse late starts."""
        starts = [each.late_s for each in self.attempts]
        return max((_beyond(late, share) for late in (starts, self.ticks_s) if late), default=0.0)

    def doubts(self, most_late_s: float) -> list[str]:
        """Why the figures are not those of the load that was asked for; none when they are."""
        found = []
        late_s = self.late_s(0.99)
        if late_s > most_late_s:
            found.append(
                f"this program was late itself, by {late_s:.3f} s in 1 of 100 cases (allowed: "
                f"{most_late_s:g} s): it needs more CPU, or a machine of its own"
            )
        if self.not_sent:
            found.append(
                f"{self.not_sent} of {self.due} requests were not sent, because "
                f"{self.most_open} were open already"
            )
        if not self.due:
            found.append("no request was due in this time")
        return found


def _beyond(values: Sequence[float], share: float) -> float:
    """The quantile that errs to the larger side: of few values it is the largest."""
    return float(np.quantile(values, share, method="higher"))


class Ledger:
    """Keeps a `Record` of what begins and ends, with at most `most_open` open at once."""

    def __init__(self, most_open: int) -> None:
        self._most_open = most_open
        self._open: dict[int, Attempt] = {}
        self.record = Record()

    def begin(self, number: int, due_s: float, now_s: float) -> bool:
        """Whether the request may be sent; then you must tell its `end`."""
        if len(self._open) >= self._most_open:
            self.record.not_sent += 1
            return False
        attempt = Attempt(number, due_s, now_s)
        self._open[number] = attempt
        self.record.attempts.append(attempt)
        self.record.most_open = max(self.record.most_open, len(self._open))
        return True

    def end(self, number: int, now_s: float) -> None:
        self._open.pop(number).ended_s = now_s


Send = Callable[[int, float], Awaitable[None]]


async def offered(
    send: Send,
    times: Sequence[float],
    *,
    most_open: int,
    patience_s: float,
) -> Record:
    """Call `send(number, due)` at each of `times`, in seconds from now; `due` is of the monotonic
    clock.

    What has not ended `patience_s` after the last of them is cancelled and stays unfinished.
    Raises what `send` raises, so `send` keeps the faults of a server to itself.
    """
    began, ledger = time.monotonic(), Ledger(most_open)
    ledger.record.began_s = began
    watch = asyncio.create_task(_watch(ledger.record.ticks_s))
    tasks: list[asyncio.Task[None]] = []
    try:
        for number, time_s in enumerate(times):
            await asyncio.sleep(max(0.0, began + time_s - time.monotonic()))
            tasks.append(asyncio.create_task(_sent(ledger, send, number, began + time_s)))
        await _ended(tasks, patience_s)
    finally:
        await _cancelled([watch, *tasks])
    ledger.record.ended_s = time.monotonic()
    return ledger.record


async def _sent(ledger: Ledger, send: Send, number: int, due: float) -> None:
    # Asked here and not where the task is made: it may have waited for its turn.
    if ledger.begin(number, due, time.monotonic()):
        await send(number, due)
        ledger.end(number, time.monotonic())


async def _ended(tasks: Sequence[asyncio.Task[None]], patience_s: float) -> None:
    if not tasks:
        return
    done, _ = await asyncio.wait(tasks, timeout=patience_s, return_when=asyncio.FIRST_EXCEPTION)
    for task in done:
        task.result()


async def _cancelled(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _watch(late_s: list[float]) -> None:
    """Note how late each wake-up comes, as any other part of this program would wake up."""
    while True:
        due = time.monotonic() + TICK_S
        await asyncio.sleep(TICK_S)
        late_s.append(time.monotonic() - due)
