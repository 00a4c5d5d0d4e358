from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whisper_serve.api.shedding import (
    FEW,
    LEAN,
    LEAST_ANSWERS,
    LOAD_HOLDS_S,
    MEMORY_S,
    NEW_S,
    NEW_STREAMS,
    TIGHT,
    Bounds,
    Headroom,
)
from whisper_serve.engines.base import EngineLoad
from whisper_serve.errors import Overloaded
from whisper_serve.streaming.effort import Effort

BOUND_S = 2.0
BOUNDS = Bounds(BOUND_S, max_waiting_audio_s=100.0, max_queued=10)


def has_room(headroom: Headroom, now: float) -> bool:
    """Whoever is refused is told when to come again."""
    try:
        headroom.require_stream(now)
    except Overloaded as exc:
        wait_s = exc.retry_after_s
    else:
        return True
    assert 0 < wait_s <= NEW_S
    return False


def answered(headroom: Headroom, took_s: Iterable[float], now: float, *, lean: bool) -> None:
    """Answers that came at `now`."""
    for took in took_s:
        headroom.answered(headroom.asked(now - took, is_lean=lean), now)


def with_a_stream() -> Headroom:
    """Where somebody's delay is to be kept."""
    headroom = Headroom(BOUNDS)
    headroom.admitted(-NEW_S)
    return headroom


# Late answers


def test_there_is_room_where_nothing_is_known() -> None:
    assert has_room(Headroom(BOUNDS), 0.0)


@pytest.mark.parametrize(("took_s", "lean"), [(BOUND_S, False), (LEAN * BOUND_S, True)])
def test_there_is_room_while_answers_come_in_time(took_s: float, lean: bool) -> None:
    headroom = with_a_stream()
    answered(headroom, [took_s] * 100, now=10.0, lean=lean)
    assert has_room(headroom, 10.0)
    answered(headroom, [took_s + 0.01] * 20, now=10.0, lean=lean)
    assert not has_room(headroom, 10.0)


def test_a_few_late_ones_among_many_do_not_matter() -> None:
    headroom = with_a_stream()
    answered(headroom, [0.5] * 95 + [9.0] * 5, now=10.0, lean=False)
    assert has_room(headroom, 10.0)


def test_a_single_slow_one_does_not_matter_among_few() -> None:
    headroom = with_a_stream()
    answered(headroom, [9.0, *[0.1] * LEAST_ANSWERS], now=10.0, lean=False)
    assert has_room(headroom, 10.0)


def test_who_is_alone_has_room_however_late_answers_were() -> None:
    headroom = with_a_stream()
    answered(headroom, [9.0] * 10, now=10.0, lean=False)
    assert not has_room(headroom, 10.0)
    headroom = Headroom(BOUNDS)
    answered(headroom, [9.0] * 10, now=10.0, lean=False)
    assert has_room(headroom, 10.0)
    headroom.admitted(10.0)
    assert not has_room(headroom, 10.0)


def test_what_was_long_ago_is_forgotten() -> None:
    headroom = with_a_stream()
    answered(headroom, [9.0] * 10, now=10.0, lean=False)
    assert not has_room(headroom, 10.0 + MEMORY_S)
    assert has_room(headroom, 10.1 + MEMORY_S)


def test_an_answer_that_does_not_come_is_late_too() -> None:
    headroom = with_a_stream()
    waiting = [headroom.asked(0.0, is_lean=False) for _ in range(LEAST_ANSWERS)]
    assert has_room(headroom, BOUND_S)
    assert not has_room(headroom, BOUND_S + 0.1)
    for asked in waiting:
        headroom.gave_up(asked)
    assert has_room(headroom, BOUND_S + 0.1)


def test_streams_are_always_let_in_without_a_bound() -> None:
    headroom = Headroom(Bounds(None, None, 10))
    answered(headroom, [60.0] * 100, now=100.0, lean=True)
    for _ in range(100):
        headroom.require_stream(100.0)
        headroom.admitted(100.0)


# New streams


