from __future__ import annotations

from itertools import islice, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtest.arrivals import ARRIVALS, poisson, uniform, within

rates = st.floats(0.01, 1_000)
seeds = st.integers(0, 2**32)


@settings(max_examples=15)
@given(rates, seeds)
def test_callers_come_as_often_as_they_should_on_average(rate: float, seed: int) -> None:
    times = list(islice(poisson(rate, seed), 2_500))
    # 2,500 gaps have a standard deviation of 2 % of their sum.
    assert times[-1] * rate / 2_500 == pytest.approx(1.0, abs=0.12)


@settings(max_examples=15)
@given(seeds)
def test_callers_know_nothing_of_each_other(seed: int) -> None:
    """The gaps of a Poisson process are as long as they differ."""
    times = [0.0, *islice(poisson(1.0, seed), 2_500)]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    mean = sum(gaps) / len(gaps)
    variance = sum((gap - mean) ** 2 for gap in gaps) / len(gaps)
    assert variance**0.5 == pytest.approx(mean, rel=0.2)


@given(rates, st.integers(0, 2_000))
def test_even_arrivals_do_not_drift(rate: float, number: int) -> None:
    assert next(islice(uniform(rate, 0), number, None)) == number / rate


@pytest.mark.parametrize("kind", ARRIVALS)
@given(rate=rates, seed=seeds)
def test_the_same_seed_gives_the_same_times(kind: str, rate: float, seed: int) -> None:
    first, second = (list(islice(ARRIVALS[kind](rate, seed), 50)) for _ in range(2))
    assert first == second
    assert first == sorted(first)
    assert first[0] >= 0


def test_another_seed_gives_other_times() -> None:
    assert within(poisson(10.0, 1), 5.0) != within(poisson(10.0, 2), 5.0)


def test_what_comes_after_the_end_does_not_come() -> None:
    assert within(uniform(2.0, 0), 1.5) == [0.0, 0.5, 1.0]
    assert within(poisson(0.001, 1), 0.001) == []
