from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from whisper_serve.engines.base import DecodeTask, Lane
from whisper_serve.engines.scheduler import (
    LIVE_MEMORY_S,
    MAX_GAP_S,
    MAX_PATIENCE_S,
    MEMORY,
    Job,
    Room,
    Scheduler,
)

# Nobody listens to them; a window is as long as it takes of them.
SAMPLES = np.zeros(3_000, np.int16)
FINAL, PARTIAL, FILE = Lane.LIVE_FINAL, Lane.LIVE_PARTIAL, Lane.FILE
ALL = Room(rows=1_000)
ONE = Room(rows=1)


def job_of(session: str = "", lane: Lane = FILE, *, audio_s: float = 0.01, at: float = 0.0) -> Job:
    samples = SAMPLES[: round(audio_s * 16_000)]
    return Job(DecodeTask(samples, session_id=session, lane=lane), queued_at=at)


def waiting(*jobs: Job) -> Scheduler:
    """A scheduler to which `jobs` came one after the other."""
    scheduler = Scheduler()
    for job in jobs:
        scheduler.add(job, now=0.0)
    return scheduler


def sessions(jobs: Sequence[Job]) -> list[str]:
    return [job.task.session_id for job in jobs]


# Lanes and turns


def test_nothing_comes_from_nothing() -> None:
    scheduler = Scheduler()
    assert scheduler.take(ALL, now=0.0) == []
    assert (scheduler.waiting(), scheduler.waiting_s()) == (0, 0.0)


def test_live_windows_come_before_files_and_finals_before_partials() -> None:
    scheduler = waiting(job_of("file"), job_of("partial", PARTIAL), job_of("final", FINAL))
    assert sessions(scheduler.take(ALL, now=0.0)) == ["final", "partial"]
    assert sessions(scheduler.take(ALL, now=0.0)) == ["file"]


def test_files_are_never_taken_with_live_windows_however_much_room_there_is() -> None:
    scheduler = waiting(*(job_of("file") for _ in range(3)), job_of("live", PARTIAL))
    assert sessions(scheduler.take(ALL, now=0.0)) == ["live"]


@pytest.mark.parametrize("lane", [FINAL, FILE])
def test_sessions_take_turns(lane: Lane) -> None:
    scheduler = waiting(*(job_of(name, lane) for name in "aaabbc"))
    assert "".join(sessions(scheduler.take(ALL, now=0.0))) == "abcaba"


def test_a_session_has_had_its_turn_though_others_come_later() -> None:
    scheduler = waiting(*(job_of(name) for name in "aab"))
    assert sessions(scheduler.take(ONE, now=0.0)) == ["a"]
    scheduler.add(job_of("c"), now=0.0)
    assert "".join(sessions(scheduler.take(ALL, now=0.0))) == "bac"


def test_a_session_s_windows_keep_their_order() -> None:
    jobs = [job_of("a") for _ in range(5)]
    assert waiting(*jobs).take(ALL, now=0.0) == jobs


def test_windows_that_do_not_tell_whose_they_are_are_strangers() -> None:
    jobs = [job_of(lane=PARTIAL) for _ in range(3)]
    assert waiting(*jobs).take(ALL, now=0.0) == jobs


def test_a_request_that_is_no_session_is_a_party_of_its_own() -> None:
    jobs = [Job(DecodeTask(SAMPLES, request_id=request_id), queued_at=0.0) for request_id in "aab"]
    taken = waiting(*jobs).take(ALL, now=0.0)
    assert "".join(job.task.request_id for job in taken) == "aba"


# Partials


def test_a_newer_partial_replaces_the_one_that_waits() -> None:
    older, newer = job_of("a", PARTIAL), job_of("a", PARTIAL)
    scheduler = waiting(older)
    assert scheduler.add(newer, now=0.0) is older
    assert scheduler.take(ALL, now=0.0) == [newer]


def test_a_partial_replaces_nothing_of_other_sessions_or_lanes() -> None:
    scheduler = waiting(job_of("b", PARTIAL), job_of("a", FINAL), job_of("a", FILE))
    assert scheduler.add(job_of("a", PARTIAL), now=0.0) is None
    assert scheduler.waiting() == 4


@pytest.mark.parametrize("lane", [FINAL, FILE])
def test_finals_and_files_are_never_replaced(lane: Lane) -> None:
    scheduler = waiting(job_of("a", lane))
    assert scheduler.add(job_of("a", lane), now=0.0) is None
    assert scheduler.waiting(lane) == 2


