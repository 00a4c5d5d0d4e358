from __future__ import annotations

from itertools import pairwise
from math import ceil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from faster_whisper.vad import get_vad_model
from hypothesis import given, settings
from hypothesis import strategies as st

from whisper_serve.audio.decode import decode
from whisper_serve.audio.pcm import SAMPLE_RATE, Samples, to_samples
from whisper_serve.audio.silero import SileroVad
from whisper_serve.audio.vad import FRAME_SAMPLES, Region, SpeechDetector, VadOptions

# Noise that swells and fades makes the probabilities move, and needs no file.
SIGNAL: Samples = np.asarray(
    np.random.default_rng(1).normal(0, 3000, to_samples(2.5))
    * np.sin(np.linspace(0, 12, to_samples(2.5))) ** 2,
    np.int16,
)


def read(path: Path) -> Samples:
    with path.open("rb") as file:
        return decode(file, accepted=(path.suffix,), max_duration_s=600.0)


def probabilities(samples: Samples, cuts: list[int] | None = None) -> npt.NDArray[np.float32]:
    vad = SileroVad()
    edges = [0, *sorted(cuts or []), len(samples)]
    parts = [vad.push(samples[first:last]) for first, last in pairwise(edges)]
    return np.concatenate([*parts, vad.finish()])


def speech(samples: Samples) -> list[Region]:
    detector = SpeechDetector(VadOptions())
    return [*detector.push(probabilities(samples)), *detector.finish()]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, len(SIGNAL)), st.data())
def test_any_cutting_gives_the_same_probabilities(length: int, data: st.DataObject) -> None:
    samples = SIGNAL[:length]
    cuts = data.draw(st.lists(st.integers(0, length), max_size=8))
    whole, pieces = probabilities(samples), probabilities(samples, cuts)
    assert whole.shape == pieces.shape == (ceil(length / FRAME_SAMPLES),)
    np.testing.assert_allclose(pieces, whole, atol=1e-5)


def test_single_samples_are_enough_to_go_on() -> None:
    samples = SIGNAL[:1500]
    pieces = probabilities(samples, cuts=[*range(1, 1500)])
    np.testing.assert_allclose(pieces, probabilities(samples), atol=1e-5)


def test_more_audio_than_one_run_takes_gives_the_same_as_runs_on_their_own() -> None:
    samples = np.tile(SIGNAL, 52)[: to_samples(130)]
    whole = probabilities(samples)
    assert whole.shape == (ceil(len(samples) / FRAME_SAMPLES),)
    pieces = probabilities(samples, cuts=[*range(0, len(samples), SAMPLE_RATE)])
    np.testing.assert_allclose(pieces, whole, atol=1e-5)


def test_finish_before_anything_gives_nothing() -> None:
    assert SileroVad().finish().shape == (0,)


def test_a_frame_that_is_not_full_waits_for_finish() -> None:
    vad = SileroVad()
    assert vad.push(SIGNAL[: FRAME_SAMPLES - 1]).shape == (0,)
    assert vad.finish().shape == (1,)
    assert vad.finish().shape == (0,)


def test_what_was_pushed_may_be_overwritten_at_once() -> None:
    reused, vad = SIGNAL[:700].copy(), SileroVad()
    found = [vad.push(reused)]
    reused[:] = 20_000
    found += [vad.push(SIGNAL[700:1500]), vad.finish()]
    np.testing.assert_allclose(
        np.concatenate(found), probabilities(SIGNAL[:1500], cuts=[700]), atol=1e-5
    )


def test_two_detectors_do_not_share_their_memory() -> None:
    one, other = SileroVad(), SileroVad()
    found = []
    for first in range(0, len(SIGNAL), 1024):
        found.append(one.push(SIGNAL[first : first + 1024]))
        other.push(SIGNAL[::-1][first : first + 1024])
    np.testing.assert_allclose(
        np.concatenate([*found, one.finish()]), probabilities(SIGNAL), atol=1e-5
    )


def test_probabilities_are_those_of_faster_whisper(corpus: Path) -> None:
    samples = read(corpus / "formats" / "jfk.flac")
    # Its function overwrites the end of its last frame, so that one must not count.
    padded = np.pad(samples, (0, 2 * FRAME_SAMPLES - len(samples) % FRAME_SAMPLES))
    theirs = get_vad_model()(padded.astype(np.float32) / 32768.0).reshape(-1)
    ours = probabilities(samples)
    np.testing.assert_allclose(ours, theirs[: len(ours)], atol=1e-4)


@pytest.mark.parametrize(
    "name", ["formats/jfk.flac", "utterances/1088-134315-0008.flac", "fleurs/fleurs-de-000.ogg"]
)
def test_people_are_heard(corpus: Path, name: str) -> None:
    samples = read(corpus / name)
    spoken = sum(region.duration_s for region in speech(samples))
    assert spoken > 0.5 * len(samples) / SAMPLE_RATE


@pytest.mark.parametrize(
    "name", ["silence_30s", "siren_20s", "swelling_noise_20s", "white_noise_30s"]
)
def test_what_is_no_speech_has_no_region(corpus: Path, name: str) -> None:
    assert speech(read(corpus / "nonspeech" / f"{name}.flac")) == []
