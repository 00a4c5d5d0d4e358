from __future__ import annotations

import pytest

from whisper_serve.client.patience import LONGEST_DELAY_S, Patience


def patience(give_up_after_s: float = 60.0, chance: float = 1.0) -> Patience:
    return Patience(give_up_after_s, chance=lambda: chance)


def test_each_wait_is_twice_the_one_before_up_to_a_limit() -> None:
    waits = patience(1000.0)
    delays = [waits.failed(0.0) for _ in range(8)]
    assert delays == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0]
    assert waits.attempt == 8


@pytest.mark.parametrize(("chance", "delay"), [(0.0, 0.125), (0.5, 0.1875), (1.0, 0.25)])
def test_chance_keeps_clients_from_coming_back_together(chance: float, delay: float) -> None:
    assert patience(chance=chance).failed(0.0) == delay


def test_the_server_is_left_alone_for_as_long_as_it_asks() -> None:
    waits = patience()
    assert waits.failed(0.0, retry_after_s=7.0) == 7.0
    assert waits.failed(7.0, retry_after_s=0.1) == 0.5


def test_it_gives_up_when_it_failed_for_too_long() -> None:
    waits = patience(10.0)
    assert waits.failed(100.0) == 0.25
    assert waits.failed(109.0) == 0.5
    assert waits.failed(109.9) is None


def test_it_gives_up_at_once_when_it_is_asked_to_wait_for_longer() -> None:
    assert patience(10.0).failed(0.0, retry_after_s=11.0) is None


def test_progress_begins_everything_anew() -> None:
    waits = patience(10.0)
    waits.failed(0.0)
    waits.failed(9.0)
    waits.progressed()
    assert waits.attempt == 0
    assert waits.failed(50.0) == 0.25
    assert waits.failed(59.0) == 0.5


def test_connections_that_break_at_once_are_no_progress() -> None:
    waits = patience(10.0)
    now, tries = 0.0, 0
    while (delay := waits.failed(now)) is not None:
        now, tries = now + delay, tries + 1
        waits.connected(now)
    assert 3 < tries < 10
    assert 0.0 < now <= 10.0


def test_a_connection_that_stood_for_long_was_a_good_one() -> None:
    """In a stream in which nobody speaks nothing is ever settled."""
    waits = patience(10.0)
    waits.failed(0.0)
    waits.connected(1.0)
    assert waits.failed(500.0) == 0.25
    assert waits.failed(500.3) == 0.5


def test_no_wait_is_longer_than_the_longest_however_often_it_fails() -> None:
    waits = patience(1e9)
    assert max(waits.failed(0.0) or 0.0 for _ in range(2000)) == LONGEST_DELAY_S


def test_a_farewell_is_no_failure_but_a_second_one_is() -> None:
    waits = patience(0.0)
    assert waits.parted(0.0) == 0.25
    assert waits.attempt == 1
    assert waits.parted(0.25) is None
    assert waits.failed(0.25) is None


def test_farewells_with_progress_between_them_are_none() -> None:
    waits = patience(0.0)
    for now in range(5):
        assert waits.parted(float(now)) == 0.25
        waits.progressed()


def test_a_farewell_among_failures_is_one() -> None:
    waits = patience(10.0)
    waits.failed(0.0)
    assert waits.parted(1.0) is None


def test_a_farewell_after_a_long_silence_is_none() -> None:
    waits = patience(10.0)
    waits.parted(0.0)
    waits.connected(1.0)
    assert waits.parted(500.0) == 0.25