def test_a_partial_that_was_taken_is_not_replaced() -> None:
    scheduler = waiting(job_of("a", PARTIAL))
    scheduler.take(ALL, now=0.0)
    assert scheduler.add(job_of("a", PARTIAL), now=0.0) is None


def test_a_newer_partial_has_the_place_of_the_older() -> None:
    scheduler = waiting(*(job_of(name, PARTIAL) for name in "abc"))
    scheduler.add(job_of("a", PARTIAL), now=0.0)
    assert "".join(sessions(scheduler.take(ALL, now=0.0))) == "abc"


# Room


def test_no_more_windows_are_taken_than_there_is_room_for() -> None:
    scheduler = waiting(*(job_of(f"{n}", FINAL) for n in range(3)), job_of("p", PARTIAL))
    assert len(scheduler.take(Room(rows=2), now=0.0)) == 2
    assert sessions(scheduler.take(Room(rows=2), now=0.0)) == ["2", "p"]


def test_without_room_nothing_is_taken() -> None:
    scheduler = waiting(job_of("a", FINAL), job_of("b"))
    assert scheduler.take(Room(rows=0), now=0.0) == []
    assert scheduler.waiting() == 2


def test_audio_is_taken_up_to_the_limit() -> None:
    scheduler = waiting(*(job_of(f"{n}", audio_s=0.1) for n in range(5)))
    assert len(scheduler.take(Room(rows=9, audio_s=0.35), now=0.0)) == 3


@pytest.mark.parametrize("lane", list(Lane))
def test_one_window_is_taken_however_long_it_is(lane: Lane) -> None:
    scheduler = waiting(job_of("a", lane, audio_s=0.15), job_of("b", lane))
    assert sessions(scheduler.take(Room(rows=9, audio_s=0.1), now=0.0)) == ["a"]


def test_no_short_window_slips_in_before_a_long_one() -> None:
    """Or the long one would wait for as long as short ones come."""
    scheduler = waiting(
        job_of("short", FINAL, audio_s=0.02),
        job_of("long", FINAL, audio_s=0.15),
        job_of("behind", FINAL, audio_s=0.02),
        job_of("partial", PARTIAL, audio_s=0.02),
    )
    room = Room(rows=9, audio_s=0.1)
    assert sessions(scheduler.take(room, now=0.0)) == ["short"]
    assert sessions(scheduler.take(room, now=0.0)) == ["long"]
    assert sessions(scheduler.take(room, now=0.0)) == ["behind", "partial"]


def test_files_leave_places_free_while_there_is_live_work() -> None:
    scheduler = waiting(*(job_of(f"{n}") for n in range(6)))
    scheduler.add(job_of("live", FINAL), now=100.0)
    scheduler.take(ONE, now=100.0)
    room = Room(rows=4, file_rows=1)
    assert len(scheduler.take(room, now=100.0)) == 1
    assert len(scheduler.take(room, now=100.0 + LIVE_MEMORY_S / 2)) == 1
    assert len(scheduler.take(room, now=100.0 + LIVE_MEMORY_S)) == 4


def test_files_wait_when_their_places_are_taken() -> None:
    scheduler = waiting(job_of("file"), job_of("live", PARTIAL))
    room = Room(rows=4, file_rows=0)
    assert sessions(scheduler.take(room, now=0.0)) == ["live"]
    assert scheduler.take(room, now=0.0) == []
    assert sessions(scheduler.take(room, now=LIVE_MEMORY_S)) == ["file"]


def test_places_kept_from_files_are_not_kept_from_live_windows() -> None:
    scheduler = waiting(*(job_of(f"{n}", FINAL) for n in range(3)))
    assert len(scheduler.take(Room(rows=3, file_rows=1), now=0.0)) == 3


def test_without_live_work_files_have_all_places() -> None:
    scheduler = waiting(*(job_of(f"{n}") for n in range(3)))
    assert len(scheduler.take(Room(rows=3, file_rows=1), now=0.0)) == 3


# Company


def with_company(job: Job, company: str) -> Job:
    job.company = company
    return job


def test_windows_that_can_be_decoded_together_come_along_with_the_one_whose_turn_it_is() -> None:
    jobs = [with_company(job_of(f"{n}"), company) for n, company in enumerate("xyxyx")]
    scheduler = waiting(*jobs)
    assert sessions(scheduler.take(ALL, now=0.0)) == ["0", "2", "4"]
    assert sessions(scheduler.take(ALL, now=0.0)) == ["1", "3"]


