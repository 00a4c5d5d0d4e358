from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whisper_serve.serving.scaling import (
    MOST_GROWTH,
    TOLD_HOLDS_S,
    Bounds,
    Doors,
    EngineScaling,
    Fleet,
    IngressScaling,
    Learned,
    Needs,
    Pace,
    Peaks,
    Series,
    Work,
    decide,
    doors_needed,
    doors_of,
    work_needed,
    work_of,
)

UP_S, DOWN_S = 5.0, 60.0
BOUNDS = Bounds(1, 10, UP_S, DOWN_S)
IDLE = Work(told=4)
UNKNOWN = Pace()


def steady(rate: float, *, now: float = 100.0, level: float = 0.0) -> Series:
    """What was told every two seconds of something that grows."""
    return [(now - age, level + rate * (100.0 - age)) for age in range(20, -1, -2)]


# What they have to do


def test_streams_and_files_of_all_replicas_count() -> None:
    replicas = [{"streams": [(99.0, 3.0), (100.0, 4.0)], "files": [(100.0, 1.0)]}] * 2
    assert doors_of(replicas, 100.0) == Doors(8.0, 2.0, 2)


def test_a_replica_that_is_silent_has_told_nothing() -> None:
    before = 100.0 - TOLD_HOLDS_S - 1
    assert doors_of([{"streams": [(before, 3.0)]}, {}], 100.0) == Doors(0.0, 0.0, 0)


def test_work_is_told_by_what_was_counted() -> None:
    replica = {
        "waiting_audio_s": steady(0.5),
        "decoded_audio_s": steady(30.0),
        "busy_s": steady(0.25),
    }
    work = work_of([replica, replica], 100.0)
    rates = [work.decoded_rate, work.waiting_rate, work.busy]
    assert rates == pytest.approx([60.0, 1.0, 0.5])
    assert (work.waiting_s, work.told) == (100.0, 2)


def test_a_replica_that_just_began_has_told_of_its_queue_alone() -> None:
    once = {name: [(100.0, 7.0)] for name in ("waiting_audio_s", "decoded_audio_s", "busy_s")}
    assert work_of([once], 100.0) == Work(waiting_s=7.0, told=0)


def test_nobody_is_busy_more_than_all_the_time() -> None:
    """Clocks and counters are read one after the other."""
    told = {"waiting_audio_s": steady(0), "decoded_audio_s": steady(1), "busy_s": steady(1.1)}
    assert work_of([told], 100.0).busy == 1.0


# How many are needed for it


@pytest.mark.parametrize(
    ("streams", "files", "needed"),
    [(0, 0, 0), (1, 0, 1), (24, 0, 1), (25, 0, 2), (0, 4, 1), (12, 2, 1), (12, 3, 2), (240, 0, 10)],
)
def test_a_replica_is_full_of_streams_or_files_or_both(
    streams: float, files: float, needed: int
) -> None:
    assert doors_needed(Doors(streams, files, 1), streams_each=24, files_each=4) == needed


def needed_for(work: Work, pace: Pace = UNKNOWN) -> int:
    return work_needed(work, pace, waiting_s=10.0)


def test_engines_without_work_are_not_needed() -> None:
    assert needed_for(IDLE) == 0


def test_what_is_busy_is_needed_with_room_to_spare() -> None:
    assert needed_for(replace(IDLE, busy=1.1, decoded_rate=50.0)) == 2
    assert needed_for(replace(IDLE, busy=1.3, decoded_rate=50.0)) == 3


def test_busy_engines_that_were_seen_to_do_more_are_not_needed() -> None:
    busy = replace(IDLE, busy=4.0, decoded_rate=80.0)
    assert needed_for(busy) == 4
    assert needed_for(busy, Pace(40.0)) == 3
    assert needed_for(busy, Pace(100.0)) == 1


def test_only_what_waits_needs_more() -> None:
    assert needed_for(replace(IDLE, busy=4.0, decoded_rate=80.0), Pace(1.0)) == 4


def test_audio_that_waits_needs_more_than_there_are() -> None:
    assert needed_for(replace(IDLE, waiting_s=41.0)) == 5


