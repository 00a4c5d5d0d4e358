from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from faster_whisper import vad as faster_whisper_vad
from hypothesis import given
from hypothesis import strategies as st

from whisper_serve.audio.pcm import SAMPLE_RATE, to_samples
from whisper_serve.audio.vad import (
    FRAME_SAMPLES,
    Region,
    SpeechDetector,
    VadOptions,
    merge,
)

YES, MAYBE, NO = 0.9, 0.4, 0.1
DEFAULTS = VadOptions()

# Runs of the same probability, since single random frames hardly ever make speech.
probabilities = st.lists(
    st.tuples(
        st.sampled_from([0.0, NO, 0.34999, 0.35, MAYBE, 0.49999, 0.5, YES, 1.0]),
        st.integers(1, 8),
    ),
    max_size=30,
).map(lambda runs: [p for p, n in runs for _ in range(n)])

options = st.builds(
    VadOptions,
    threshold=st.floats(0.05, 0.95),
    hysteresis=st.floats(0, 0.5),
    min_speech_s=st.floats(0, 0.5),
    min_silence_s=st.floats(0, 0.5),
)


def detect(frames: list[float], chosen: VadOptions = DEFAULTS) -> list[Region]:
    detector = SpeechDetector(chosen)
    return [*detector.push(frames), *detector.finish()]


def frames_region(first: int, last: int) -> Region:
    return Region(first * FRAME_SAMPLES, last * FRAME_SAMPLES)


def test_a_region_knows_its_seconds() -> None:
    assert Region(8_000, 24_000).duration_s == 1.0


def test_speech_lasts_from_its_first_frame_to_the_first_of_silence() -> None:
    assert detect([NO] * 3 + [YES] * 5 + [NO] * 9) == [frames_region(3, 8)]


def test_a_region_is_told_as_soon_as_its_silence_is_long_enough() -> None:
    detector = SpeechDetector(DEFAULTS)
    assert detector.push([YES] * 5 + [NO] * 3) == []
    assert detector.push([NO]) == [frames_region(0, 5)]
    assert detector.finish() == []


def test_finish_closes_speech_that_goes_on_to_the_end() -> None:
    assert detect([NO] * 3 + [YES] * 5) == [frames_region(3, 8)]


def test_finish_leaves_out_silence_that_was_too_short_to_end_speech() -> None:
    assert detect([YES] * 5 + [NO] * 2) == [frames_region(0, 5)]


def test_finish_before_anything_finds_nothing() -> None:
    assert SpeechDetector(DEFAULTS).finish() == []


def test_a_short_pause_is_part_of_speech() -> None:
    assert detect([YES] * 5 + [NO] * 3 + [YES] * 5 + [NO] * 9) == [frames_region(0, 13)]


def test_doubtful_frames_carry_speech_on_but_do_not_begin_it() -> None:
    assert detect([MAYBE] * 9 + [YES] * 5 + [MAYBE] * 9 + [YES, *[NO] * 9]) == [
        frames_region(9, 24)
    ]


def test_a_click_is_not_speech() -> None:
    assert detect([NO] * 5 + [YES] * 3 + [NO] * 9) == []
    assert detect([NO] * 5 + [YES] * 3) == []


def test_speech_ends_however_low_the_threshold_is() -> None:
    sensitive = VadOptions(threshold=0.1)
    assert detect([YES] * 5 + [0.0] * 9, sensitive) == [frames_region(0, 5)]


@given(probabilities, options, st.data())
def test_any_cutting_gives_the_same_regions(
    frames: list[float], chosen: VadOptions, data: st.DataObject
) -> None:
    whole, pieces = SpeechDetector(chosen), SpeechDetector(chosen)
    expected = whole.push(frames)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(frames)), max_size=6)))
    found = [
        region
        for first, last in pairwise([0, *cuts, len(frames)])
        for region in pieces.push(frames[first:last])
    ]
    assert found == expected
    assert pieces.finish() == whole.finish()


