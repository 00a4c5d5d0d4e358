from __future__ import annotations

import random
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, wait
from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from whisper_serve.engines import intake as intake_module
from whisper_serve.engines import scheduler as scheduler_module
from whisper_serve.engines.base import DecodeTask, EngineLoad, Lane
from whisper_serve.engines.intake import FIRST_RETRY_S, Intake, Limits
from whisper_serve.engines.scheduler import Job
from whisper_serve.errors import (
    DeadlineExceeded,
    EngineFailed,
    EngineUnavailable,
    Overloaded,
    Superseded,
)
from whisper_serve.text.transcript import DecodeStats, Hypothesis

PATIENCE_S = 10.0
SECOND = DecodeTask(np.zeros(16_000, np.int16))
SAID = Hypothesis((), "en", 1.0)
FINAL, PARTIAL, FILE = Lane.LIVE_FINAL, Lane.LIVE_PARTIAL, Lane.FILE
IDLE = EngineLoad(waiting=0, waiting_s=0.0, running=0, oldest_running_s=0.0)


def now() -> float:
    """What the intake's clock shows."""
    return cast("float", vars(intake_module)["time"].monotonic())


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(intake_module, "time", SimpleNamespace(monotonic=clock.monotonic))
    return clock


@pytest.fixture
def nobody_waits_for_company(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler_module, "MAX_PATIENCE_S", 0.0)


@pytest.fixture
def threads_change_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def intake_of(
    *, max_queued: int = 10, rows: int = 10, audio_s: float = 1e9, file_rows: int | None = None
) -> Intake:
    return Intake(Limits(max_queued, rows, audio_s, file_rows))


def offered(
    intake: Intake, session: str = "", lane: Lane = FILE, *, timeout_s: float = 60.0
) -> Job:
    task = replace(SECOND, session_id=session, lane=lane, timeout_s=timeout_s)
    job = Job(task, queued_at=now())
    intake.offer(job)
    return job


def taken(intake: Intake, rows: int = 10) -> list[Job]:
    jobs = intake.take(rows, wait=False)
    assert jobs is not None
    return jobs


def error_of(job: Job) -> BaseException | None:
    """What the window was refused with; it must be known at once."""
    return job.future.exception(0)


class Taking:
    """A thread that takes once, and waits for something to take."""

    def __init__(self, intake: Intake, rows: int = 10) -> None:
        self.jobs: list[Job] | None = []
        self._thread = threading.Thread(target=self._take, args=(intake, rows), daemon=True)
        self._thread.start()

    def _take(self, intake: Intake, rows: int) -> None:
        self.jobs = intake.take(rows, wait=True)

    def result(self, timeout_s: float = PATIENCE_S) -> list[Job] | None:
        self._thread.join(timeout_s)
        assert not self._thread.is_alive()
        return self.jobs


# Taking and answering


def test_what_is_offered_can_be_taken_once() -> None:
    intake = intake_of()
    jobs = [offered(intake), offered(intake)]
    assert taken(intake) == jobs
    assert taken(intake) == []
    assert not any(job.future.done() for job in jobs)


def test_who_waits_gets_what_is_offered_later() -> None:
    intake = intake_of()
    taking = Taking(intake)
    job = offered(intake)
    assert taking.result() == [job]


@pytest.mark.parametrize(("asked", "limit"), [(2, 9), (9, 2)])
def test_no_more_is_taken_than_is_asked_for_or_allowed(asked: int, limit: int) -> None:
    intake = intake_of(rows=limit)
    for _ in range(5):
        offered(intake)
    assert len(taken(intake, asked)) == 2


def test_no_more_audio_is_taken_than_is_allowed() -> None:
    intake = intake_of(audio_s=3.5)
    for _ in range(5):
        offered(intake)
    assert len(taken(intake)) == 3


def test_an_answer_arrives() -> None:
    intake = intake_of()
    job = offered(intake)
    taken(intake)
    intake.answer(job, SAID)
    assert replace(job.future.result(0), stats=DecodeStats()) == SAID


def test_an_error_arrives_as_it_is() -> None:
    intake = intake_of()
    job = offered(intake)
    taken(intake)
    error = EngineFailed("broken")
    intake.answer(job, error)
    assert error_of(job) is error


