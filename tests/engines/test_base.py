from __future__ import annotations

import pickle
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whisper_serve.engines.base import WINDOW_SAMPLES, DecodeTask, Lane, TemperaturePolicy


def test_the_ladder_from_zero_is_whisper_s() -> None:
    assert TemperaturePolicy.starting_at(0.0) == TemperaturePolicy()
    assert TemperaturePolicy().temperatures == (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


@pytest.mark.parametrize(
    ("start", "ladder"),
    [
        (0.2, (0.2, 0.4, 0.6, 0.8, 1.0)),
        (0.5, (0.5, 0.7, 0.9)),
        (0.6, (0.6, 0.8, 1.0)),
        (0.9, (0.9,)),
        (1.0, (1.0,)),
    ],
)
def test_the_ladder_goes_up_by_a_fifth(start: float, ladder: tuple[float, ...]) -> None:
    assert TemperaturePolicy.starting_at(start).temperatures == ladder


@settings(deadline=None)
@given(st.floats(0.0, 1.0))
def test_every_ladder_starts_where_it_was_told_and_ends_at_one_or_below(start: float) -> None:
    ladder = TemperaturePolicy.starting_at(start).temperatures
    assert ladder[0] == pytest.approx(start, abs=1e-3)
    assert 0.8 <= ladder[-1] <= 1.0
    assert all(0.199 < b - a < 0.201 for a, b in pairwise(ladder))


def test_a_live_window_is_more_urgent_than_a_file_s() -> None:
    assert sorted(Lane, key=lambda lane: lane.value) == [
        Lane.LIVE_FINAL,
        Lane.LIVE_PARTIAL,
        Lane.FILE,
    ]


def test_a_task_knows_how_long_it_sounds() -> None:
    assert DecodeTask(np.zeros(WINDOW_SAMPLES, np.int16)).duration_s == 30.0


def test_a_task_travels_between_processes() -> None:
    task = DecodeTask(np.arange(100, dtype=np.int16), language="de", lane=Lane.LIVE_FINAL)
    arrived = pickle.loads(pickle.dumps(task))  # noqa: S301 - made here
    assert np.array_equal(arrived.samples, task.samples)
    assert (arrived.language, arrived.lane, arrived.temperature) == (
        task.language,
        task.lane,
        task.temperature,
    )
