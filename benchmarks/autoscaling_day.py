"""A day of load against the decisions that scale engines: what it costs, and who waits.

    .venv/bin/python -m benchmarks.autoscaling_day --plot docs/images/autoscaling-day.svg

The load is made up: streams and files by the hour as in an office, with a burst of twice as many
streams for twenty minutes, which nothing announces. The engines are a fluid (`fluid_engines.py`);
the decisions are those of `serving/scaling.py`. With them are compared

- *fixed*: as many replicas as the busiest minute needs, all day;
- *oracle*: knows the load as far ahead as a machine takes to come, and has at any time the fewest
  replicas that are busy to the part that `FULL` says;
- *on requests*: Serve's own policy with its own delays, with its default of 2 ongoing requests a
  replica, and with as many as a replica has that is busy to that part.

While live windows wait for more than `--late` seconds, streams that come are refused, as the door
does, until they do no longer. *Late* is the part of the time of all streams that were wanted in
which they waited so, *refused* the part that they were not let in. *Scaled*: how often the number
of replicas changed. Nothing here is a measurement.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
from ray.serve.autoscaling_policy import (
    _apply_delay_logic,
    replica_queue_length_autoscaling_policy,
)
from ray.serve.config import AutoscalingConfig as ServeAutoscaling

from benchmarks.figures import heading, percent, row, shown, shown_quantiles
from benchmarks.fluid_engines import CPU, FILE_S, GPU, Engines, Kind, Told
from whisper_serve.config import AutoscalingConfig
from whisper_serve.serving.scaling import FULL, Bounds, EngineScaling, Fleet, Learned, Work

DAY_S, HOUR_S = 86_400, 3_600
# Of the busiest hour, by the hour of the day.
OFFICE = (
    *(0.05, 0.03, 0.02, 0.02, 0.03, 0.06, 0.15, 0.4, 0.8, 1.0, 0.95, 0.9),
    *(0.6, 0.75, 0.95, 0.9, 0.8, 0.6, 0.4, 0.3, 0.25, 0.2, 0.15, 0.1),
)
BURST_AT_S, BURST_FOR_S, BURST_RISE_S, BURST = 12.4 * HOUR_S, 1200.0, 120.0, 2.0
WANDERS, WANDERS_EVERY_S = 0.08, 300
# Audio that is decoded for a second of a stream: partials, and windows that reach back.
STREAM_COST = 5.0
STREAM_S = 600.0
DECIDED_EVERY_S = 2
DRAWN_EVERY_S = 240
COLUMNS = (
    "policy", "replica-hours", "of fixed", "of oracle", "waiting audio p50 / p95 / max, s",
    "late", "refused", "scaled",
)  # fmt: skip

Series = npt.NDArray[np.float64]
# From the engines and what they told, how many there are to be.
Decide = Callable[[Engines, Work], int]


@dataclass(frozen=True, slots=True)
class Load:
    """Of each second of the day: streams that are wanted, and audio of files that comes."""

    streams: Series
    files: Series

    def needed(self, kind: Kind) -> Series:
        """Replicas that would be busy to the part `FULL`, by the minute."""
        rate = self.streams * STREAM_COST + self.files
        minutes = rate.reshape(-1, 60).mean(axis=1).repeat(60)
        needed: Series = np.maximum(1, np.ceil(minutes / (kind.pace * FULL)))
        return needed


def day(most_streams: float, files_rate: float, seed: int) -> Load:
    """`most_streams` in the busiest hour, and `files_rate` seconds of audio a second then."""
    chance = np.random.default_rng(seed)
    seconds = np.arange(DAY_S, dtype=np.float64)
    shape = np.interp(seconds, np.arange(len(OFFICE) + 1) * HOUR_S, [*OFFICE, OFFICE[0]])
    steps = chance.normal(1.0, WANDERS, DAY_S // WANDERS_EVERY_S + 1)
    wandering = np.interp(seconds, np.arange(len(steps)) * WANDERS_EVERY_S, steps)
    since = seconds - BURST_AT_S
    ramp = np.clip(np.minimum(since, BURST_RISE_S + BURST_FOR_S - since) / BURST_RISE_S, 0, 1)
    streams: Series = most_streams * shape * wandering * (1 + (BURST - 1) * ramp)
    files: Series = np.float64(FILE_S) * chance.poisson(files_rate * shape / FILE_S)
    return Load(streams, files)


@dataclass(slots=True)
class Day:
    """What each second of a day was like under one policy: replicas that are paid, those that
    run, audio that waits, and streams that are wanted, held, and late."""

    paid: list[int] = field(default_factory=list)
    running: list[int] = field(default_factory=list)
    waiting: list[float] = field(default_factory=list)
    wanted: float = 0.0
    held: float = 0.0
    late: float = 0.0

    @property
    def replica_hours(self) -> float:
        return sum(self.paid) / HOUR_S

    @property
    def scaled(self) -> int:
        return sum(a != b for a, b in zip(self.paid, self.paid[1:], strict=False))

    def show(self, name: str, fixed: float, oracle: float) -> str:
        waiting = f"{shown_quantiles(self.waiting, (0.5, 0.95), 0)} / {max(self.waiting):.0f}"
        return row(
            [
                *(name, shown(self.replica_hours, 1), percent(self.replica_hours / fixed)),
                *(percent(self.replica_hours / oracle), waiting),
                *(percent(self.late / self.wanted), percent(1 - self.held / self.wanted)),
                self.scaled,
            ]
        )


def lived(load: Load, kind: Kind, decide: Decide, first: int, late_s: float) -> Day:
    """The day, begun with `first` replicas."""
    engines, told, passed = Engines(kind, first), Told(), Day()
    held = 0.0
    for second in range(DAY_S):
        wanted, is_late = load.streams[second], engines.live_delay_s > late_s
        # Those who are there leave when they are done, and nobody comes in their place.
        held = min(wanted, held * (1 - 1 / STREAM_S)) if is_late else wanted
        engines.step(held * STREAM_COST, load.files[second])
        work = told.saw(engines)
        if second % DECIDED_EVERY_S == 0:
            engines.scale(decide(engines, work))
        passed.wanted += wanted
        passed.held += held
        passed.late += held * is_late
        passed.paid.append(engines.count)
        passed.running.append(engines.running)
        passed.waiting.append(engines.waiting)
    return passed


def ours(settings: AutoscalingConfig, most: int) -> Decide:
    bounds = Bounds(1, most, settings.upscale_delay_s, settings.downscale_delay_s)
    engine_scaling = EngineScaling(bounds, settings.waiting_audio_s)
    learned: Learned | None = None

    def decide(engines: Engines, work: Work) -> int:
        nonlocal learned
        fleet = Fleet(engines.count, engines.running, work.told)
        target, learned = engine_scaling.decide(work, fleet, learned, engines.now)
        return target

    return decide


def on_requests(each: float, most: int) -> Decide:
    """Serve's own policy, with `each` ongoing requests a replica as its target."""
    config = ServeAutoscaling(min_replicas=1, max_replicas=most, target_ongoing_requests=each)
    seen: list[float] = []
    state: dict[str, Any] = {}

    def decide(engines: Engines, _work: Work) -> int:
        nonlocal state
        seen.append(engines.requests)
        lately = seen[-round(config.look_back_period_s / DECIDED_EVERY_S) :]
        context = SimpleNamespace(
            total_num_requests=sum(lately) / len(lately),
            current_num_replicas=engines.running,
            target_num_replicas=engines.count,
            config=config,
            policy_state=state,
        )
        desired, _ = replica_queue_length_autoscaling_policy(context)
        wanted = max(1, min(most, math.ceil(desired)))
        target, state = _apply_delay_logic(wanted, engines.count, config, state, engines.now)
        return int(target)

    return decide