def test_an_answer_tells_how_long_the_window_waited_and_what_it_cost(clock: Clock) -> None:
    intake = intake_of()
    job = offered(intake)
    clock.now += 3.0
    taken(intake)
    clock.now += 5.0
    stats = DecodeStats(encoded_s=1.0, decoded_s=2.0, gpu_memory_gib=4.0)
    intake.answer(job, replace(SAID, stats=stats))
    assert job.future.result(0).stats == replace(stats, queued_s=3.0)


def test_an_answer_tells_how_many_windows_were_taken_together() -> None:
    intake = intake_of()
    jobs = [offered(intake, name) for name in "abc"]
    taken(intake, rows=2)
    taken(intake, rows=2)
    intake.put_back(jobs[0])
    taken(intake)
    for job in jobs:
        intake.answer(job, SAID)
    assert [job.future.result(0).stats.batch_size for job in jobs] == [2, 2, 1]


def test_an_answer_that_nobody_waits_for_is_no_fault() -> None:
    intake = intake_of()
    jobs = [offered(intake), offered(intake)]
    taken(intake)
    assert all(job.future.cancel() for job in jobs)
    intake.answer(jobs[0], SAID)
    intake.answer(jobs[1], EngineFailed("broken"))
    assert all(job.future.cancelled() for job in jobs)
    assert intake.load() == IDLE


# Windows that are put back


def test_a_window_that_is_put_back_is_taken_after_the_others(clock: Clock) -> None:
    intake = intake_of()
    first, second = (offered(intake, name) for name in "ab")
    [half_done] = taken(intake, rows=1)
    half_done.steps = "half done"
    intake.put_back(half_done)
    assert taken(intake) == [second, first]
    assert half_done.steps == "half done"


def test_a_window_waited_until_it_was_taken_first(clock: Clock) -> None:
    intake = intake_of()
    job = offered(intake)
    clock.now += 1.0
    taken(intake)
    intake.put_back(job)
    clock.now += 7.0
    taken(intake)
    intake.answer(job, SAID)
    assert job.future.result(0).stats.queued_s == 1.0


def test_a_window_that_is_put_back_does_not_run() -> None:
    intake = intake_of()
    [job] = [offered(intake)]
    taken(intake)
    intake.put_back(job)
    load = intake.load()
    assert (load.waiting, load.running) == (1, 0)


def test_who_waits_gets_what_is_put_back() -> None:
    intake = intake_of()
    job = offered(intake)
    taken(intake)
    taking = Taking(intake)
    intake.put_back(job)
    assert taking.result() == [job]


# Refusals


@pytest.mark.parametrize("lane", list(Lane))
def test_a_full_lane_takes_no_more_and_the_others_do(lane: Lane) -> None:
    intake = intake_of(max_queued=2)
    kept = [offered(intake, f"{n}", lane) for n in range(2)]
    assert isinstance(error_of(offered(intake, "late", lane)), Overloaded)
    others = [offered(intake, f"{n}", other) for other in Lane if other is not lane for n in "ab"]
    assert not any(job.future.done() for job in (*kept, *others))


def test_a_lane_that_moved_on_takes_more() -> None:
    intake = intake_of(max_queued=1)
    offered(intake)
    taken(intake)
    assert not offered(intake).future.done()


def test_windows_that_nobody_waits_for_take_no_place(clock: Clock) -> None:
    intake = intake_of(max_queued=2)
    cancelled, late = offered(intake), offered(intake, timeout_s=1.0)
    cancelled.future.cancel()
    clock.now += 1.0
    assert not any(offered(intake).future.done() for _ in range(2))
    assert isinstance(error_of(late), DeadlineExceeded)


def test_a_newer_partial_takes_the_older_s_place_in_a_full_lane() -> None:
    intake = intake_of(max_queued=2)
    older, _ = offered(intake, "a", PARTIAL), offered(intake, "b", PARTIAL)
    newer = offered(intake, "a", PARTIAL)
    assert not newer.future.done()
    assert isinstance(error_of(older), Superseded)


