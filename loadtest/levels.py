"""One level of load: what was offered at a rate, what came of it, and how it reads."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from benchmarks.figures import percent, quantile, shown, shown_quantiles
from loadtest.conversation import Conversation
from loadtest.dialects import Dialect
from loadtest.files import Access, Asking, Clip, posting
from loadtest.judging import Bounds
from loadtest.open_loop import Record, Send, offered
from loadtest.outcome import Outcome, wall_s
from loadtest.plots import Chart, Points
from loadtest.speech import Speech
from loadtest.streams import converse
from loadtest.summary import SHARES
from loadtest.tally import Tally, tally_of

Said = tuple[Speech, Dialect]
PERCENTS = range(1, 100)
COLUMNS = (
    "a second", "due", "served", "refused", "failed", "unfinished", "not sent", "open at most",
    "delay p50 / p95 / p99 / max, s", "delays", "first shown p50 / p95, s", "audio s / s", "WER",
    "words lost", "late p99 / max, s",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Offer:
    """`times`: when requests are due, in seconds from the start; `name`: of the level."""

    name: float
    times: Sequence[float]
    most_open: int
    patience_s: float


@dataclass(frozen=True, slots=True)
class Level:
    offer: Offer
    record: Record
    outcomes: Sequence[Outcome]
    tally: Tally

    @property
    def seconds(self) -> float:
        return self.record.ended_s - self.record.began_s

    def doubts(self, bounds: Bounds) -> list[str]:
        return self.record.doubts(bounds.most_late_s)

    def cells(self) -> list[object]:
        tally, record = self.tally, self.record
        longest = shown(max(tally.delays_s, default=None))
        return [
            f"{self.offer.name:g}",
            tally.due,
            tally.served,
            tally.refused,
            tally.failed.total(),
            tally.unfinished,
            tally.not_sent,
            record.most_open,
            f"{shown_quantiles(tally.delays_s, SHARES)} / {longest}",
            len(tally.delays_s),
            shown_quantiles(tally.shown_s, SHARES[:2]),
            shown(tally.audio_s / self.seconds, 1),
            "-" if tally.wer is None else percent(tally.wer),
            tally.deletions if tally.errors else "-",
            f"{record.late_s(0.99):.3f} / {record.late_s(1.0):.3f}",
        ]

    def facts(self) -> dict[str, Any]:
        """All of it, for a file."""
        record = self.record
        return {
            "name": self.offer.name,
            "seconds": self.seconds,
            "times": self.offer.times,
            "most_open": record.most_open,
            "late_s": [each.late_s for each in record.attempts],
            "ticks_late_s": record.ticks_s,
            "outcomes": [outcome.as_json() for outcome in self.outcomes],
        }


Run = Callable[[Offer], Coroutine[Any, Any, Level]]


def files_run(access: Access, clips: Sequence[Clip], bounds: Bounds) -> Run:
    """Clips in turn. A delay counts from when a request was due until its whole answer."""

    async def run(offer: Offer) -> Level:
        asking: list[Asking] = []
        async with posting(access) as files:

            async def send(number: int, due: float) -> None:
                asking.append(Asking(clips[number % len(clips)], due))
                await files.ask(asking[-1])

            record = await _offered(send, offer)
        outcomes = [each.outcome(wall_s()) for each in asking]
        return level_of(offer, record, outcomes, bounds)

    return run


def streams_run(access: Access, said: Sequence[Said], bounds: Bounds) -> Run:
    """Recordings in turn. Somebody begins to speak as soon as the service lets him."""

    async def run(offer: Offer) -> Level:
        begun: list[Conversation] = []

        async def send(number: int, due: float) -> None:
            begun.append(Conversation(*said[number % len(said)], due))
            await converse(access, begun[-1])

        record = await _offered(send, offer)
        for each in begun:
            if not each.is_over:
                each.cut(time.monotonic())
        return level_of(offer, record, [each.outcome(wall_s()) for each in begun], bounds)

    return run


def level_of(offer: Offer, record: Record, outcomes: Sequence[Outcome], bounds: Bounds) -> Level:
    tally = tally_of(outcomes, bounds, not_sent=record.not_sent)
    return Level(offer, record, outcomes, tally)


async def _offered(send: Send, offer: Offer) -> Record:
    return await offered(send, offer.times, most_open=offer.most_open, patience_s=offer.patience_s)


def rising(levels: Sequence[Level], x_label: str) -> list[Chart]:
    """Levels over their rates."""
    tallies = [(level.offer.name, level.tally) for level in levels]
    shares = {
        "served": [(name, tally.share(tally.served)) for name, tally in tallies],
        "refused": [(name, tally.share(tally.refused)) for name, tally in tallies],
        "failed or not sent": [
            (name, tally.share(tally.faults + tally.not_sent)) for name, tally in tallies
        ],
    }
    delays = quantile_curves([(name, tally.delays_s) for name, tally in tallies])
    errors = {"of all words": [(name, tally.wer) for name, tally in tallies]}
    return [
        Chart("Delay", x_label, "seconds", delays),
        Chart("What became of them", x_label, "share", shares),
        Chart("Word errors", x_label, "share", errors),
    ]


def spread(level: Level) -> list[Chart]:
    """How the delays of one level are spread."""
    named = (("final", level.tally.delays_s), ("first shown", level.tally.shown_s))
    curves = {
        name: [(share, quantile(values, share / 100)) for share in PERCENTS]
        for name, values in named
    }
    return [Chart("Delay", "% of delays", "at most, seconds", curves)]


def quantile_curves(samples: Sequence[tuple[float, Sequence[float]]]) -> dict[str, Points]:
    """A curve for each of `SHARES`."""
    return {
        f"p{100 * share:.0f}": [(x, quantile(values, share)) for x, values in samples]
        for share in SHARES
    }


def notes(levels: Sequence[Level], bounds: Bounds) -> tuple[list[str], list[str]]:
    """Why levels failed, and why they are not to be believed, each with its name."""
    named = [(f"at {level.offer.name:g}", level) for level in levels]
    failed = chain.from_iterable(
        _said(name, level.tally.why_failed(bounds)) for name, level in named
    )
    doubts = chain.from_iterable(_said(name, level.doubts(bounds)) for name, level in named)
    return list(failed), list(doubts)


def _said(name: str, sentences: Sequence[str]) -> Iterator[str]:
    return (f"{name}: {sentence}" for sentence in sentences)