def test_company_does_not_change_the_order_within_a_session() -> None:
    jobs = [with_company(job_of("a"), company) for company in "xyx"]
    scheduler = waiting(*jobs)
    assert [scheduler.take(ALL, now=0.0) for _ in range(3)] == [[job] for job in jobs]


@given(st.lists(st.sampled_from("xyz"), min_size=1, max_size=20), st.integers(1, 5))
def test_the_window_that_waits_longest_is_always_taken(companies: list[str], rows: int) -> None:
    scheduler = waiting(*[with_company(job_of(f"{n}"), c) for n, c in enumerate(companies)])
    left = [f"{n}" for n in range(len(companies))]
    while left:
        taken = sessions(scheduler.take(Room(rows), now=0.0))
        assert taken[0] == left[0]
        assert len({companies[int(n)] for n in taken}) == 1
        left = [n for n in left if n not in taken]


# Windows that are put back, and windows that are removed


@pytest.mark.parametrize("lane", list(Lane))
def test_a_window_that_is_put_back_does_not_hold_the_others_up(lane: Lane) -> None:
    first, *others = [job_of(name, lane) for name in ("a", "b", "c")]
    scheduler = waiting(first, *others)
    [half_done] = scheduler.take(ONE, now=0.0)
    scheduler.put_back(half_done)
    assert scheduler.take(ALL, now=0.0) == [*others, first]


def test_a_window_that_is_put_back_goes_before_its_session_s_next() -> None:
    jobs = [job_of("a", FINAL) for _ in range(3)]
    scheduler = waiting(*jobs)
    [half_done] = scheduler.take(ONE, now=0.0)
    scheduler.put_back(half_done)
    assert scheduler.take(ALL, now=0.0) == jobs


def test_a_file_that_is_put_back_goes_behind_live_windows() -> None:
    scheduler = waiting(job_of("file"))
    [half_done] = scheduler.take(ONE, now=0.0)
    scheduler.put_back(half_done)
    scheduler.add(job_of("live", PARTIAL), now=0.0)
    assert sessions(scheduler.take(ALL, now=0.0)) == ["live"]


def test_a_newer_partial_replaces_one_that_is_half_done() -> None:
    scheduler = waiting(job_of("a", PARTIAL))
    [half_done] = scheduler.take(ONE, now=0.0)
    scheduler.put_back(half_done)
    newer = job_of("a", PARTIAL)
    assert scheduler.add(newer, now=0.0) is half_done
    assert scheduler.take(ALL, now=0.0) == [newer]


def test_what_is_unwanted_is_removed_from_all_lanes() -> None:
    jobs = [job_of(name, lane) for name in "ab" for lane in Lane]
    scheduler = waiting(*jobs)
    removed = scheduler.remove(lambda job: job.task.session_id == "a")
    assert set(removed) == set(jobs[:3])
    assert scheduler.remove(lambda job: job.task.session_id == "a") == []
    assert (scheduler.waiting(), scheduler.waiting(FINAL)) == (3, 1)


def test_it_knows_how_much_audio_waits() -> None:
    scheduler = waiting(job_of("a", FINAL, audio_s=0.1), job_of("b", audio_s=0.15))
    assert scheduler.waiting_s() == pytest.approx(0.25)
    scheduler.take(ONE, now=0.0)
    assert scheduler.waiting_s() == pytest.approx(0.15)


# Waiting for company


def busy(gap_s: float, *, rows: int = 8) -> tuple[Scheduler, float]:
    """A scheduler to which windows came at distances of `gap_s`, all of which were taken; and
    the time of the last."""
    scheduler, now = Scheduler(), 0.0
    for _ in range(20 * MEMORY):
        now += gap_s
        scheduler.add(job_of(at=now), now)
        scheduler.take(Room(rows), now)
    return scheduler, now


def test_the_first_window_of_all_waits_for_no_company() -> None:
    scheduler = waiting(job_of())
    assert scheduler.patience_s(Room(rows=8), now=0.0) <= 0


@pytest.mark.parametrize("gap_s", [MAX_PATIENCE_S * 1.1, MAX_GAP_S, 60 * MAX_GAP_S])
def test_windows_that_come_rarely_do_not_wait_for_each_other(gap_s: float) -> None:
    scheduler, now = busy(gap_s)
    scheduler.add(job_of(at=now + gap_s), now + gap_s)
    assert scheduler.patience_s(Room(rows=8), now + gap_s) <= 0


