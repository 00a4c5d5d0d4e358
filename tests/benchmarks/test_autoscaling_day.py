"""The fleet of the simulation, and that the decisions are played against it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import autoscaling_day
from benchmarks.autoscaling_day import Day, Load, day, knowing, lived, on_requests, ours, table
from benchmarks.fluid_engines import CPU, GPU, Engines, Told
from whisper_serve.config import AutoscalingConfig

SHORT_S = 7200


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Load:
    """Two hours; from the middle on there is work for five."""
    monkeypatch.setattr(autoscaling_day, "DAY_S", SHORT_S)
    streams = np.where(np.arange(SHORT_S) < SHORT_S / 2, 4.0, 25.0)
    return Load(streams, np.zeros(SHORT_S))


def test_engines_decode_live_audio_first() -> None:
    engines = Engines(CPU, 1)
    engines.step(live=30.0, files=30.0)
    assert (engines.live, engines.files, engines.decoded) == (0.0, 20.0, 40.0)
    engines.step(live=50.0, files=0.0)
    assert (engines.live, engines.files) == (10.0, 20.0)
    assert engines.part == 1.0


def test_a_replica_takes_its_time_to_come_and_less_where_a_machine_is_left() -> None:
    engines = Engines(GPU, 2)
    engines.scale(1)
    engines.scale(3)
    for _ in range(int(GPU.start_s)):
        engines.step(0.0, 0.0)
    assert (engines.running, engines.count) == (2, 3)
    for _ in range(int(GPU.machine_s)):
        engines.step(0.0, 0.0)
    assert (engines.running, engines.count) == (3, 3)


def test_what_has_not_come_yet_is_given_up_first() -> None:
    engines = Engines(GPU, 1)
    engines.scale(4)
    engines.scale(2)
    assert (engines.running, engines.count) == (1, 2)


def test_more_waits_the_more_there_is_to_do() -> None:
    def waiting(part: float) -> float:
        engines = Engines(CPU, 1)
        engines.step(part * CPU.pace, 0.0)
        return engines.waiting

    found = [waiting(part) for part in (0.0, 0.3, 0.6, 0.9, 1.0)]
    assert found == sorted(found)
    assert found[0] == 0.0


def test_a_gpu_is_busy_before_it_is_full() -> None:
    assert (GPU.busy(0.2), CPU.busy(0.2)) == (0.5, 0.2)
    engines, told = Engines(GPU, 1), Told()
    for _ in range(30):
        engines.step(0.5 * GPU.pace, 0.0)
        work = told.saw(engines)
    assert (work.told, work.busy) == (1, 1.0)
    assert work.decoded_rate == pytest.approx(150.0)


def test_a_day_is_the_same_with_the_same_seed() -> None:
    one, same, other = day(100, 50, 1), day(100, 50, 1), day(100, 50, 2)
    assert np.array_equal(one.streams, same.streams)
    assert not np.array_equal(one.files, other.files)


def lived_with(load: Load, decide: autoscaling_day.Decide) -> Day:
    return lived(load, CPU, decide, 1, late_s=2.0)


def test_the_oracle_is_never_late_and_never_pays_more_than_it_needs(short: Load) -> None:
    passed = lived_with(short, knowing(short, CPU))
    assert (passed.late, passed.held) == (0.0, passed.wanted)
    assert passed.paid[-1] == short.needed(CPU)[-1]
    assert passed.running[SHORT_S // 2] == short.needed(CPU)[-1]


def test_what_is_late_is_refused_until_there_are_enough(short: Load) -> None:
    passed = lived_with(short, lambda _engines, _work: 1)
    assert passed.late > 0
    assert passed.held < passed.wanted


def test_our_decisions_follow_the_load(short: Load) -> None:
    passed = lived_with(short, ours(AutoscalingConfig(), 20))
    assert passed.paid[SHORT_S // 2 - 1] == 1
    assert 4 <= passed.paid[-1] <= 8
    assert passed.waiting[-1] < 5.0 * passed.paid[-1]


def test_serves_decisions_follow_the_requests(short: Load) -> None:
    few, many = (lived_with(short, on_requests(each, 20)) for each in (0.5, 2.0))
    assert few.paid[-1] > many.paid[-1] > 1


def test_the_days_are_shown_side_by_side(short: Load, tmp_path: Path) -> None:
    days = autoscaling_day.compared(short, replace(CPU, name="test"), AutoscalingConfig(), 2.0)
    lines = table(days).splitlines()
    assert len(lines) == 2 + len(days)
    assert "| fixed |" in lines[2]
    autoscaling_day.plot(days, "two hours", tmp_path / "day.svg")
    assert (tmp_path / "day.svg").read_text().startswith("<?xml")
