from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import pytest

from whisper_serve.engines.base import DecodeTask, EngineLoad, Lane
from whisper_serve.engines.fake import Answer, FakeWorker
from whisper_serve.engines.intake import FIRST_RETRY_S, Intake, Limits
from whisper_serve.engines.threaded import ThreadedEngine
from whisper_serve.errors import (
    DeadlineExceeded,
    EngineFailed,
    EngineUnavailable,
    InvalidParameter,
    Overloaded,
    Superseded,
)
from whisper_serve.observability.context import current_request_id
from whisper_serve.text.transcript import DecodeStats, Hypothesis

PATIENCE_S = 10.0
TASK = DecodeTask(np.zeros(16_000, np.int16))
SAID = Hypothesis((), "en", 1.0)
IDLE = EngineLoad(waiting=0, waiting_s=0.0, running=0, oldest_running_s=0.0)

MakeEngine = Callable[..., ThreadedEngine]


class Gate:
    """An answer that is held back until the gate opens, and tells when it was asked for."""

    def __init__(self) -> None:
        self.reached = threading.Semaphore(0)
        self.opened = threading.Event()

    def __call__(self, _task: DecodeTask) -> Hypothesis:
        self.reached.release()
        assert self.opened.wait(PATIENCE_S)
        return SAID

    def wait_until_reached(self) -> None:
        assert self.reached.acquire(timeout=PATIENCE_S)


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.opened.set()


@pytest.fixture
def engine_of(gate: Gate) -> Iterator[MakeEngine]:
    """Engines that are closed at the end, whatever happened to them."""
    with ExitStack() as stack:

        def make(*answers: Answer, threads: int = 1, max_queued: int = 10) -> ThreadedEngine:
            limits = Limits(max_queued, rows=4)
            engine = ThreadedEngine(FakeWorker(answers or [SAID]), limits, threads=threads)
            stack.callback(engine.close)
            return engine

        yield make
        gate.opened.set()


def answer_of(future: Future[Hypothesis]) -> Hypothesis:
    return future.result(PATIENCE_S)


def task_of(session: str, lane: Lane = Lane.FILE) -> DecodeTask:
    return replace(TASK, session_id=session, lane=lane)


# Answers


def test_a_window_is_answered(engine_of: MakeEngine) -> None:
    answer = answer_of(engine_of().submit(TASK))
    assert replace(answer, stats=DecodeStats()) == SAID


def test_an_answer_tells_how_long_the_window_waited(engine_of: MakeEngine, gate: Gate) -> None:
    engine = engine_of(gate, SAID)
    first, second = engine.submit(TASK), engine.submit(TASK)
    gate.wait_until_reached()
    time.sleep(0.05)
    gate.opened.set()
    assert answer_of(first).stats.queued_s < 0.05
    assert 0.05 <= answer_of(second).stats.queued_s < PATIENCE_S


def test_what_a_decode_cost_is_kept(engine_of: MakeEngine) -> None:
    stats = DecodeStats(encoded_s=1.0, decoded_s=2.0, gpu_memory_gib=3.0)
    answer = answer_of(engine_of(replace(SAID, stats=stats)).submit(TASK))
    assert replace(answer.stats, queued_s=0.0) == stats


def test_it_is_what_its_worker_is(engine_of: MakeEngine) -> None:
    assert engine_of().info.engine == "fake"


def test_the_request_s_id_is_known_while_it_is_decoded(engine_of: MakeEngine) -> None:
    seen: list[str] = []

    def decode(_task: DecodeTask) -> Hypothesis:
        seen.append(current_request_id())
        return SAID

    engine = engine_of(decode)
    for request_id in ("r-1", "", "r-2"):
        answer_of(engine.submit(replace(TASK, request_id=request_id)))
    assert seen == ["r-1", "-", "r-2"]


# Order