def test_much_of_it_needs_as_many_as_work_it_off() -> None:
    late = Work(waiting_s=3000.0, decoded_rate=100.0, waiting_rate=50.0, busy=4.0, told=4)
    # 150 come in a second, and 100 more are to be done in it until nothing waits.
    assert needed_for(late, Pace(25.0)) == 10


def test_what_is_unknown_needs_nothing() -> None:
    assert needed_for(Work(waiting_s=500.0, told=0)) == 0


# The pace


def paced(works: Sequence[tuple[Work, bool]], step_s: float = 10.0) -> float:
    pace = Pace()
    for work, waits in works:
        pace = pace.seen(work, step_s, waits=waits)
    return pace.audio_rate


def test_a_pace_that_was_seen_is_kept() -> None:
    loaded, quiet = Work(decoded_rate=200.0, told=2), Work(decoded_rate=2.0, told=2)
    assert paced([(loaded, False)] * 100) == pytest.approx(100.0)
    assert paced([(loaded, False)] * 100 + [(quiet, False)] * 100) == pytest.approx(100.0)


def test_a_pace_that_is_not_held_any_more_is_forgotten() -> None:
    loaded, slower = Work(decoded_rate=200.0, told=2), Work(decoded_rate=80.0, told=2)
    assert paced([(loaded, False)] * 100 + [(slower, True)] * 100) == pytest.approx(40.0)


def test_what_is_done_while_much_waits_is_no_pace() -> None:
    loaded, saturated = Work(decoded_rate=200.0, told=2), Work(decoded_rate=300.0, told=2)
    assert paced([(loaded, False)] * 100 + [(saturated, True)] * 100) == pytest.approx(100.0)


# How many there are to be


class Run:
    """A fleet in which every replica that is asked for is there at once."""

    def __init__(self, target: int = 1, bounds: Bounds = BOUNDS) -> None:
        self.now, self.target, self.bounds = 0.0, target, bounds
        self.needs = Needs.none(0.0)

    def needs_for(self, seconds: int, needed: int, *, told: int | None = None) -> list[int]:
        targets = []
        for _ in range(seconds):
            self.now += 1.0
            fleet = Fleet(self.target, self.target, self.target if told is None else told)
            self.target, self.needs = decide(needed, fleet, self.needs, self.bounds, self.now)
            targets.append(self.target)
        return targets


def test_more_come_when_they_are_needed_for_some_time() -> None:
    run = Run()
    assert run.needs_for(4, 3) == [1, 1, 1, 1]
    assert run.needs_for(1, 3) == [3]


def test_a_moment_is_no_reason_for_more() -> None:
    run = Run()
    for _ in range(20):
        assert run.needs_for(4, 5) == [1] * 4
        assert run.needs_for(1, 1) == [1]


def test_so_many_come_as_were_needed_all_the_time() -> None:
    run = Run(2)
    run.needs_for(3, 6)
    assert run.needs_for(4, 4)[-1] == 4


def test_fewer_stay_when_they_were_enough_for_some_time() -> None:
    run = Run(4)
    assert set(run.needs_for(59, 3)) == {4}
    assert run.needs_for(1, 3) == [3]


def test_so_many_stay_as_were_needed_at_any_time() -> None:
    run = Run(8)
    run.needs_for(30, 2)
    run.needs_for(1, 6)
    assert run.needs_for(28, 2)[-1] == 8
    assert run.needs_for(1, 2) == [6]


def test_half_of_them_goes_at_once_and_no_more() -> None:
    run = Run(9)
    assert run.needs_for(60, 0)[-1] == 5
    assert run.needs_for(60, 0)[-2:] == [5, 3]


def test_there_are_never_more_than_some_times_those_that_run() -> None:
    needs, now = Needs.none(0.0), 0.0
    target = 2
    for _ in range(30):
        now += 1.0
        target, needs = decide(10, Fleet(target, 2, 2), needs, BOUNDS, now)
    assert target == 2 * MOST_GROWTH


@pytest.mark.parametrize("told", [0, 3])
def test_nobody_goes_while_somebody_is_silent(told: int) -> None:
    run = Run(4)
    assert set(run.needs_for(200, 0, told=told)) == {4}


def test_nobody_goes_while_nobody_runs() -> None:
    needs, target = Needs.none(0.0), 3
    for second in range(200):
        target, needs = decide(0, Fleet(target, 0, 0), needs, BOUNDS, float(second))
        assert target == 3