def test_so_many_may_be_new_at_a_time() -> None:
    headroom = Headroom(BOUNDS)
    at_first = FEW * NEW_STREAMS["cpu"]
    for number in range(at_first):
        assert has_room(headroom, number / 10)
        headroom.admitted(number / 10)
    with pytest.raises(Overloaded) as refusal:
        headroom.require_stream(1.0)
    # Half of them are not new any more then.
    assert refusal.value.retry_after_s == pytest.approx(NEW_S + at_first / 20 - 1.0)
    assert has_room(headroom, NEW_S + at_first / 20)


def test_one_that_left_makes_room() -> None:
    headroom = Headroom(BOUNDS)
    streams = [headroom.admitted(0.0) for _ in range(FEW * NEW_STREAMS["cpu"])]
    assert not has_room(headroom, 0.0)
    headroom.left(streams[0])
    assert has_room(headroom, 0.0)


def test_more_may_be_where_there_are_many() -> None:
    headroom = Headroom(BOUNDS)
    for _ in range(100):
        headroom.admitted(0.0)
    admitted = 0
    while has_room(headroom, 10.0):
        headroom.admitted(10.0)
        admitted += 1
    assert admitted > 90


def test_fewer_may_be_while_answers_are_rather_late() -> None:
    headroom = Headroom(BOUNDS)
    for _ in range(100):
        headroom.admitted(0.0)
    answered(headroom, [TIGHT * BOUND_S + 0.1] * 10, now=10.0, lean=False)
    admitted = 0
    while has_room(headroom, 10.0):
        headroom.admitted(10.0)
        admitted += 1
    assert 10 <= admitted <= 12


def test_more_may_be_on_a_gpu() -> None:
    headroom = Headroom(BOUNDS)
    headroom.engine_said(load(), "cuda", 0.0)
    for _ in range(FEW * NEW_STREAMS["cuda"]):
        headroom.require_stream(0.0)
        headroom.admitted(0.0)
    assert not has_room(headroom, 0.0)


# Files


def load(waiting_s: float = 0.0, files: int = 0) -> EngineLoad:
    return EngineLoad(files, waiting_s, running=1, oldest_running_s=0.0, waiting_files=files)


def takes_files(headroom: Headroom, now: float) -> bool:
    try:
        headroom.require_file(now)
    except Overloaded:
        return False
    return True


@pytest.mark.parametrize(
    ("said", "room"),
    [
        (load(100.0, files=9), True),
        (load(100.1, files=4), False),
        (load(10.0, files=10), False),
        (EngineLoad(10, 10.0, running=1, oldest_running_s=0.0, waiting_files=2), True),
    ],
)
def test_a_file_has_room_where_its_windows_have(said: EngineLoad, room: bool) -> None:
    headroom = Headroom(BOUNDS)
    assert takes_files(headroom, 0.0)
    headroom.engine_said(said, "cpu", 1.0)
    assert takes_files(headroom, 1.0) == room


def test_what_an_engine_said_long_ago_does_not_count() -> None:
    headroom = Headroom(BOUNDS)
    headroom.engine_said(load(1e6, files=10), "cpu", 0.0)
    assert not takes_files(headroom, LOAD_HOLDS_S)
    assert takes_files(headroom, LOAD_HOLDS_S + 0.1)


def test_without_a_bound_only_the_queue_counts() -> None:
    headroom = Headroom(Bounds(BOUND_S, None, 10))
    headroom.engine_said(load(1e6, files=9), "cpu", 0.0)
    assert takes_files(headroom, 0.0)


# A model of an engine with streams

CHUNK_S = 5.0
PATIENT = 0.5
MOST_WINDOW_S = 28.0
# How much more a window costs with all that a stream can do with.
FULL_COST = 4.0


@dataclass
class Stream:
    """Asks for a window every `CHUNK_S` seconds of audio, and one at a time."""

    ends_at: float
    heard_until: float
    effort: Effort = field(default_factory=lambda: Effort(20.0, 1.5))

    def cost(self, lean_s: float, now: float) -> float:
        new_s, self.heard_until = min(MOST_WINDOW_S, now - self.heard_until), now
        share = self.effort.reach_s / 20.0
        return lean_s * (0.5 + 0.5 * new_s / CHUNK_S) * (1 + share * (FULL_COST - 1))