def test_urgent_lanes_come_first_and_a_lane_keeps_its_order(
    engine_of: MakeEngine, gate: Gate
) -> None:
    order: list[str] = []

    def decode(task: DecodeTask) -> Hypothesis:
        order.append(task.session_id)
        return SAID

    engine = engine_of(gate, decode)
    engine.submit(TASK)
    gate.wait_until_reached()
    futures = [
        engine.submit(task_of("file 1", Lane.FILE)),
        engine.submit(task_of("partial 1", Lane.LIVE_PARTIAL)),
        engine.submit(task_of("final 1", Lane.LIVE_FINAL)),
        engine.submit(task_of("file 2", Lane.FILE)),
        engine.submit(task_of("final 2", Lane.LIVE_FINAL)),
        engine.submit(task_of("partial 2", Lane.LIVE_PARTIAL)),
    ]
    gate.opened.set()
    wait(futures, PATIENCE_S)
    assert order == ["final 1", "final 2", "partial 1", "partial 2", "file 1", "file 2"]


def test_threads_decode_side_by_side(engine_of: MakeEngine) -> None:
    together = threading.Barrier(3)

    def decode(_task: DecodeTask) -> Hypothesis:
        together.wait(PATIENCE_S)
        return SAID

    engine = engine_of(decode, threads=3)
    for future in [engine.submit(TASK) for _ in range(3)]:
        answer_of(future)


class InBatches:
    """Takes up to three windows at a time and tells of each how many were taken with it."""

    info = FakeWorker([SAID]).info

    def company(self, _task: DecodeTask) -> object:
        return None

    def work(self, intake: Intake) -> None:
        while (jobs := intake.take(3, wait=True)) is not None:
            for job in jobs:
                intake.answer(job, Hypothesis((), "en", len(jobs)))

    def close(self) -> None:
        """There is nothing to close."""


def test_a_worker_decides_how_many_windows_it_takes() -> None:
    engine = ThreadedEngine(InBatches(), Limits(max_queued=100, rows=10))
    try:
        sizes = [future.result(PATIENCE_S) for future in [engine.submit(TASK) for _ in range(20)]]
    finally:
        engine.close()
    assert {size.language_probability for size in sizes} <= {1, 2, 3}


# A full queue


def test_a_full_queue_takes_no_more(engine_of: MakeEngine, gate: Gate) -> None:
    engine = engine_of(gate, max_queued=2)
    engine.submit(TASK)
    gate.wait_until_reached()
    waiting = [engine.submit(TASK) for _ in range(2)]
    refused = engine.submit(TASK)
    assert isinstance(refused.exception(0), Overloaded)
    gate.opened.set()
    for future in waiting:
        answer_of(future)


def test_a_queue_that_moved_on_takes_more(engine_of: MakeEngine, gate: Gate) -> None:
    engine = engine_of(gate, max_queued=1)
    engine.submit(TASK)
    gate.wait_until_reached()
    waiting = engine.submit(TASK)
    gate.opened.set()
    answer_of(waiting)
    answer_of(engine.submit(TASK))


@pytest.mark.parametrize(("max_queued", "retry_after_s"), [(1, FIRST_RETRY_S), (40, 20.0)])
def test_who_is_refused_shall_come_back_when_half_of_the_queue_is_done(
    engine_of: MakeEngine, gate: Gate, max_queued: int, retry_after_s: float
) -> None:
    engine = engine_of(gate, max_queued=max_queued)
    engine.submit(TASK)
    gate.wait_until_reached()
    for _ in range(max_queued):
        engine.submit(TASK)
    refusal = engine.submit(TASK).exception(0)
    assert isinstance(refusal, Overloaded)
    assert refusal.retry_after_s == retry_after_s


def test_who_is_refused_by_a_fast_engine_shall_come_back_sooner(
    engine_of: MakeEngine, gate: Gate
) -> None:
    engine = engine_of(*[SAID] * 60, gate, max_queued=40)
    for _ in range(60):
        answer_of(engine.submit(TASK))
    engine.submit(TASK)
    gate.wait_until_reached()
    for _ in range(40):
        engine.submit(TASK)
    refusal = engine.submit(TASK).exception(0)
    assert isinstance(refusal, Overloaded)
    assert FIRST_RETRY_S <= refusal.retry_after_s < 5.0


# Windows that nobody waits for