def test_one_that_died_is_no_reason_for_fewer() -> None:
    """What it did is not needed until its streams are back."""
    run = Run(4)
    run.needs_for(100, 4)
    assert set(run.needs_for(30, 3)) == {4}
    run.needs_for(1, 4)
    assert set(run.needs_for(59, 3)) == {4}


# Whatever comes

needs_of = st.lists(st.integers(0, 30), min_size=1, max_size=200)
bounds_of = st.builds(
    lambda least, more, up, down: Bounds(least, least + more, up, down),
    st.integers(1, 4),
    st.integers(0, 8),
    st.sampled_from([0.0, 1.0, 3.0]),
    st.sampled_from([0.0, 5.0, 20.0]),
)


@given(needs_of, bounds_of)
def test_the_bounds_hold(needed: list[int], bounds: Bounds) -> None:
    run = Run(bounds.least, bounds)
    for each in needed:
        [target] = run.needs_for(1, each)
        assert bounds.least <= target <= bounds.most


@given(needs_of, bounds_of)
def test_nothing_changes_against_what_was_needed_throughout(
    needed: list[int], bounds: Bounds
) -> None:
    """More come only when each moment of the last `upscale_delay_s` needed them, and fewer only
    when none of the last `downscale_delay_s` needed what goes: so the number never swings faster
    than that."""
    run = Run(bounds.least, bounds)
    for second, each in enumerate(needed):
        before = run.target
        [target] = run.needs_for(1, each)
        clipped = [max(bounds.least, min(bounds.most, one)) for one in needed[: second + 1]]
        if target > before:
            assert min(clipped[-max(1, int(bounds.upscale_delay_s)) :]) >= target
        if target < before:
            assert max(clipped[-max(1, int(bounds.downscale_delay_s)) :]) <= target


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 9)), min_size=1), st.integers(1, 30))
def test_the_peak_of_the_last_seconds_is_what_it_is(
    steps: list[tuple[int, int]], span: int
) -> None:
    peaks, now, seen = Peaks(0.0), 0, list[tuple[int, int]]()
    for step, value in steps:
        now += step
        peaks = peaks.seen(value, float(now), float(span))
        seen.append((now, value))
        largest = max(value for at, value in seen if at > now - span)
        assert peaks.over(float(now), float(span)) == (largest if now >= span else None)
        assert len(peaks.values) <= 10


works = st.builds(
    Work,
    waiting_s=st.floats(0, 1e5),
    decoded_rate=st.floats(-10, 1e4),
    waiting_rate=st.floats(-1e3, 1e3),
    busy=st.floats(0, 20),
    told=st.integers(0, 20),
)


@settings(max_examples=50)
@given(st.lists(st.tuples(works, st.integers(0, 20)), min_size=1, max_size=60), bounds_of)
def test_engines_are_scaled_within_their_bounds_whatever_they_tell(
    told: list[tuple[Work, int]], bounds: Bounds
) -> None:
    scaling, target = EngineScaling(bounds, waiting_s=10.0), bounds.least
    learned: Learned | None = None
    for second, (work, running) in enumerate(told):
        before = target
        target, learned = scaling.decide(
            work, Fleet(target, running, work.told), learned, float(second)
        )
        assert bounds.least <= target <= bounds.most
        assert target >= before or work.told >= running > 0


def test_what_is_remembered_can_be_kept() -> None:
    _, learned = EngineScaling(BOUNDS, 10.0).decide(IDLE, Fleet(4, 4, 4), None, 1.0)
    assert pickle.loads(pickle.dumps(learned)) == learned  # noqa: S301


# Both kinds


def test_an_ingress_that_is_full_gets_company() -> None:
    scaling = IngressScaling(replace(BOUNDS, upscale_delay_s=0.0), 24.0, 4.0)
    target, _ = scaling.decide(Doors(30, 0, 1), Fleet(1, 1, 1), None, 0.0)
    assert target == 2


def test_an_engine_that_is_late_gets_company() -> None:
    scaling = EngineScaling(replace(BOUNDS, upscale_delay_s=0.0), 10.0)
    target, _ = scaling.decide(Work(11.0, 5.0, 0.0, 1.0, 1), Fleet(1, 1, 1), None, 0.0)
    assert target == 2