def refusal_of(intake: Intake) -> float:
    error = error_of(offered(intake))
    assert isinstance(error, Overloaded)
    return error.retry_after_s


def let_leave(intake: Intake, clock: Clock, *, every_s: float) -> None:
    """Many windows leave at this pace."""
    for _ in range(200):
        offered(intake)
        [job] = taken(intake)
        clock.now += every_s
        intake.answer(job, SAID)


def test_who_is_refused_shall_come_back_when_half_of_the_queue_is_done(clock: Clock) -> None:
    intake = intake_of(max_queued=100)
    let_leave(intake, clock, every_s=0.2)
    for _ in range(100):
        offered(intake)
    assert refusal_of(intake) == pytest.approx(0.2 * 100 / 2, rel=0.1)


def test_who_is_refused_by_a_fast_engine_shall_come_back_sooner(clock: Clock) -> None:
    retry_after_s = []
    for every_s in (0.1, 0.4):
        intake = intake_of(max_queued=100)
        let_leave(intake, clock, every_s=every_s)
        for _ in range(100):
            offered(intake)
        retry_after_s.append(refusal_of(intake))
    assert retry_after_s[0] < retry_after_s[1]


@pytest.mark.parametrize("every_s", [0.001, 0.1])
def test_nobody_is_told_to_come_back_at_once(clock: Clock, every_s: float) -> None:
    intake = intake_of(max_queued=1)
    let_leave(intake, clock, every_s=every_s)
    offered(intake)
    assert refusal_of(intake) == FIRST_RETRY_S


def test_a_guess_is_told_when_nothing_has_left_yet() -> None:
    intake = intake_of(max_queued=40)
    for _ in range(40):
        offered(intake)
    assert refusal_of(intake) >= FIRST_RETRY_S


# Deadlines and windows that were given up


def test_an_expired_window_is_answered_and_not_taken(clock: Clock) -> None:
    intake = intake_of()
    late, in_time = offered(intake, timeout_s=2.0), offered(intake, timeout_s=2.5)
    clock.now += 2.0
    assert taken(intake) == [in_time]
    error = error_of(late)
    assert isinstance(error, DeadlineExceeded)
    assert error.timeout_s == 2.0


@pytest.mark.parametrize("lane", list(Lane))
def test_a_deadline_holds_in_every_lane_and_for_what_is_half_done(clock: Clock, lane: Lane) -> None:
    intake = intake_of()
    job = offered(intake, lane=lane, timeout_s=2.0)
    taken(intake)
    intake.put_back(job)
    clock.now += 2.0
    assert taken(intake) == []
    assert isinstance(error_of(job), DeadlineExceeded)


def test_a_window_that_is_decoded_has_no_deadline_any_more(clock: Clock) -> None:
    intake = intake_of()
    job = offered(intake, timeout_s=2.0)
    taken(intake)
    clock.now += 60.0
    offered(intake)
    intake.answer(job, SAID)
    assert job.future.result(0).text == ""


def test_a_cancelled_window_is_not_taken() -> None:
    intake = intake_of()
    given_up, wanted = offered(intake), offered(intake)
    assert given_up.future.cancel()
    assert taken(intake) == [wanted]


def test_a_cancelled_window_waits_no_more() -> None:
    intake = intake_of()
    offered(intake).future.cancel()
    assert intake.load() == IDLE


def test_who_waits_for_many_is_told_of_a_cancelled_window_too() -> None:
    """`concurrent.futures.wait` counts a cancelled future only when its executor has seen it."""
    intake = intake_of()
    job = offered(intake)
    job.future.cancel()
    taken(intake)
    assert wait([job.future], timeout=0).done == {job.future}


# Partials


def test_a_superseded_partial_is_told_at_once() -> None:
    intake = intake_of()
    older, newer = offered(intake, "a", PARTIAL), offered(intake, "a", PARTIAL)
    assert isinstance(error_of(older), Superseded)
    assert taken(intake) == [newer]


def test_a_partial_that_was_given_up_cannot_be_superseded() -> None:
    intake = intake_of()
    older = offered(intake, "a", PARTIAL)
    older.future.cancel()
    offered(intake, "a", PARTIAL)
    assert older.future.cancelled()