def test_an_expired_window_is_answered_without_decoding(engine_of: MakeEngine, gate: Gate) -> None:
    asked: list[DecodeTask] = []

    def decode(task: DecodeTask) -> Hypothesis:
        asked.append(task)
        return SAID

    engine = engine_of(gate, decode)
    engine.submit(TASK)
    gate.wait_until_reached()
    late = engine.submit(replace(TASK, timeout_s=0.01))
    in_time = engine.submit(replace(TASK, session_id="in time"))
    time.sleep(0.02)
    gate.opened.set()
    answer_of(in_time)
    expired = late.exception(PATIENCE_S)
    assert isinstance(expired, DeadlineExceeded)
    assert expired.timeout_s == 0.01
    assert [task.session_id for task in asked] == ["in time"]


def test_a_cancelled_window_is_not_decoded(engine_of: MakeEngine, gate: Gate) -> None:
    asked: list[str] = []

    def decode(task: DecodeTask) -> Hypothesis:
        asked.append(task.session_id)
        return SAID

    engine = engine_of(gate, decode)
    engine.submit(TASK)
    gate.wait_until_reached()
    cancelled = engine.submit(task_of("given up"))
    wanted = engine.submit(task_of("wanted"))
    assert cancelled.cancel()
    gate.opened.set()
    answer_of(wanted)
    assert asked == ["wanted"]


def test_a_window_can_be_given_up_while_it_is_decoded(engine_of: MakeEngine, gate: Gate) -> None:
    engine = engine_of(gate, SAID)
    given_up = engine.submit(TASK)
    gate.wait_until_reached()
    assert given_up.cancel()
    gate.opened.set()
    answer_of(engine.submit(TASK))
    assert given_up.cancelled()
    assert engine.load() == IDLE


def test_a_superseded_partial_is_told_and_not_decoded(engine_of: MakeEngine, gate: Gate) -> None:
    asked: list[float] = []

    def decode(task: DecodeTask) -> Hypothesis:
        asked.append(task.duration_s)
        return SAID

    engine = engine_of(gate, decode)
    engine.submit(TASK)
    gate.wait_until_reached()
    older, newer = (
        engine.submit(replace(task_of("a", Lane.LIVE_PARTIAL), samples=np.zeros(n, np.int16)))
        for n in (16_000, 32_000)
    )
    assert isinstance(older.exception(0), Superseded)
    gate.opened.set()
    answer_of(newer)
    assert asked == [2.0]


def test_cancelled_windows_take_no_place_in_the_queue(engine_of: MakeEngine, gate: Gate) -> None:
    engine = engine_of(gate, max_queued=2)
    engine.submit(TASK)
    gate.wait_until_reached()
    for future in [engine.submit(TASK) for _ in range(2)]:
        assert future.cancel()
    assert engine.load().waiting == 0
    waiting = engine.submit(TASK)
    gate.opened.set()
    answer_of(waiting)


def test_the_order_holds_when_windows_were_cancelled(engine_of: MakeEngine, gate: Gate) -> None:
    order: list[str] = []

    def decode(task: DecodeTask) -> Hypothesis:
        order.append(task.session_id)
        return SAID

    engine = engine_of(gate, decode, max_queued=8)
    engine.submit(TASK)
    gate.wait_until_reached()
    lanes = [Lane.LIVE_FINAL, Lane.FILE, Lane.LIVE_PARTIAL, Lane.LIVE_FINAL]
    for future in [engine.submit(task_of("given up", lane)) for lane in lanes]:
        future.cancel()
    others = [Lane.FILE, Lane.LIVE_PARTIAL, Lane.FILE, Lane.LIVE_PARTIAL]
    futures = [engine.submit(task_of(f"{n}", lane)) for n, lane in enumerate(others)]
    futures += [engine.submit(task_of("last", Lane.LIVE_FINAL))]  # the queue is tidied for this
    gate.opened.set()
    wait(futures, PATIENCE_S)
    assert order == ["last", "1", "3", "0", "2"]


# Failures


def test_a_broken_decode_fails_and_the_worker_lives_on(engine_of: MakeEngine) -> None:
    def break_down(_task: DecodeTask) -> Hypothesis:
        raise ValueError("bad tensor")

    engine = engine_of(break_down, SAID)
    assert isinstance(engine.submit(TASK).exception(PATIENCE_S), EngineFailed)
    answer_of(engine.submit(TASK))


