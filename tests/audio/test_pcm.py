from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from whisper_serve.audio.pcm import seconds, to_samples


def test_a_second_has_16000_samples() -> None:
    assert to_samples(1.0) == 16_000
    assert seconds(16_000) == 1.0


@given(st.integers(0, 10**9))
def test_samples_survive_the_way_through_seconds(n_samples: int) -> None:
    assert to_samples(seconds(n_samples)) == n_samples


@given(st.floats(0, 100_000))
def test_a_time_is_taken_to_the_nearest_sample(time_s: float) -> None:
    assert abs(seconds(to_samples(time_s)) - time_s) <= 0.5001 / 16_000
