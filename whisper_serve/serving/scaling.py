"""How many replicas there are to be: a decision, without a clock, without waiting and without Ray.

How many are *needed* is said by what they have to do now:

- Ingress replicas by the streams that they hold, and the files that they unpack.
- Engine replicas by the audio that waits for them. It hardly waits before they are busy, so it
  tells when there are too few and nothing else. When there are too many is told by what they do:
  the part of the time that they are busy, or the audio that they decode in a second as part of
  what a replica can. A CPU that is busy half of the time can do twice as much. A GPU that decodes
  batches can do far more: it is busy with one window too. So what a replica can do (`Pace`) is
  learned while the load is high, and believed when it is low.

What is needed changes every second. There are to be more when more were needed for
`upscale_delay_s` without a break, so many as at the least of it, and fewer when fewer were for
`downscale_delay_s`, so many as at the most of it (`Needs`). Replicas of which nothing is known are
no reason for fewer.

Times are seconds of any one clock.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

# What a replica said longer ago does not count.
TOLD_HOLDS_S = 20.0
# Beyond this part of its time windows wait for each other, so no replica is taken away that would
# leave the others with more.
FULL = 0.6
# Beyond its whole pace more replicas are asked for, so neither when this part of it would be left.
PACED = 0.8
# What waits is to be worked off in this time.
CATCH_UP_S = 30.0
# As long as they do not run, not more than so many times as many are asked for.
MOST_GROWTH = 3
# Taken away at once: this part at the most.
MOST_SHRINKAGE = 0.5
# What is done in a second is smoothed over this time before it counts as a pace.
SMOOTHED_S = 60.0

Series = Sequence[tuple[float, float]]  # (time, value), oldest first
# What a replica told, by its name.
Telling = Mapping[str, Series]


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many there may be, and how long there has to be reason for more or for fewer."""

    least: int
    most: int
    upscale_delay_s: float
    downscale_delay_s: float


@dataclass(frozen=True, slots=True)
class Fleet:
    """`target`: how many there are to be so far, `running`: how many are ready, `told`: how many
    of those have said what they have to do."""

    target: int
    running: int
    told: int


# What they have to do


@dataclass(frozen=True, slots=True)
class Doors:
    """What ingress replicas have: live streams, and files that they unpack or that wait for it.
    `told`: how many replicas have said so."""

    streams: float
    files: float
    told: int


@dataclass(frozen=True, slots=True)
class Work:
    """What engine replicas have, all together: seconds of audio that wait, those that are decoded
    in a second, by how many more wait with every second, and how many replicas' whole time they
    are busy. `told`: how many replicas have said so."""

    waiting_s: float = 0.0
    decoded_rate: float = 0.0
    waiting_rate: float = 0.0
    busy: float = 0.0
    told: int = 0


def doors_of(replicas: Iterable[Telling], now: float) -> Doors:
    """From what each replica told of its `streams` and `files`."""
    told = [latest for latest in (_latest(replica, now) for replica in replicas) if latest]
    return Doors(
        sum(latest.get("streams", 0.0) for latest in told),
        sum(latest.get("files", 0.0) for latest in told),
        len(told),
    )


def work_of(replicas: Iterable[Telling], now: float) -> Work:
    """From what each replica told of its `waiting_audio_s`, and of the `decoded_audio_s` and the
    `busy_s` since it began."""
    works = [_work(replica, now) for replica in replicas]
    return Work(
        waiting_s=sum(work.waiting_s for work in works),
        decoded_rate=sum(work.decoded_rate for work in works),
        waiting_rate=sum(work.waiting_rate for work in works),
        busy=sum(work.busy for work in works),
        told=sum(work.told for work in works),
    )


def _work(replica: Telling, now: float) -> Work:
    """Of one replica; one that has not said it twice has told nothing."""
    waiting = _fresh(replica.get("waiting_audio_s", ()), now)
    decoded = _rate(replica.get("decoded_audio_s", ()), now)
    busy = _rate(replica.get("busy_s", ()), now)
    waiting_s = waiting[-1][1] if waiting else 0.0
    if not waiting or decoded is None or busy is None:
        return Work(waiting_s)
    return Work(waiting_s, decoded, _rate(waiting, now) or 0.0, min(1.0, busy), 1)


def _latest(replica: Telling, now: float) -> dict[str, float]:
    fresh = {name: _fresh(series, now) for name, series in replica.items()}
    return {name: series[-1][1] for name, series in fresh.items() if series}


def _fresh(series: Series, now: float) -> Series:
    return [(at, value) for at, value in series if now - at <= TOLD_HOLDS_S]


def _rate(series: Series, now: float) -> float | None:
    """Change in a second; None when it was not told twice."""
    fresh = _fresh(series, now)
    if len(fresh) < 2 or fresh[-1][0] <= fresh[0][0]:
        return None
    return (fresh[-1][1] - fresh[0][1]) / (fresh[-1][0] - fresh[0][0])


# How many are needed for it


def doors_needed(doors: Doors, *, streams_each: float, files_each: float) -> int:
    """A replica is full of `streams_each` streams, of `files_each` files, or of a part of each."""
    return math.ceil(doors.streams / streams_each + doors.files / files_each - 1e-9)