def test_an_error_of_ours_arrives_as_it_is(engine_of: MakeEngine) -> None:
    error = InvalidParameter("language", "the model knows English only")
    engine = engine_of(error, SAID)
    assert engine.submit(TASK).exception(PATIENCE_S) is error
    answer_of(engine.submit(TASK))


# Load


def test_load_counts_what_waits_and_what_runs(engine_of: MakeEngine, gate: Gate) -> None:
    engine = engine_of(gate, threads=2)
    assert engine.load() == IDLE
    futures = [engine.submit(TASK) for _ in range(5)]
    for _ in range(2):
        gate.wait_until_reached()
    load = engine.load()
    assert (load.waiting, load.waiting_s, load.running) == (3, 3.0, 2)
    gate.opened.set()
    for future in futures:
        answer_of(future)
    assert engine.load() == IDLE


def test_load_tells_how_old_the_oldest_decode_is(engine_of: MakeEngine, gate: Gate) -> None:
    quick = Gate()
    engine = engine_of(gate, quick, SAID, threads=2)
    began = time.monotonic()
    engine.submit(TASK)
    gate.wait_until_reached()
    time.sleep(0.05)
    second = engine.submit(TASK)
    quick.wait_until_reached()
    assert 0.05 <= engine.load().oldest_running_s <= time.monotonic() - began
    quick.opened.set()
    answer_of(second)
    assert engine.load().oldest_running_s >= 0.05


# Closing


def test_closing_ends_the_decodes_that_run_and_cancels_what_waits(
    engine_of: MakeEngine, gate: Gate
) -> None:
    worker = FakeWorker([gate])
    engine = ThreadedEngine(worker, Limits(max_queued=10, rows=1))
    running, waiting = engine.submit(TASK), engine.submit(TASK)
    gate.wait_until_reached()
    closing = threading.Thread(target=engine.close)
    closing.start()
    with pytest.raises(CancelledError):
        waiting.result(PATIENCE_S)
    assert not worker.closed
    gate.opened.set()
    closing.join(PATIENCE_S)
    assert answer_of(running).language == "en"
    assert worker.closed


def test_closing_leaves_no_thread(engine_of: MakeEngine) -> None:
    before = threading.active_count()
    engine = engine_of(threads=3)
    assert threading.active_count() == before + 3
    engine.close()
    assert threading.active_count() == before


def test_closing_twice_is_no_fault(engine_of: MakeEngine) -> None:
    engine = engine_of()
    engine.close()
    engine.close()


def test_a_closed_engine_takes_nothing(engine_of: MakeEngine) -> None:
    engine = engine_of()
    engine.close()
    assert isinstance(engine.submit(TASK).exception(0), EngineUnavailable)


# Many at once


def test_many_threads_may_submit(engine_of: MakeEngine) -> None:
    def decode(task: DecodeTask) -> Hypothesis:
        return Hypothesis((), task.session_id, 1.0)

    engine = engine_of(decode, threads=4, max_queued=1000)
    names = [f"{number}" for number in range(400)]
    with ThreadPoolExecutor(8) as pool:
        futures = list(pool.map(lambda name: engine.submit(task_of(name)), names))
    assert [answer_of(future).language for future in futures] == names
    assert engine.load() == IDLE


def test_every_window_of_a_crowd_is_answered_or_refused(engine_of: MakeEngine) -> None:
    def decode(task: DecodeTask) -> Hypothesis:
        if task.session_id.endswith("7"):
            raise ValueError("unlucky")
        return SAID

    engine = engine_of(decode, threads=2, max_queued=5)

    def outcome(number: int) -> str:
        future = engine.submit(task_of(f"{number}", list(Lane)[number % 3]))
        if number % 5 == 0 and future.cancel():
            return "cancelled"
        error = future.exception(PATIENCE_S)
        return type(error).__name__ if error else "answered"

    with ThreadPoolExecutor(16) as pool:
        outcomes = list(pool.map(outcome, range(300)))
    assert set(outcomes) <= {"answered", "cancelled", "EngineFailed", "Overloaded"}
    assert "answered" in outcomes
    engine.close()
    assert engine.load() == IDLE
