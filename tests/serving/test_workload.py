from __future__ import annotations

from contextlib import ExitStack, suppress

from whisper_serve.serving.workload import Workload


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_one_that_has_done_nothing_says_so() -> None:
    workload = Workload(Clock())
    assert (workload.busy_s, workload.answered_s) == (0.0, 0.0)


def test_it_is_busy_while_there_is_any_window() -> None:
    clock = Clock()
    workload = Workload(clock)
    with workload.window(8.0):
        clock.now += 2
        with workload.window(5.0):
            clock.now += 1
            assert workload.busy_s == 3.0
        clock.now += 1
    clock.now += 10
    assert workload.busy_s == 4.0
    with workload.window(1.0):
        clock.now += 0.5
        assert workload.busy_s == 4.5


def test_what_is_answered_counts_and_what_fails_does_not() -> None:
    workload = Workload(Clock())
    with ExitStack() as windows:
        windows.enter_context(workload.window(8.0))
        with suppress(OSError), workload.window(30.0):
            raise OSError
        assert workload.answered_s == 0.0
    assert workload.answered_s == 8.0
