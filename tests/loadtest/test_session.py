from __future__ import annotations

from typing import Any

from loadtest.outcome import CUT, Refusal
from loadtest.session import Workers, rows_of
from tests.loadtest.outcomes import stream


def rows(**changes: Any) -> list[tuple[str, float, str | None]]:
    """As Locust is told: name, seconds and fault."""
    told = rows_of(stream(**changes))
    return [(row["name"], row["response_time"] / 1000, row["exception"]) for row in told]


def test_locust_is_told_what_was_measured_and_nothing_that_was_not() -> None:
    assert rows() == [
        ("handshake", 0.5, None),
        ("first word", 2.0, None),
        ("final text", 0.75, None),
        ("final text", 0.25, None),
        ("whole", 11.0, None),
    ]


def test_a_refusal_has_a_row_of_its_own_and_is_no_failure() -> None:
    assert rows(refusals=(Refusal(0.25, 503, 5.0),))[0] == ("refused with 503", 0.25, None)


def test_a_failure_is_told_as_one() -> None:
    assert rows(fault="closed with 1011")[-1] == ("whole", 11.0, "closed with 1011")
    assert rows(text=" ")[-1] == ("whole", 11.0, "no text")


def test_one_that_was_cut_off_says_nothing_about_the_service() -> None:
    assert rows(fault=CUT) == []


def test_a_master_has_all_that_its_workers_had() -> None:
    workers = Workers()
    workers.reported("a", 3)
    workers.reported("b", 0)
    workers.reported("a", 2)
    workers.finished("a", 5)
    workers.finished("b", 0)
    assert workers.missing(["a", "b"]) == []


def test_a_worker_that_says_nothing_and_outcomes_that_never_came_are_told() -> None:
    workers = Workers()
    workers.reported("a", 3)
    workers.finished("a", 5)
    assert workers.missing(["a", "b"]) == [
        "worker b did not tell what it had heard",
        "2 outcomes of workers never arrived",
    ]
