from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from whisper_serve.streaming.buffer import SampleBuffer


def ramp(start: int, end: int) -> np.ndarray[tuple[int], np.dtype[np.int16]]:
    return (np.arange(start, end) % 30_000).astype(np.int16)


def test_positions_count_from_the_stream_s_first_sample() -> None:
    buffer = SampleBuffer(1_000)
    buffer.append(ramp(1_000, 1_500))
    assert (buffer.start, buffer.end) == (1_000, 1_500)
    assert buffer.slice(1_100, 1_103).tolist() == [1_100, 1_101, 1_102]


@pytest.mark.parametrize(("start", "end"), [(0, 5), (5, 11), (7, 6)])
def test_samples_that_are_not_there_are_not_made_up(start: int, end: int) -> None:
    buffer = SampleBuffer(2)
    buffer.append(ramp(2, 10))
    with pytest.raises(IndexError):
        buffer.slice(start, end)


def test_a_slice_stays_as_it_is() -> None:
    buffer = SampleBuffer()
    buffer.append(ramp(0, 10))
    taken = buffer.slice(0, 10)
    buffer.drop_before(10)
    for _ in range(3):
        buffer.append(np.zeros(1 << 14, np.int16))
    assert taken.tolist() == list(range(10))


@given(st.lists(st.tuples(st.integers(0, 3_000), st.integers(-10, 3_000)), max_size=40))
def test_what_was_not_dropped_is_there(steps: list[tuple[int, int]]) -> None:
    buffer = SampleBuffer()
    for size, dropped in steps:
        buffer.append(ramp(buffer.end, buffer.end + size))
        buffer.drop_before(buffer.start + dropped)
        assert buffer.start <= buffer.end
        expected = ramp(buffer.start, buffer.end)
        assert np.array_equal(buffer.slice(buffer.start, buffer.end), expected)


def test_dropping_makes_room() -> None:
    buffer = SampleBuffer()
    for _ in range(1_000):
        buffer.append(ramp(0, 1_600))
        buffer.drop_before(buffer.end - 16_000)
    assert len(buffer._data) <= 1 << 16