def test_a_partial_that_is_decoded_is_not_superseded() -> None:
    intake = intake_of()
    older = offered(intake, "a", PARTIAL)
    taken(intake)
    offered(intake, "a", PARTIAL)
    assert not older.future.done()


@pytest.mark.parametrize("lane", [FINAL, FILE])
def test_finals_and_files_are_not_superseded(lane: Lane) -> None:
    intake = intake_of()
    jobs = [offered(intake, "a", lane) for _ in range(3)]
    offered(intake, "a", PARTIAL)
    assert not any(job.future.done() for job in jobs)


def test_of_a_session_s_partials_only_the_newest_waits() -> None:
    intake = intake_of()
    first = offered(intake, "a", PARTIAL)
    taken(intake)
    second = offered(intake, "a", PARTIAL)
    intake.put_back(first)
    third = offered(intake, "a", PARTIAL)
    assert taken(intake) == [third]
    assert isinstance(error_of(first), Superseded)
    assert isinstance(error_of(second), Superseded)


# Places for files


def test_files_that_are_decoded_count_as_those_that_are_taken(clock: Clock) -> None:
    intake = intake_of(file_rows=3)
    offered(intake, lane=FINAL)
    files = [offered(intake) for _ in range(5)]
    taken(intake)
    assert taken(intake, rows=2) == files[:2]
    assert taken(intake) == files[2:3]
    assert taken(intake) == []
    intake.answer(files[0], SAID)
    intake.put_back(files[1])
    assert taken(intake) == files[3:5]


def test_files_that_wait_for_their_places_let_live_windows_pass(clock: Clock) -> None:
    intake = intake_of(file_rows=1)
    offered(intake, lane=PARTIAL)
    taken(intake)
    for _ in range(2):
        offered(intake)
    taken(intake)
    assert taken(intake) == []
    live = offered(intake, lane=FINAL)
    assert taken(intake) == [live]


def test_a_place_that_a_file_leaves_is_seen_by_who_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake_module, "LOOK_AGAIN_S", 60.0)
    intake = intake_of(file_rows=1)
    offered(intake, lane=FINAL)
    taken(intake)
    first, second = offered(intake), offered(intake)
    assert taken(intake) == [first]
    taking = Taking(intake)
    intake.answer(first, SAID)
    assert taking.result(2.0) == [second]


def test_places_that_are_kept_for_nobody_are_given_to_files_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scheduler_module, "LIVE_MEMORY_S", 0.1)
    monkeypatch.setattr(intake_module, "LOOK_AGAIN_S", 0.02)
    intake = intake_of(file_rows=0)
    offered(intake, lane=FINAL)
    taken(intake)
    job = offered(intake)
    assert Taking(intake).result() == [job]


# Waiting for company