def knowing(load: Load, kind: Kind) -> Decide:
    """Has what is needed until another replica could be there."""
    needed, ahead = load.needed(kind), int(kind.machine_s + kind.start_s) + 2 * DECIDED_EVERY_S

    def decide(engines: Engines, _work: Work) -> int:
        now = int(engines.now)
        return int(needed[now : now + ahead].max(initial=needed[-1]))

    return decide


def compared(load: Load, kind: Kind, settings: AutoscalingConfig, late_s: float) -> dict[str, Day]:
    needed = load.needed(kind)
    most, first = int(needed.max()), int(needed[:600].max())
    full = FULL * kind.pace / kind.window_s * kind.decode_s
    policies: Mapping[str, tuple[Decide, int]] = {
        "fixed": (lambda _engines, _work: most, most),
        "oracle": (knowing(load, kind), first),
        "ours": (ours(settings, most), first),
        "on requests: 2": (on_requests(2.0, most), first),
        f"on requests: {full:.1f}": (on_requests(full, most), first),
    }
    return {
        name: lived(load, kind, decide, begun, late_s) for name, (decide, begun) in policies.items()
    }


def table(days: Mapping[str, Day]) -> str:
    fixed, oracle = days["fixed"].replica_hours, days["oracle"].replica_hours
    return "\n".join(
        [heading(COLUMNS), *(passed.show(name, fixed, oracle) for name, passed in days.items())]
    )


