from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from whisper_serve.serving.breaker import PROBE_S, TOGETHER_S, Breaker

FAILURES, PAUSE_S = 3, 5.0


def broken(at: float = 0.0) -> Breaker:
    """One that has just been opened."""
    breaker = Breaker(FAILURES, PAUSE_S)
    for number in range(FAILURES):
        assert breaker.wait_s(at) == 0.0
        breaker.failed(at - (FAILURES - 1 - number))
    return breaker


def test_every_request_may_go_at_first() -> None:
    breaker = Breaker(FAILURES, PAUSE_S)
    assert [breaker.wait_s(now) for now in range(50)] == [0.0] * 50
    assert breaker.state(50) == "closed"


def test_failures_in_a_row_open_it() -> None:
    breaker = broken(at=10.0)
    assert breaker.state(10.0) == "open"
    assert breaker.wait_s(10.0) == PAUSE_S
    assert breaker.wait_s(12.0) == PAUSE_S - 2.0


def test_an_answer_between_them_keeps_it_closed() -> None:
    breaker = Breaker(FAILURES, PAUSE_S)
    for now in range(0, 30, 3):
        breaker.failed(now)
        breaker.failed(now + 1)
        breaker.succeeded()
    assert breaker.wait_s(30) == 0.0


def test_all_that_one_dead_replica_had_is_one_failure() -> None:
    breaker = Breaker(FAILURES, PAUSE_S)
    for number in range(50):
        breaker.failed(1.0 + number * TOGETHER_S / 100)
    assert breaker.state(2.0) == "closed"


def test_one_probe_goes_when_the_pause_is_over() -> None:
    breaker = broken()
    assert breaker.state(PAUSE_S) == "half_open"
    assert [breaker.wait_s(PAUSE_S) for _ in range(3)] == [0.0, PAUSE_S, PAUSE_S]


def test_a_probe_that_is_answered_closes_it() -> None:
    breaker = broken()
    assert breaker.wait_s(PAUSE_S) == 0.0
    breaker.succeeded()
    assert [breaker.wait_s(PAUSE_S) for _ in range(3)] == [0.0] * 3
    assert breaker.state(PAUSE_S) == "closed"


def test_a_probe_that_fails_opens_it_again() -> None:
    breaker = broken()
    assert breaker.wait_s(PAUSE_S) == 0.0
    breaker.failed(PAUSE_S + 1.0)
    assert breaker.wait_s(PAUSE_S + 1.0) == PAUSE_S


def test_a_probe_that_tells_nothing_makes_room_for_another() -> None:
    breaker = broken()
    assert breaker.wait_s(PAUSE_S) == 0.0
    breaker.learned_nothing()
    assert [breaker.wait_s(PAUSE_S) for _ in range(2)] == [0.0, PAUSE_S]


def test_a_probe_that_is_never_heard_of_again_makes_room_too() -> None:
    breaker = broken()
    assert breaker.wait_s(PAUSE_S) == 0.0
    assert breaker.wait_s(PAUSE_S + PROBE_S) == 0.0


def test_what_was_on_its_way_does_not_keep_it_open() -> None:
    breaker = broken()
    breaker.failed(PAUSE_S - 0.1)
    assert breaker.wait_s(PAUSE_S) == 0.0


def test_an_answer_to_what_was_on_its_way_closes_it() -> None:
    breaker = broken()
    breaker.succeeded()
    assert breaker.wait_s(0.1) == 0.0


class AnyOrder(RuleBasedStateMachine):
    """Whatever happens in whatever order."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker(FAILURES, PAUSE_S)
        self.now = 0.0
        # Failures since the last answer, and requests that are out.
        self.failures = self.out = 0

    @rule(passed_s=st.floats(0.01, 8.0))
    def time_passes(self, passed_s: float) -> None:
        self.now += passed_s

    @rule()
    def somebody_asks(self) -> None:
        was = self.breaker.state(self.now)
        wait_s = self.breaker.wait_s(self.now)
        assert 0.0 <= wait_s <= PAUSE_S + 1e-9
        assert (was == "closed") <= (wait_s == 0.0)
        assert (was == "open") <= (wait_s > 0.0)
        self.out += wait_s == 0.0

    @rule()
    def an_answer_comes(self) -> None:
        self.breaker.succeeded()
        self.out, self.failures = max(0, self.out - 1), 0
        assert self.breaker.state(self.now) == "closed"

    @rule()
    def something_fails(self) -> None:
        self.breaker.failed(self.now)
        self.out, self.failures = max(0, self.out - 1), self.failures + 1

    @rule()
    def something_is_given_up(self) -> None:
        self.breaker.learned_nothing()
        self.out = max(0, self.out - 1)

    @invariant()
    def it_opens_for_failures_only(self) -> None:
        if self.failures < FAILURES:
            assert self.breaker.state(self.now) == "closed"

    @invariant()
    def it_is_never_shut_for_ever(self) -> None:
        assert self.breaker.state(self.now + PAUSE_S + 0.001) != "open"


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=100, stateful_step_count=40, derandomize=True)