def test_a_lone_window_starts_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only those that come close together wait, however long they would."""
    monkeypatch.setattr(scheduler_module, "MAX_PATIENCE_S", 0.9 * scheduler_module.MAX_GAP_S)
    intake = intake_of()
    taking = Taking(intake)
    job = offered(intake)
    assert taking.result(0.8 * scheduler_module.MAX_GAP_S) == [job]


@pytest.fixture
def long_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler_module, "MAX_PATIENCE_S", 6 * PATIENCE_S)


@pytest.mark.usefixtures("long_patience")
def test_windows_that_come_close_together_are_taken_together() -> None:
    intake = intake_of()
    taking = Taking(intake, rows=3)
    jobs = [offered(intake) for _ in range(3)]
    assert taking.result() == jobs


@pytest.mark.usefixtures("long_patience")
def test_who_has_work_to_do_waits_for_no_company() -> None:
    intake = intake_of()
    job = offered(intake)
    assert taken(intake) == [job]


@pytest.mark.usefixtures("long_patience")
def test_company_is_no_reason_to_wait_for_a_closed_engine() -> None:
    intake = intake_of()
    offered(intake)
    taking = Taking(intake)
    intake.close()
    assert taking.result() is None


# Load


def test_load_counts_what_waits_and_what_runs(clock: Clock) -> None:
    intake = intake_of()
    assert intake.load() == IDLE
    jobs = [offered(intake) for _ in range(5)]
    taken(intake, rows=2)
    clock.now += 1.5
    assert intake.load() == EngineLoad(
        waiting=3, waiting_s=3.0, running=2, oldest_running_s=1.5, waiting_files=3
    )
    taken(intake)
    for job in jobs:
        intake.answer(job, SAID)
    assert intake.load() == IDLE


def test_load_tells_how_old_the_oldest_decode_is(clock: Clock) -> None:
    intake = intake_of()
    jobs = [offered(intake), offered(intake)]
    for _ in jobs:
        taken(intake, rows=1)
        clock.now += 2.0
    assert intake.load().oldest_running_s == 4.0
    intake.answer(jobs[0], SAID)
    assert intake.load().oldest_running_s == 2.0
    intake.put_back(jobs[1])
    assert intake.load().oldest_running_s == 0.0


# Closing


def test_a_closed_intake_refuses() -> None:
    intake = intake_of()
    intake.close()
    assert isinstance(error_of(offered(intake)), EngineUnavailable)


@pytest.mark.parametrize("waits", [True, False])
def test_nothing_is_taken_from_a_closed_intake(waits: bool) -> None:
    intake = intake_of()
    offered(intake)
    intake.close()
    assert intake.take(1, wait=waits) is None


def test_all_who_wait_are_told_that_it_closes() -> None:
    intake = intake_of()
    threads = [Taking(intake) for _ in range(3)]
    intake.close()
    assert [taking.result() for taking in threads] == [None] * 3


def test_what_waits_is_cancelled_and_what_runs_is_not() -> None:
    intake = intake_of()
    jobs = [offered(intake) for _ in range(2)]
    taken(intake, rows=1)
    intake.close()
    assert jobs[1].future.cancelled()
    intake.answer(jobs[0], SAID)
    assert jobs[0].future.result(0).language == "en"
    assert intake.load() == IDLE


def test_closing_tells_also_who_waits_for_many() -> None:
    intake = intake_of()
    jobs = [offered(intake), offered(intake)]
    intake.close()
    futures = {job.future for job in jobs}
    assert wait(futures, timeout=0).done == futures


def test_a_window_that_is_put_back_into_a_closed_intake_is_cancelled() -> None:
    intake = intake_of()
    job = offered(intake)
    taken(intake)
    intake.close()
    intake.put_back(job)
    with pytest.raises(CancelledError):
        job.future.result(0)
    assert intake.load() == IDLE


def test_closing_twice_is_no_fault() -> None:
    intake = intake_of()
    intake.close()
    intake.close()


# Who is told something may ask for something, in whatever thread


def told(intake: Intake, job: Job) -> list[bool]:
    """Gets one entry when `job` is told: whether another thread can ask `intake` meanwhile."""
    free: list[bool] = []

    def ask(_future: Future[Hypothesis]) -> None:
        other = threading.Thread(target=intake.load, daemon=True)
        other.start()
        other.join(1.0)
        free.append(not other.is_alive())

    job.future.add_done_callback(ask)
    return free


def test_others_are_let_in_while_an_expired_window_is_told(clock: Clock) -> None:
    intake = intake_of()
    free = told(intake, offered(intake, timeout_s=1.0))
    clock.now += 1.0
    taken(intake)
    assert free == [True]


def test_others_are_let_in_while_an_expired_window_makes_place(clock: Clock) -> None:
    intake = intake_of()
    free = told(intake, offered(intake, timeout_s=1.0))
    clock.now += 1.0
    offered(intake)
    assert free == [True]


def test_others_are_let_in_while_a_partial_is_superseded() -> None:
    intake = intake_of()
    free = told(intake, offered(intake, "a", PARTIAL))
    offered(intake, "a", PARTIAL)
    assert free == [True]


def test_others_are_let_in_while_a_window_is_refused() -> None:
    intake = intake_of(max_queued=0)
    job = Job(SECOND, queued_at=0.0)
    free = told(intake, job)
    intake.offer(job)
    assert free == [True]


def test_others_are_let_in_while_a_window_is_answered() -> None:
    intake = intake_of()
    job = offered(intake)
    free = told(intake, job)
    taken(intake)
    intake.answer(job, SAID)
    assert free == [True]


def test_others_are_let_in_while_it_closes() -> None:
    intake = intake_of()
    free = told(intake, offered(intake))
    intake.close()
    assert free == [True]


# Many at once


class Crowd:
    """Threads that offer windows of all kinds, and threads that take, put back and answer."""

    def __init__(self, intake: Intake, *, offering: int = 6, taking: int = 3) -> None:
        self.jobs: list[Job] = []
        self.taken: Counter[Job] = Counter()
        self.put_back: Counter[Job] = Counter()
        self.faults: list[BaseException] = []
        self._lock = threading.Lock()
        self._intake = intake
        self._offering = self._threads(self._offer, offering)
        self._taking = self._threads(self._take, taking)

    def _threads(self, work: Callable[[int], None], count: int) -> list[threading.Thread]:
        threads = [threading.Thread(target=self._safely, args=(work, n)) for n in range(count)]
        for thread in threads:
            thread.start()
        return threads

    def _safely(self, work: Callable[[int], None], number: int) -> None:
        try:
            work(number)
        except BaseException as exc:  # noqa: BLE001 - told to the test
            self.faults.append(exc)

    def _offer(self, number: int) -> None:
        chance = random.Random(number)
        for _ in range(150):
            session, lane = chance.choice("abcdefgh"), chance.choice(list(Lane))
            timeout_s = chance.choice([60.0, 60.0, 0.002])
            job = offered(self._intake, session, lane, timeout_s=timeout_s)
            with self._lock:
                self.jobs.append(job)
            if chance.random() < 0.1:
                job.future.cancel()
            self._intake.load()

    def _take(self, number: int) -> None:
        chance = random.Random(number)
        while (jobs := self._intake.take(chance.randint(1, 8), wait=True)) is not None:
            with self._lock:
                self.taken.update(jobs)
            for job in jobs:
                if chance.random() < 0.3:
                    with self._lock:
                        self.put_back[job] += 1
                    self._intake.put_back(job)
                else:
                    self._intake.answer(job, EngineFailed("x") if job.abandoned else SAID)

    def wait_until_all_are_told(self) -> None:
        for thread in self._offering:
            thread.join(PATIENCE_S)
        for job in self.jobs:
            assert outcome_of(job)

    def join(self) -> None:
        for thread in (*self._offering, *self._taking):
            thread.join(PATIENCE_S)
            assert not thread.is_alive()
        assert not self.faults


def outcome_of(job: Job) -> str:
    try:
        error = job.future.exception(PATIENCE_S)
    except CancelledError:
        return "cancelled"
    return type(error).__name__ if error else "answered"


TOLD = {"answered", "cancelled", "Overloaded", "DeadlineExceeded", "Superseded"}


@pytest.mark.usefixtures("threads_change_often", "nobody_waits_for_company")
def test_every_window_of_a_crowd_is_told_and_decoded_once_at_most() -> None:
    intake = intake_of(max_queued=30, rows=6, file_rows=4)
    crowd = Crowd(intake)
    crowd.wait_until_all_are_told()
    intake.close()
    crowd.join()
    outcomes = Counter(outcome_of(job) for job in crowd.jobs)
    assert set(outcomes) <= TOLD
    assert outcomes["answered"] > 0
    assert outcomes["Superseded"] > 0
    assert all(crowd.taken[job] <= 1 + crowd.put_back[job] for job in crowd.jobs)
    assert all(crowd.taken[job] > 0 for job in crowd.jobs if outcome_of(job) == "answered")
    assert intake.load() == IDLE


@pytest.mark.usefixtures("threads_change_often", "nobody_waits_for_company")
def test_every_window_of_a_crowd_is_told_though_it_closes_in_the_middle() -> None:
    for _ in range(5):
        intake = intake_of(max_queued=30, rows=6)
        crowd = Crowd(intake)
        closing = threading.Timer(0.03, intake.close)
        closing.start()
        crowd.join()
        closing.join()
        outcomes = Counter(outcome_of(job) for job in crowd.jobs)
        assert set(outcomes) <= {*TOLD, "EngineUnavailable"}
        assert intake.load() == IDLE