@dataclass(frozen=True, slots=True)
class Pace:
    """What a replica has been seen to do without much waiting, in seconds of audio a second; 0:
    nothing yet. More is believed whenever it is seen, and less when much waits although less is
    done."""

    audio_rate: float = 0.0
    _lately: float = 0.0

    def seen(self, work: Work, elapsed_s: float, *, waits: bool) -> Pace:
        if not work.told:
            return self
        weight = 1 - math.exp(-elapsed_s / SMOOTHED_S)
        lately = self._lately + weight * (work.decoded_rate / work.told - self._lately)
        return Pace((min if waits else max)(self.audio_rate, lately), lately)


def work_needed(work: Work, pace: Pace, *, waiting_s: float) -> int:
    """`waiting_s`: audio that may wait for each replica."""
    if not work.told:
        return 0
    if waits(work, waiting_s=waiting_s):
        to_do = work.decoded_rate + max(0.0, work.waiting_rate) + work.waiting_s / CATCH_UP_S
        each = pace.audio_rate or work.decoded_rate / work.told
        most = MOST_GROWTH * work.told
        return max(work.told + 1, math.ceil(min(most, to_do / each)) if each > 0 else 0)
    by_time = work.busy / FULL
    by_pace = work.decoded_rate / pace.audio_rate / PACED if pace.audio_rate else by_time
    return min(work.told, math.ceil(min(by_time, by_pace) - 1e-9))


def waits(work: Work, *, waiting_s: float) -> bool:
    return work.waiting_s > waiting_s * work.told


# How many there are to be


@dataclass(frozen=True, slots=True)
class Peaks:
    """The largest value of the last seconds. `values`: (time, value), each larger than those
    behind it, so that there are never more of them than different values."""

    began: float
    values: tuple[tuple[float, int], ...] = ()

    def seen(self, value: int, now: float, span_s: float) -> Peaks:
        """The last value of those that are older than the span held until the next one."""
        kept = [(at, older) for at, older in self.values if older > value]
        fresh = [(at, older) for at, older in kept if at > now - span_s]
        return replace(self, values=(*fresh, (now, value)))

    def over(self, now: float, span_s: float) -> int | None:
        """None when they have not been watched for so long."""
        return self.values[0][1] if self.values and now - self.began >= span_s else None


@dataclass(frozen=True, slots=True)
class Needs:
    """How many replicas were needed lately: the most, and the fewest (as negative numbers)."""

    most: Peaks
    fewest: Peaks

    @classmethod
    def none(cls, now: float) -> Needs:
        return cls(Peaks(now), Peaks(now))

    def seen(self, needed: int, now: float, bounds: Bounds) -> Needs:
        return Needs(
            self.most.seen(needed, now, bounds.downscale_delay_s),
            self.fewest.seen(-needed, now, bounds.upscale_delay_s),
        )


def decide(
    needed: int, fleet: Fleet, needs: Needs, bounds: Bounds, now: float
) -> tuple[int, Needs]:
    """How many there are to be, and what to remember for the next time. `needed`: by what the
    replicas that told have to do."""
    if fleet.told < fleet.running or not fleet.running:
        needed = max(needed, fleet.target)
    needed = min(needed, max(fleet.target, MOST_GROWTH * fleet.running))
    needed = max(bounds.least, min(bounds.most, needed))
    needs = needs.seen(needed, now, bounds)
    fewest = needs.fewest.over(now, bounds.upscale_delay_s)
    most = needs.most.over(now, bounds.downscale_delay_s)
    if fewest is not None and -fewest > fleet.target:
        return -fewest, needs
    if most is not None and most < fleet.target:
        # Fewer than this only once the others have shown how they do.
        return max(most, math.ceil(fleet.target * MOST_SHRINKAGE)), Needs.none(now)
    return fleet.target, needs


@dataclass(frozen=True, slots=True)
class IngressScaling:
    """A replica is to hold `streams_each` streams, or to unpack `files_each` files."""

    bounds: Bounds
    streams_each: float
    files_each: float

    def decide(
        self, doors: Doors, fleet: Fleet, needs: Needs | None, now: float
    ) -> tuple[int, Needs]:
        """`needs`: what this gave the last time."""
        needed = doors_needed(doors, streams_each=self.streams_each, files_each=self.files_each)
        return decide(needed, fleet, needs or Needs.none(now), self.bounds, now)


@dataclass(frozen=True, slots=True)
class Learned:
    """What the scaling of engines remembers, and of when."""

    at: float
    needs: Needs
    pace: Pace = Pace()


@dataclass(frozen=True, slots=True)
class EngineScaling:
    """`waiting_s` seconds of audio may wait for each replica."""

    bounds: Bounds
    waiting_s: float

    def decide(
        self, work: Work, fleet: Fleet, learned: Learned | None, now: float
    ) -> tuple[int, Learned]:
        """`learned`: what this gave the last time."""
        learned = learned or Learned(now, Needs.none(now))
        much = waits(work, waiting_s=self.waiting_s)
        pace = learned.pace.seen(work, now - learned.at, waits=much)
        needed = work_needed(work, pace, waiting_s=self.waiting_s)
        target, needs = decide(needed, fleet, learned.needs, self.bounds, now)
        return target, Learned(now, needs, pace)