def test_windows_that_come_close_together_wait_for_each_other_a_little() -> None:
    scheduler, now = busy(MAX_PATIENCE_S / 10)
    scheduler.add(job_of(at=now), now)
    first_s = scheduler.patience_s(Room(rows=8), now)
    assert 0 < first_s <= MAX_PATIENCE_S + 1e-9
    later = now + MAX_PATIENCE_S / 2
    scheduler.add(job_of(at=later), later)
    assert 0 < scheduler.patience_s(Room(rows=8), later) < first_s
    assert scheduler.patience_s(Room(rows=8), now + MAX_PATIENCE_S) <= 1e-9


def test_as_many_windows_as_there_is_room_for_wait_no_longer() -> None:
    scheduler, now = busy(MAX_PATIENCE_S / 10)
    scheduler.add(job_of(at=now), now)
    assert scheduler.patience_s(Room(rows=2), now) > 0
    assert scheduler.patience_s(Room(rows=1), now) <= 0
    scheduler.add(job_of(at=now), now)
    assert scheduler.patience_s(Room(rows=2), now) <= 0


def test_a_window_behind_a_pause_does_not_wait_for_company() -> None:
    scheduler, now = busy(MAX_PATIENCE_S / 10)
    now += 60.0
    scheduler.add(job_of(at=now), now)
    assert scheduler.patience_s(Room(rows=8), now) <= 0


def test_a_window_that_is_put_back_does_not_wait_for_company() -> None:
    scheduler, now = busy(MAX_PATIENCE_S / 10)
    half_done = job_of(at=now - 1.0)
    scheduler.put_back(half_done)
    assert scheduler.patience_s(Room(rows=8), now) <= 0


@settings(max_examples=50)
@given(st.lists(st.floats(0, 2), min_size=1, max_size=60), st.floats(0, 1))
def test_nobody_waits_for_company_longer_than_that(gaps_s: list[float], later_s: float) -> None:
    scheduler, now = Scheduler(), 0.0
    for gap_s in gaps_s:
        now += gap_s
        scheduler.add(job_of(at=now), now)
    oldest = gaps_s[0]
    patience_s = scheduler.patience_s(Room(rows=1_000), now + later_s)
    assert patience_s <= max(0.0, oldest + MAX_PATIENCE_S - now - later_s) + 1e-9


# Whatever happens


@settings(max_examples=50)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(Lane)), max_size=30),
    st.integers(1, 7),
)
def test_how_many_are_taken_at_a_time_does_not_change_the_order(
    crowd: list[tuple[str, Lane]], rows: int
) -> None:
    def served(room: Room) -> list[tuple[str, Lane]]:
        scheduler = waiting(*(job_of(*who) for who in crowd))
        served: list[Job] = []
        while jobs := scheduler.take(room, now=0.0):
            served += jobs
        return [(job.task.session_id, job.task.lane) for job in served]

    assert served(Room(rows)) == served(ONE)


