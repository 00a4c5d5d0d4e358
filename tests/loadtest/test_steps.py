from __future__ import annotations

import pytest

from loadtest.judging import Bounds
from loadtest.outcome import Outcome
from loadtest.steps import StepFigures, steps_of
from loadtest.summary import Summary
from tests.loadtest.outcomes import BEGAN, refused, stream


def figures_of(*outcomes: Outcome) -> list[StepFigures]:
    """Of two steps of ten seconds."""
    summary = Summary.of(outcomes, Bounds())
    return [StepFigures(summary, step) for step in steps_of([2, 4], BEGAN, 10.0)]


def test_steps_lie_side_by_side() -> None:
    first, second = steps_of([5, 10], BEGAN, 30.0)
    assert (first.users, first.begins, first.ends) == (5, BEGAN, BEGAN + 30.0)
    assert (second.users, second.begins, second.seconds) == (10, BEGAN + 30.0, 30.0)
    assert [step.holds(BEGAN + 30.0) for step in (first, second)] == [False, True]


def test_a_delay_counts_in_the_step_in_which_it_was_known() -> None:
    first, second = figures_of(stream())
    assert (first.finals.values, second.finals.values) == ([0.75], [0.25])
    assert (first.word_finals.values, second.word_finals.values) == ([3.0], [])


def test_a_whole_stream_counts_where_its_middle_lies() -> None:
    first, second = figures_of(stream(), stream(begins=4.0))
    assert (first.whole.begun, second.whole.begun) == (1, 1)


def test_streams_that_are_held_are_an_average_over_the_step() -> None:
    first, second = figures_of(stream())  # from 1 to 12
    assert (first.held, second.held) == pytest.approx((0.9, 0.2))


def test_the_refused_share_is_of_all_attempts_to_be_let_in() -> None:
    first, second = figures_of(stream(), refused(0.1, 5.1, 11.0))
    assert (first.refused, first.refused_share) == pytest.approx((2, 2 / 3))
    assert (second.refused, second.refused_share) == (1, 1.0)
    assert figures_of()[0].refused_share is None
