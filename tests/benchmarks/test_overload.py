from __future__ import annotations

import pytest

from benchmarks.overload import Level, capacity, compared, ratio


@pytest.mark.parametrize("true", [0, 1, 2, 3, 7, 16, 29, 30])
async def test_the_capacity_is_found(true: int) -> None:
    tried: list[int] = []

    async def fits(count: int) -> bool:
        tried.append(count)
        return count <= true

    assert await capacity(fits, most=30) == true
    assert len(tried) == len(set(tried))
    assert len(tried) <= 10


def test_a_level_fits_when_all_were_admitted_and_served_in_time() -> None:
    well = Level(2, 0, admitted=2, finals_s=[1.0] * 20)
    assert well.is_within(1.5)
    assert not well.is_within(0.5)
    assert not Level(2, 0, finals_s=[1.0] * 20, refused_s=[0.01]).is_within(1.5)
    assert not Level(2, 0, finals_s=[1.0] * 19).is_within(1.5)  # too few to know a p95
    well.faults["broken"] += 1
    assert not well.is_within(1.5)


def test_levels_are_compared_by_ratios() -> None:
    assert ratio([4.0] * 2, [2.0] * 2, 0.5) == 2.0
    assert ratio([4.0] * 2, [2.0] * 2, 0.95) is None
    assert ratio([], [2.0] * 2, 0.5) is None
    full = Level(2, 1, admitted=2, finals_s=[2.0] * 20, files_s=[1.0] * 4)
    beyond = Level(4, 2, admitted=3, finals_s=[3.0] * 20, files_s=[1.0] * 4)
    assert compared(full, beyond).splitlines() == [
        "admitted: 2 of 2, then 3 of 4",
        "p50: finals 1.50 times, files 1.00 times",
        "p95: finals 1.50 times, files - times",
    ]


def test_a_level_is_shown_in_milliseconds_where_it_is_quick() -> None:
    cells = Level(4, 2, admitted=3, refused_s=[0.01, 0.02]).show().split(" | ")
    assert cells[1] == "3"
    assert cells[6] == "15 / - / 20"