@given(probabilities, options)
def test_regions_are_in_order_apart_within_the_audio_and_long_enough(
    frames: list[float], chosen: VadOptions
) -> None:
    regions = detect(frames, chosen)
    assert all(0 <= r.start < r.end <= len(frames) * FRAME_SAMPLES for r in regions)
    assert all(r.duration_s >= chosen.min_speech_s for r in regions)
    for region, later in pairwise(regions):
        assert later.start - region.end >= to_samples(chosen.min_silence_s)
        assert later.start > region.end


@given(probabilities)
def test_regions_hold_every_clear_frame_of_speech_but_clicks(frames: list[float]) -> None:
    lenient = VadOptions(min_speech_s=0)
    regions = detect(frames, lenient)
    for index, probability in enumerate(frames):
        at = index * FRAME_SAMPLES
        if probability >= lenient.threshold:
            assert any(r.start <= at < r.end for r in regions)


@given(probabilities)
def test_the_rule_is_that_of_silero(frames: list[float]) -> None:
    assert detect(frames) == silero_regions(frames)


def silero_regions(frames: list[float]) -> list[Region]:
    """What faster-whisper makes of `frames`. It measures silence up to the start of a frame,
    not its end, and lets the end of the audio close what is open."""
    padded = [*frames, *[0.0] * 9]

    def network(audio: object) -> list[float]:
        return padded

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(faster_whisper_vad, "get_vad_model", lambda: network)
        found = faster_whisper_vad.get_speech_timestamps(
            _silence(len(padded)),
            faster_whisper_vad.VadOptions(
                min_speech_duration_ms=99, min_silence_duration_ms=96, speech_pad_ms=0
            ),
        )
    return [Region(f["start"], f["end"]) for f in found]


def _silence(frames: int) -> npt.NDArray[np.float32]:
    return np.zeros(frames * FRAME_SAMPLES, np.float32)


TOTAL = 10 * SAMPLE_RATE


@st.composite
def region_lists(draw: st.DrawFn) -> list[Region]:
    """Regions in order that do not touch, within `TOTAL`."""
    edges = draw(st.lists(st.integers(0, TOTAL), max_size=16, unique=True).map(sorted))
    return [Region(a, b) for a, b in zip(edges[::2], edges[1::2], strict=False)]


def test_merging_widens_regions_and_stays_within_the_audio() -> None:
    regions = [Region(1_000, 20_000), Region(100_000, 159_000)]
    merged = merge(regions, max_gap_s=1.0, pad_s=0.1, total=TOTAL)
    assert merged == [Region(0, 21_600), Region(98_400, TOTAL)]


def test_merging_joins_what_lies_near_after_widening() -> None:
    regions = [Region(16_000, 32_000), Region(67_199, 80_000)]
    assert merge(regions, max_gap_s=2.0, pad_s=0.1, total=TOTAL) == [Region(14_400, 81_600)]


def test_merging_keeps_a_gap_that_is_long_enough() -> None:
    regions = [Region(16_000, 32_000), Region(67_200, 80_000)]
    assert len(merge(regions, max_gap_s=2.0, pad_s=0.1, total=TOTAL)) == 2


def test_merging_nothing_gives_nothing() -> None:
    assert merge([], max_gap_s=2.0, pad_s=0.4, total=TOTAL) == []


@given(region_lists(), st.floats(0, 3), st.floats(0, 1))
def test_merged_regions_are_in_order_apart_and_hold_the_others(
    regions: list[Region], max_gap_s: float, pad_s: float
) -> None:
    merged = merge(regions, max_gap_s=max_gap_s, pad_s=pad_s, total=TOTAL)
    assert all(0 <= r.start < r.end <= TOTAL for r in merged)
    assert all(b.start - a.end >= to_samples(max_gap_s) for a, b in pairwise(merged))
    pad = to_samples(pad_s)
    for region in regions:
        start, end = max(0, region.start - pad), min(TOTAL, region.end + pad)
        assert any(r.start <= start and end <= r.end for r in merged)
    edges = {max(0, r.start - pad) for r in regions} | {min(TOTAL, r.end + pad) for r in regions}
    assert {edge for r in merged for edge in (r.start, r.end)} <= edges