class Waiting(RuleBasedStateMachine):
    """What a scheduler may do with windows that come, are taken, put back and removed."""

    taken = Bundle("taken")

    def __init__(self) -> None:
        super().__init__()
        self.scheduler = Scheduler()
        self.now = 0.0
        self.last_live = float("-inf")
        # The windows that wait, as each session of a lane expects them to be taken.
        self.lines: dict[tuple[Lane, str], deque[Job]] = defaultdict(deque)
        # Of a session that waits: who was served since it began to wait or was served itself.
        self.served_since: dict[tuple[Lane, str], set[str]] = defaultdict(set)
        self.half_done: set[Job] = set()
        self.outcomes: Counter[Job] = Counter()
        self.added: set[Job] = set()

    def waiting(self, *lanes: Lane) -> list[Job]:
        return [job for (lane, _), jobs in self.lines.items() if lane in lanes for job in jobs]

    @rule(
        session=st.sampled_from("abcd"),
        lane=st.sampled_from(Lane),
        audio_s=st.sampled_from([0.01, 0.03, 0.1]),
        later_s=st.sampled_from([0.0, 0.1, LIVE_MEMORY_S]),
    )
    def add(self, session: str, lane: Lane, audio_s: float, later_s: float) -> None:
        self.now += later_s
        self.last_live = self.last_live if lane is FILE else self.now
        job = job_of(session, lane, audio_s=audio_s, at=self.now)
        line = self.lines[lane, session]
        older = self.scheduler.add(job, self.now)
        assert older is (line[0] if lane is PARTIAL and line else None)
        if older is not None:
            self.leave(older)
        self.added.add(job)
        line.append(job)

    @rule(
        target=taken,
        rows=st.integers(0, 5),
        audio_s=st.sampled_from([0.05, 0.2, float("inf")]),
        file_rows=st.sampled_from([None, 0, 1, 3]),
        later_s=st.sampled_from([0.0, LIVE_MEMORY_S / 3]),
    )
    def take(self, rows: int, audio_s: float, file_rows: int | None, later_s: float) -> list[Job]:
        self.now += later_s
        live_before, files_before = self.waiting(FINAL, PARTIAL), self.waiting(FILE)
        room = Room(rows, audio_s, file_rows)
        jobs = self.scheduler.take(room, self.now)
        places = rows
        if not live_before and file_rows is not None:
            places = min(rows, file_rows) if self.is_live else rows
        for job in jobs:
            self.turn(job)
        assert len(jobs) <= places
        assert len(jobs) <= 1 or sum(job.task.duration_s for job in jobs) <= audio_s
        assert {job.task.lane is FILE for job in jobs} <= {not live_before}
        if any(job.task.lane is PARTIAL for job in jobs):
            assert not self.waiting(FINAL)
        due = min(places, len(live_before or files_before))
        assert bool(jobs) == (due > 0)
        assert len(jobs) == due or audio_s < float("inf")
        return jobs

    @property
    def is_live(self) -> bool:
        return self.now - self.last_live < LIVE_MEMORY_S

    def turn(self, job: Job) -> None:
        """`job` was taken: that must be its session's turn."""
        lane, session = job.task.lane, job.task.session_id
        line = self.lines[lane, session]
        assert line.popleft() is job
        self.outcomes[job] += 1
        again = job in self.half_done
        self.half_done.discard(job)
        self.served_since.pop((lane, session), None)
        for (other_lane, other), jobs in self.lines.items():
            if other_lane is lane and other != session and jobs and not again:
                assert session not in self.served_since[lane, other]
                self.served_since[lane, other].add(session)

    def leave(self, job: Job) -> None:
        """`job` goes another way than by being taken."""
        lane, session = job.task.lane, job.task.session_id
        self.lines[lane, session].remove(job)
        self.outcomes[job] += 1
        self.served_since.pop((lane, session), None)
        if job in self.half_done:
            # Its coming back made its session the first of two, which does not count as a turn.
            self.half_done.discard(job)
            for served in self.served_since.values():
                served.discard(session)

    @rule(jobs=consumes(taken), data=st.data())
    def put_back(self, jobs: list[Job], data: st.DataObject) -> None:
        for job in jobs:
            line = self.lines[job.task.lane, job.task.session_id]
            # What becomes of a partial whose session has a newer one is the intake's test.
            superseded = job.task.lane is PARTIAL and line
            if not superseded and data.draw(st.booleans()):
                self.scheduler.put_back(job)
                line.appendleft(job)
                self.outcomes[job] -= 1
                self.half_done.add(job)

    @rule(sessions=st.sets(st.sampled_from("abcd"), max_size=2), lane=st.sampled_from(Lane))
    def remove(self, sessions: set[str], lane: Lane) -> None:
        def unwanted(job: Job) -> bool:
            return job.task.session_id in sessions and job.task.lane is lane

        expected = {job for job in self.waiting(*Lane) if unwanted(job)}
        removed = self.scheduler.remove(unwanted)
        assert len(removed) == len(expected)
        assert set(removed) == expected
        for job in removed:
            self.leave(job)

    @invariant()
    def it_knows_what_waits(self) -> None:
        assert self.scheduler.waiting() == len(self.waiting(*Lane))
        for lane in Lane:
            assert self.scheduler.waiting(lane) == len(self.waiting(lane))
        audio_s = sum(job.task.duration_s for job in self.waiting(*Lane))
        assert self.scheduler.waiting_s() == pytest.approx(audio_s)

    @invariant()
    def each_window_waits_or_went_once(self) -> None:
        still = Counter(self.waiting(*Lane))
        assert all(self.outcomes[job] + still[job] == 1 for job in self.added)

    def teardown(self) -> None:
        while jobs := self.scheduler.take(ALL, self.now):
            for job in jobs:
                self.turn(job)
        assert not self.waiting(*Lane)
        assert all(self.outcomes[job] == 1 for job in self.added)


TestWaiting = Waiting.TestCase
TestWaiting.settings = settings(max_examples=60, stateful_step_count=40)