class Engine:
    """Does one window after the other, and can keep up with `capacity` streams that ask for as
    little as they can. `offered` times as many come; each stays for about `life_s`."""

    def __init__(self, bounds: Bounds, *, capacity: int, life_s: float, offered: float) -> None:
        self._headroom = Headroom(bounds)
        self._lean_s = CHUNK_S / capacity
        self._life_s = life_s
        self._rate = offered * capacity / life_s
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._numbers = count()
        self._free_at = 0.0
        self.delays_s: list[float] = []
        self.most_streams = self.refused = 0

    def run(self, duration_s: float, chance: random.Random) -> None:
        self._chance = chance
        for _ in range(int(self._rate * self._life_s)):
            self._at(chance.uniform(0, min(60.0, self._life_s)), self._come)
        came = 0.0
        while (came := came + chance.expovariate(self._rate)) < duration_s:
            self._at(came, self._come)
        while self._events and self._events[0][0] < duration_s:
            now, _, happen = heapq.heappop(self._events)
            happen(now)

    @property
    def p95_s(self) -> float:
        return sorted(self.delays_s)[int(0.95 * len(self.delays_s))]

    def _at(self, when: float, happen: Callable[[float], None]) -> None:
        heapq.heappush(self._events, (when, next(self._numbers), happen))

    def _come(self, now: float) -> None:
        try:
            self._headroom.require_stream(now)
        except Overloaded as exc:
            self.refused += 1
            if self._chance.random() < PATIENT:
                self._at(now + exc.retry_after_s, self._come)
            return
        place = self._headroom.admitted(now)
        self.most_streams = max(self.most_streams, self._headroom.streams)
        stream = Stream(now + self._chance.expovariate(1 / self._life_s), now)
        self._at(now + CHUNK_S, lambda at: self._ask(stream, at))
        self._at(stream.ends_at, lambda _: self._headroom.left(place))

    def _ask(self, stream: Stream, now: float) -> None:
        if now > stream.ends_at:
            return
        asked = self._headroom.asked(now, is_lean=not stream.effort.is_thorough)
        begins_at = max(now, self._free_at)
        self._free_at = begins_at + stream.cost(self._lean_s, now)

        def answer(at: float) -> None:
            self._headroom.answered(asked, at)
            self.delays_s.append(at - now)
            stream.effort.learn(at - now, begins_at - now)
            self._at(max(at, now + CHUNK_S), lambda then: self._ask(stream, then))

        self._at(self._free_at, answer)


@settings(max_examples=25, derandomize=True)
@given(
    capacity=st.integers(24, 120),
    life_s=st.sampled_from([30.0, 120.0, 1200.0]),
    seed=st.integers(0, 1_000),
)
def test_at_twice_the_capacity_those_who_were_admitted_keep_their_delay(
    capacity: int, life_s: float, seed: int
) -> None:
    """But for a tenth: how many streams are too many shows only when they are there."""
    engine = Engine(BOUNDS, capacity=capacity, life_s=life_s, offered=2.0)
    engine.run(240.0, random.Random(seed))
    assert engine.refused > 0
    assert engine.p95_s < 1.1 * BOUND_S


def test_they_do_so_as_a_rule_with_much_to_spare() -> None:
    engines = [Engine(BOUNDS, capacity=64, life_s=120.0, offered=2.0) for _ in range(9)]
    for seed, engine in enumerate(engines):
        engine.run(240.0, random.Random(seed))
    assert sorted(engine.p95_s for engine in engines)[4] < 0.75 * BOUND_S


@pytest.mark.parametrize("life_s", [30.0, 120.0, 1200.0])
def test_where_nobody_is_refused_nobody_keeps_it(life_s: float) -> None:
    """What the model above is worth."""
    engine = Engine(Bounds(None, None, 1), capacity=64, life_s=life_s, offered=2.0)
    engine.run(240.0, random.Random(1))
    assert engine.refused == 0
    assert engine.p95_s > 8 * BOUND_S


@pytest.mark.parametrize("life_s", [120.0, 1200.0])
def test_a_good_part_of_the_capacity_is_used(life_s: float) -> None:
    engine = Engine(BOUNDS, capacity=32, life_s=life_s, offered=2.0)
    engine.run(240.0, random.Random(1))
    assert engine.most_streams > 0.4 * 32