def plot(days: Mapping[str, Day], title: str, path: Path) -> None:
    """Replicas and waiting audio over the day."""
    import matplotlib as mpl  # noqa: PLC0415

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = path.stem
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, (replicas, waiting) = plt.subplots(2, sharex=True, figsize=(8, 6))
    hours = np.arange(0, DAY_S, DRAWN_EVERY_S) / HOUR_S
    for name, passed in days.items():
        most = np.asarray(passed.waiting).reshape(-1, DRAWN_EVERY_S).max(axis=1)
        replicas.step(hours, passed.paid[::DRAWN_EVERY_S], label=name, linewidth=1)
        waiting.plot(hours, np.maximum(1.0, most), label=name, linewidth=1)
    replicas.set_ylabel("replicas, with those that start")
    waiting.set_ylabel("waiting audio, s")
    waiting.set_yscale("log")
    waiting.set_xlabel("hour of the day")
    for axes in (replicas, waiting):
        axes.grid(alpha=0.3)
    replicas.legend(fontsize=8)
    figure.suptitle(title, fontsize=9)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(figure)


def arguments() -> argparse.Namespace:
    settings = AutoscalingConfig()
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--streams", type=float, default=400.0, help="in the busiest hour")
    parser.add_argument("--files", type=float, default=150.0, help="audio a second, then")
    parser.add_argument("--late", type=float, default=2.0, help="streaming.max_answer_s")
    parser.add_argument("--waiting", type=float, default=settings.waiting_audio_s)
    parser.add_argument("--up", type=float, default=settings.upscale_delay_s)
    parser.add_argument("--down", type=float, default=settings.downscale_delay_s)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", type=Path, help="of the engines on GPUs")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    settings = AutoscalingConfig(
        waiting_audio_s=options.waiting,
        upscale_delay_s=options.up,
        downscale_delay_s=options.down,
    )
    for kind in (GPU, CPU):
        # As many replicas of either kind, so that the two can be compared.
        scale = kind.pace / GPU.pace
        load = day(options.streams * scale, options.files * scale, options.seed)
        days = compared(load, kind, settings, options.late)
        title = (
            f"{kind.name}: {options.streams * scale:.0f} streams in the busiest hour, a machine "
            f"comes in {kind.machine_s:.0f} s"
        )
        print(f"\n{title}\n\n{table(days)}")
        if options.plot and kind is GPU:
            plot(days, title, options.plot)


if __name__ == "__main__":
    main()
