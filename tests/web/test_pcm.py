from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.web.browser import Modules, loaded_modules

pytestmark = [pytest.mark.browser, pytest.mark.timeout(60)]

TO_INT16 = "(module, samples) => [...module.toInt16(Float32Array.from(samples))]"
DECIMATE = """(module, factor, pieces) => {
  const decimator = new module.Decimator(factor);
  return pieces.flatMap((piece) => [...decimator.push(Float32Array.from(piece))]);
}"""


@pytest.fixture(scope="module")
def modules() -> Iterator[Modules]:
    with loaded_modules() as modules:
        yield modules


def sine(hz: float, rate: int, duration_s: float = 0.1) -> list[float]:
    return [float(x) for x in np.sin(2 * np.pi * hz * np.arange(round(rate * duration_s)) / rate)]


def decimated(modules: Modules, factor: int, *pieces: Sequence[float]) -> Any:
    return np.array(modules.call("pcm.js", DECIMATE, factor, pieces))


def test_samples_are_rounded_and_clamped(modules: Modules) -> None:
    samples = [0, 1, -1, 2, -2, 0.6 / 32768, -0.6 / 32768, float("nan")]
    expected = [0, 32767, -32768, 32767, -32768, 1, -1, 0]
    assert modules.call("pcm.js", TO_INT16, samples) == expected


@given(st.lists(st.floats(-1.5, 1.5, width=32), min_size=1))
def test_no_sample_is_off_by_more_than_half(modules: Modules, samples: list[float]) -> None:
    out = np.array(modules.call("pcm.js", TO_INT16, samples))
    wanted = np.clip(np.array(samples) * 32768, -32768, 32767)
    assert np.abs(out - wanted).max() <= 0.5


@pytest.mark.parametrize(
    ("samples", "db"), [([], -100), ([0.0] * 8, -100), ([1, -1], 0), ([0.1, -0.1], -20)]
)
def test_the_level_is_in_db_of_full_scale(
    modules: Modules, samples: list[float], db: float
) -> None:
    level = modules.call("pcm.js", "(module, samples) => module.levelDb(samples)", samples)
    assert level == pytest.approx(db, abs=1e-4)


@pytest.mark.parametrize(
    ("rate", "factor"), [(8000, 1), (48_000, 1), (88_200, 2), (96_000, 2), (192_000, 4)]
)
def test_a_rate_is_divided_until_the_service_takes_it(
    modules: Modules, rate: int, factor: int
) -> None:
    assert modules.call("pcm.js", "(module, rate) => module.factorFor(rate)", rate) == factor


def test_a_rate_that_fits_is_left_alone(modules: Modules) -> None:
    samples = sine(1000, 16_000)
    assert decimated(modules, 1, samples) == pytest.approx(samples, abs=1e-6)


@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize("hz", [300, 3000, 8000])
def test_speech_stays_as_loud_as_it_was(modules: Modules, factor: int, hz: int) -> None:
    out = decimated(modules, factor, sine(hz, 48_000 * factor))[40:]
    assert np.sqrt(np.mean(out**2)) == pytest.approx(np.sqrt(0.5), rel=0.01)
    spectrum = np.abs(np.fft.rfft(out * np.hanning(len(out))))
    assert spectrum.argmax() * 48_000 / len(out) == pytest.approx(hz, abs=20)


@pytest.mark.parametrize("hz", [28_000, 40_000, 47_000])
def test_what_the_new_rate_cannot_hold_is_filtered_out(modules: Modules, hz: int) -> None:
    out = decimated(modules, 2, sine(hz, 96_000))[40:]
    assert np.abs(out).max() < 0.003


@given(st.lists(st.integers(1, 70), min_size=1, max_size=12), st.sampled_from([1, 2, 3]))
def test_pieces_give_what_the_whole_gives(
    modules: Modules, lengths: list[int], factor: int
) -> None:
    samples = np.random.default_rng(1).normal(size=sum(lengths)).tolist()
    pieces = [list(piece) for piece in np.split(np.array(samples), np.cumsum(lengths)[:-1])]
    whole = decimated(modules, factor, samples)
    assert decimated(modules, factor, *pieces) == pytest.approx(whole)
    assert len(whole) == -(-len(samples) // factor)
