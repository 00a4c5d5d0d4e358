from __future__ import annotations

import numpy as np
import pytest

from benchmarks.slopes import Points, last_part, slope


def line(rise_per_s: float, level: float = 0.0, count: int = 30) -> Points:
    return [(10.0 * number, level + rise_per_s * 10.0 * number) for number in range(count)]


def test_a_straight_line_is_known_for_sure() -> None:
    found = slope([line(1 / 3_600)])
    assert found is not None
    assert (found.per_hour, found.low, found.high) == pytest.approx((1.0, 1.0, 1.0))
    assert str(found) == "+1.0 (+1.0 to +1.0)"


def test_processes_on_different_levels_share_a_slope() -> None:
    found = slope([line(1 / 3_600, level=10.0), line(1 / 3_600, level=900.0)])
    assert found is not None
    assert found.per_hour == pytest.approx(1.0)


def test_a_few_samples_say_nothing() -> None:
    assert slope([]) is None
    assert slope([line(1.0, count=9)]) is None
    assert slope([[(0.0, 1.0)]] * 20) is None


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    chance = np.random.default_rng(1)
    held = 0
    for _ in range(400):
        noise = chance.normal(0.0, 1.0, 12)
        found = slope([[(float(at), float(value)) for at, value in enumerate(noise)]])
        assert found is not None
        held += found.low <= 0.0 <= found.high
    assert 0.92 <= held / 400 <= 0.98


def test_growth_is_above_a_bound_only_when_it_is_growth() -> None:
    steep = slope([line(30 / 3_600)])
    assert steep is not None
    assert steep.is_above(20.0)
    assert not steep.is_above(40.0)
    noisy = slope([[(float(at), float(at % 2 * 50)) for at in range(14)]])
    assert noisy is not None
    assert noisy.per_hour > 20.0
    assert not noisy.is_above(20.0)


def test_what_warms_up_is_left_out() -> None:
    points = line(1.0, count=10)  # at 0 to 90 s
    assert [at for at, _ in last_part(points, 2 / 3, 0.0, 90.0)] == [30, 40, 50, 60, 70, 80, 90]
