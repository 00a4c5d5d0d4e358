from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.audio.clips import LAYOUTS
from whisper_serve.audio.pcm import SAMPLE_RATE, Samples
from whisper_serve.audio.resample import Resampler, joined
from whisper_serve.errors import UnreadableAudio

Floats = npt.NDArray[np.float32]  # shape (n,) or (n, channels)

RATES = [8_000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_099, 44_100, 48_000]
ONE_MS = SAMPLE_RATE // 1_000


def frame(values: Floats, rate: int) -> av.AudioFrame:
    channels = 1 if values.ndim == 1 else values.shape[1]
    made = av.AudioFrame.from_ndarray(values.reshape(1, -1), format="flt", layout=LAYOUTS[channels])
    made.sample_rate = rate
    return made


def resampled(parts: Iterable[Floats], rate: int) -> Samples:
    resampler = Resampler()
    return joined([*(resampler.push(frame(part, rate)) for part in parts), resampler.finish()])


def cut(values: Floats, cuts: Sequence[int]) -> list[Floats]:
    edges = [0, *sorted(min(at, len(values)) for at in cuts), len(values)]
    return [values[first:last] for first, last in pairwise(edges) if last > first]


def sine(hz: float, duration_s: float, rate: int) -> Floats:
    times = np.arange(round(duration_s * rate)) / rate
    return np.asarray(0.5 * np.sin(2 * np.pi * hz * times), np.float32)


def level_db(samples: Samples) -> float:
    """Compared with the sine that went in, without the edges."""
    inner = samples[800:-800] / 32_768
    return 20 * math.log10(max(1e-9, float(np.sqrt(2 * np.mean(inner**2))) / 0.5))


@pytest.mark.parametrize("rate", RATES)
def test_a_sine_stays_what_and_where_it_is(rate: int) -> None:
    samples = resampled([sine(1_000.0, 1.0, rate)], rate)[800:-800] / 32_768
    times = np.arange(800, SAMPLE_RATE - 800) / SAMPLE_RATE
    error = samples - 0.5 * np.sin(2 * np.pi * 1_000.0 * times)
    assert 10 * math.log10(np.mean(samples**2) / np.mean(error**2)) > 70


@pytest.mark.parametrize("rate", [22_050, 24_000, 32_000, 44_100, 48_000])
def test_what_sixteen_kilohertz_can_hold_is_kept(rate: int) -> None:
    for hz in (100.0, 4_000.0, 7_000.0, 7_500.0):
        assert level_db(resampled([sine(hz, 0.5, rate)], rate)) == pytest.approx(0.0, abs=0.5)


@pytest.mark.parametrize("rate", [22_050, 24_000, 32_000, 44_100, 48_000])
def test_what_it_cannot_hold_does_not_come_back_as_something_else(rate: int) -> None:
    for hz in (8_500.0, 9_000.0, 10_000.0):
        assert level_db(resampled([sine(hz, 0.5, rate)], rate)) < -80


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("at_s", [0.0, 0.0123, 0.5, 0.99])
def test_a_click_stays_at_its_time(rate: int, at_s: float) -> None:
    click = np.zeros(rate, np.float32)
    click[round(at_s * rate)] = 1.0
    samples = resampled([click], rate)
    assert abs(int(np.argmax(np.abs(samples))) - at_s * SAMPLE_RATE) <= ONE_MS


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_099, 44_100, 48_000])
def test_ten_minutes_do_not_drift(rate: int) -> None:
    second, click = np.zeros(rate, np.float32), np.zeros(rate, np.float32)
    click[rate // 2] = 1.0
    samples = resampled([*[second] * 599, click], rate)
    assert len(samples) == 600 * SAMPLE_RATE
    assert abs(int(np.argmax(samples)) - 599.5 * SAMPLE_RATE) <= ONE_MS


@settings(max_examples=60)
@given(
    rate=st.one_of(st.sampled_from(RATES), st.integers(8_000, 48_000)),
    n=st.integers(1, 3_000),
    cuts=st.lists(st.integers(0, 3_000), max_size=12),
)
def test_any_cutting_gives_the_same_samples(rate: int, n: int, cuts: list[int]) -> None:
    values = np.random.default_rng(n).uniform(-1, 1, n).astype(np.float32)
    whole = resampled([values], rate)
    assert len(whole) == math.ceil(n * SAMPLE_RATE / rate)
    assert np.array_equal(resampled(cut(values, cuts), rate), whole)


@pytest.mark.parametrize("rate", RATES)
def test_only_a_few_milliseconds_are_held_back(rate: int) -> None:
    resampler = Resampler()
    at_once = resampler.push(frame(sine(440.0, 0.1, rate), rate))
    assert 0 < len(resampler.finish()) + (rate == SAMPLE_RATE) <= 9 * ONE_MS
    assert len(at_once) >= 1_600 - 9 * ONE_MS


def test_sixteen_kilohertz_come_out_bit_for_bit() -> None:
    noise = np.random.default_rng(0).integers(-32_768, 32_768, 5_000)
    floats = (noise / 32_768).astype(np.float32)
    assert np.array_equal(resampled([floats], SAMPLE_RATE), noise)


@pytest.mark.parametrize("channels", [2, 3, 6, 8])
def test_channels_are_mixed_to_their_mean(channels: int) -> None:
    for loud in range(channels):
        values = np.zeros((1_600, channels), np.float32)
        values[:, loud] = 0.5
        mixed = resampled([values], SAMPLE_RATE)
        assert np.all(np.abs(mixed - 16_384 / channels) <= 1)


def test_full_scale_in_all_channels_does_not_overflow() -> None:
    assert set(resampled([np.full((1_600, 2), 1.0, np.float32)], SAMPLE_RATE)) == {32_767}
    assert set(resampled([np.full((1_600, 2), -1.0, np.float32)], SAMPLE_RATE)) == {-32_768}


def test_the_form_may_change_on_the_way() -> None:
    resampler = Resampler()
    mono, stereo = sine(440.0, 0.5, 44_100), np.stack([sine(440.0, 0.25, 8_000)] * 2, axis=1)
    parts = [resampler.push(frame(mono, 44_100)), resampler.push(frame(stereo, 8_000))]
    assert len(joined([*parts, resampler.finish()])) == 8_000 + 4_000


def test_finish_before_anything_gives_nothing() -> None:
    assert len(Resampler().finish()) == 0


def test_finish_gives_the_rest_once() -> None:
    resampler = Resampler()
    resampler.push(frame(sine(440.0, 0.1, 48_000), 48_000))
    assert len(resampler.finish()) > 0
    assert len(resampler.finish()) == 0


@pytest.mark.parametrize("rate", [1, 3_999, 384_001])
def test_absurd_rates_are_refused(rate: int) -> None:
    with pytest.raises(UnreadableAudio, match=f"{rate} Hz"):
        Resampler().push(frame(np.zeros(10, np.float32), rate))


@pytest.mark.skipif(sys.platform != "linux", reason="counts the process's threads")
def test_resamplers_have_no_threads() -> None:
    first = Resampler()
    first.push(frame(sine(440.0, 0.1, 48_000), 48_000))
    before = n_threads()
    more = [Resampler() for _ in range(5)]
    for resampler in more:
        resampler.push(frame(sine(440.0, 0.1, 48_000), 48_000))
    assert n_threads() == before


def n_threads() -> int:
    """FFmpeg's too."""
    return len(list(Path("/proc/self/task").iterdir()))
