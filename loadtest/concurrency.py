"""So many clients at once with a file each: the table that load tests of such services show.

All clients of a level start together. A delay counts from that start, or for a client's further
files from the end of the one before, and holds all waiting after refusals. Averages and quantiles
are of clips that were served; a quantile is a dash when no sample lies beyond it (a p95 needs 20),
and the samples are counted beside it. Nothing counts as served without a right text.
"""

from __future__ import annotations

import asyncio
import resource
import statistics
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from benchmarks.figures import percent, quantile, shown
from loadtest.files import Access, Asking, Clip, Files, posting
from loadtest.judging import Bounds
from loadtest.levels import quantile_curves
from loadtest.open_loop import Record, Send, offered
from loadtest.outcome import Outcome, wall_s
from loadtest.plots import Chart
from loadtest.summary import SHARES
from loadtest.tally import Tally, tally_of

# Besides sockets: libraries, standard streams, the event loop's own.
OTHER_DESCRIPTORS = 100
COLUMNS = (
    "clients", "clips", "served", "avg, s", "p50, s", "p95, s", "p99, s", "max, s", "last after, s",
    "audio s / s", "refusals", "without Retry-After", "without text", "error rate", "WER",
    "late p99, s",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Crowd:
    """`clients` at once that ask for `each` clips, one after the other. When `patient`, one that
    is refused waits as told and asks again. After `patience_s` nobody waits any longer."""

    clients: int
    each: int = 1
    patient: bool = False
    patience_s: float = 600.0


@dataclass(frozen=True, slots=True)
class CrowdLevel:
    """What a crowd met, clip by clip. `seconds`: from the start until the last was answered."""

    crowd: Crowd
    record: Record
    outcomes: Sequence[Outcome]
    tally: Tally
    seconds: float

    @property
    def throughput(self) -> float:
        """Seconds of audio that were served in a second."""
        return self.tally.audio_s / self.seconds if self.seconds else 0.0

    def cells(self) -> list[object]:
        tally, delays = self.tally, self.tally.delays_s
        return [
            self.crowd.clients,
            tally.due,
            tally.served,
            shown(statistics.fmean(delays) if delays else None),
            *(shown(quantile(delays, share)) for share in SHARES),
            shown(max(delays, default=None)),
            shown(self.seconds),
            shown(self.throughput, 1),
            tally.refusals,
            tally.untold,
            tally.without_text,
            percent(tally.without_text / tally.due),
            "-" if tally.wer is None else percent(tally.wer),
            f"{self.record.late_s(0.99):.3f}",
        ]

    def why_failed(self, bounds: Bounds) -> list[str]:
        """A crowd that is not patient may be refused; a patient one gets all of its text."""
        return [f"{self.crowd.clients} clients: {why}" for why in self.tally.why_failed(bounds)]

    def doubts(self, bounds: Bounds) -> list[str]:
        doubts = self.record.doubts(bounds.most_late_s)
        return [f"{self.crowd.clients} clients: {doubt}" for doubt in doubts]

    def facts(self) -> dict[str, Any]:
        return {
            "clients": self.crowd.clients,
            "each": self.crowd.each,
            "patient": self.crowd.patient,
            "seconds": self.seconds,
            "throughput": self.throughput,
            "late_p99_s": self.record.late_s(0.99),
            "outcomes": [outcome.as_json() for outcome in self.outcomes],
        }


async def run_crowd(
    access: Access, clips: Sequence[Clip], crowd: Crowd, bounds: Bounds
) -> CrowdLevel:
    """One clip alone first: what was left of an earlier level is done then."""
    asking: list[Asking] = []
    async with posting(access) as files:
        with suppress(asyncio.TimeoutError):
            alone = files.ask_until_served(Asking(clips[0], time.monotonic()))
            await asyncio.wait_for(alone, crowd.patience_s)
        record = await offered(
            _client(files, clips, crowd, asking),
            [0.0] * crowd.clients,
            most_open=crowd.clients,
            patience_s=crowd.patience_s,
        )
    return crowd_level(crowd, record, asking, clips, bounds)


def crowd_level(
    crowd: Crowd, record: Record, asking: Sequence[Asking], clips: Sequence[Clip], bounds: Bounds
) -> CrowdLevel:
    """`asking`: what was asked for. What its clients did not come to counts as unfinished."""
    missing = crowd.clients * crowd.each - len(asking)
    never = [Asking(clips[0], record.began_s) for _ in range(missing)]
    outcomes = [each.outcome(wall_s()) for each in (*asking, *never)]
    ended = [each.ended_at for each in asking if each.ended_at is not None]
    seconds = max(ended, default=record.began_s) - record.began_s
    return CrowdLevel(crowd, record, outcomes, tally_of(outcomes, bounds), seconds)


def _client(files: Files, clips: Sequence[Clip], crowd: Crowd, asking: list[Asking]) -> Send:
    ask = files.ask_until_served if crowd.patient else files.ask

    async def client(number: int, due: float) -> None:
        for turn in range(crowd.each):
            clip = clips[(number * crowd.each + turn) % len(clips)]
            asked = Asking(clip, due if turn == 0 else time.monotonic())
            asking.append(asked)
            await ask(asked)

    return client


def rising(levels: Sequence[CrowdLevel]) -> list[Chart]:
    named = [(level.crowd.clients, level) for level in levels]
    delays = [(clients, level.tally.delays_s) for clients, level in named]
    averages = [(x, statistics.fmean(values) if values else None) for x, values in delays]
    served = [(clients, level.throughput) for clients, level in named]
    lost = [(clients, level.tally.share(level.tally.without_text)) for clients, level in named]
    return [
        Chart("Delay", "clients", "seconds", {"average": averages, **quantile_curves(delays)}),
        Chart("Throughput", "clients", "audio s / s", {"served": served}),
        Chart("Clips without a text", "clients", "share", {"refused, failed, unfinished": lost}),
    ]


def too_few_descriptors(sockets: int, limit: int | None = None) -> str:
    """Why so many connections cannot be had at once; empty when they can. `limit`: of open files,
    this process's own hard limit when it is None."""
    if limit is None:
        _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = sockets + OTHER_DESCRIPTORS
    if limit == resource.RLIM_INFINITY or needed <= limit:
        return ""
    return f"{sockets} connections need {needed} open files, and {limit} are allowed (ulimit -Hn)"
