from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whisper_serve.audio.pcm import SAMPLE_RATE, to_samples
from whisper_serve.audio.vad import Region
from whisper_serve.audio.windows import LONGEST_WORD_S, MIN_PAUSE_S, Window, WindowCutter


@st.composite
def cutters(draw: st.DrawFn) -> tuple[WindowCutter, list[Region], float, float]:
    """Any speech, cut with any setting that the configuration allows."""
    total = draw(st.integers(1, 120 * SAMPLE_RATE))
    edges = draw(st.lists(st.integers(0, total), max_size=40, unique=True).map(sorted))
    regions = [Region(a, b) for a, b in zip(edges[::2], edges[1::2], strict=False)]
    length_s = draw(st.floats(5, 30))
    overlap_s = draw(st.floats(0.2, length_s / 2, exclude_max=True))
    cutter = WindowCutter(regions, total, length_s=length_s, overlap_s=overlap_s)
    return cutter, regions, length_s, overlap_s


def region(start_s: float, end_s: float) -> Region:
    return Region(to_samples(start_s), to_samples(end_s))


def cutter_of(*regions: Region, total_s: float, length_s: float = 10.0) -> WindowCutter:
    return WindowCutter(regions, to_samples(total_s), length_s=length_s, overlap_s=1.0)


def in_seconds(window: Window) -> tuple[float, float, float, bool]:
    return (
        window.start_s,
        window.end / SAMPLE_RATE,
        window.cut_s,
        window.at_pause,
    )


def test_short_speech_is_one_window_that_counts_to_its_end() -> None:
    cutter = cutter_of(region(0.5, 8), total_s=9)
    assert [in_seconds(w) for w in cutter.windows()] == [(0, 9, 9, True)]


def test_speech_of_exactly_one_window_is_not_cut() -> None:
    cutter = cutter_of(region(0.5, 9), total_s=10)
    assert [in_seconds(w) for w in cutter.windows()] == [(0, 10, 10, True)]


def test_the_cut_is_in_the_middle_of_the_last_pause_that_leaves_the_overlap() -> None:
    cutter = cutter_of(
        region(0, 6), region(6.5, 8), region(8.5, 9.25), region(9.75, 15), total_s=15
    )
    assert in_seconds(cutter.window_at(0)) == (0, 10, 8.25, True)


def test_where_a_pause_was_cut_out_is_a_place_to_cut() -> None:
    regions = [region(0, 7.9), region(8.1, 15)]
    joint = to_samples(8)
    cutter = WindowCutter(regions, to_samples(15), length_s=10.0, overlap_s=1.0, joints=[joint])
    assert in_seconds(cutter.window_at(0)) == (0, 10, 8, True)


def test_a_pause_in_the_first_half_is_no_place_to_cut() -> None:
    cutter = cutter_of(region(0, 3), region(3.5, 15), total_s=15)
    assert in_seconds(cutter.window_at(0)) == (0, 10, 9, False)


def test_a_breath_is_no_pause() -> None:
    cutter = cutter_of(region(0, 6), region(6 + MIN_PAUSE_S - 0.01, 15), total_s=15)
    assert not cutter.window_at(0).at_pause


def test_unbroken_speech_is_cut_before_the_overlap() -> None:
    cutter = cutter_of(region(0, 15), total_s=15)
    assert in_seconds(cutter.window_at(0)) == (0, 10, 9, False)
    assert in_seconds(cutter.window_at(to_samples(3.5))) == (3.5, 13.5, 12.5, False)


def test_windows_meet_at_a_pause_and_overlap_within_speech() -> None:
    cutter = cutter_of(region(0, 6), region(6.5, 30), total_s=30)
    first, second, third, *_ = cutter.windows()
    assert first.at_pause
    assert second.start == first.cut
    assert not second.at_pause
    assert third.start < second.cut


def test_side_by_side_the_longest_word_is_whole_on_one_side_of_a_cut() -> None:
    cutter = WindowCutter([region(0, 30)], to_samples(30), length_s=10.0, overlap_s=0.2)
    first, second, *_ = cutter.windows()
    assert first.cut - second.start == to_samples(LONGEST_WORD_S)


def test_speech_between_two_positions_is_counted_within_regions_only() -> None:
    cutter = cutter_of(region(1, 2), region(4, 6), total_s=10)
    assert cutter.speech_between(0, cutter.total) == to_samples(3)
    assert cutter.speech_between(to_samples(1.5), to_samples(4.5)) == to_samples(1)
    assert cutter.speech_between(to_samples(2), to_samples(4)) == 0
    assert cutter.speech_between(to_samples(5), to_samples(5)) == 0
    assert cutter.speech_between(to_samples(5), to_samples(1)) == 0


@given(cutters(), st.data())
def test_a_window_goes_on_within_the_speech_and_is_never_too_long(
    made: tuple[WindowCutter, list[Region], float, float], data: st.DataObject
) -> None:
    cutter, _, length_s, overlap_s = made
    start = data.draw(st.integers(0, cutter.total - 1))
    window = cutter.window_at(start)
    assert window.start == start < window.cut <= window.end <= cutter.total
    assert window.end - window.start <= to_samples(length_s)
    if window.end == cutter.total:
        assert window.cut == cutter.total
        assert window.at_pause
    else:
        assert window.end - window.cut >= to_samples(overlap_s)
        assert window.cut - window.start >= to_samples(length_s) // 2


@given(cutters(), st.data())
def test_nobody_speaks_at_a_cut_that_is_at_a_pause(
    made: tuple[WindowCutter, list[Region], float, float], data: st.DataObject
) -> None:
    cutter, regions, length_s, overlap_s = made
    window = cutter.window_at(data.draw(st.integers(0, cutter.total - 1)))
    if window.cut == cutter.total:
        return
    half = to_samples(MIN_PAUSE_S) // 2 - 1
    quiet = cutter.speech_between(window.cut - half, window.cut + half) == 0
    if window.at_pause:
        assert quiet
    else:
        assert window.end - window.cut == to_samples(overlap_s)
        latest, earliest = window.cut, window.start + to_samples(length_s) // 2
        middles = [(a.end + b.start) // 2 for a, b in pairwise(regions) if longer(a, b)]
        assert not [m for m in middles if earliest <= m <= latest]


def longer(region: Region, later: Region) -> bool:
    return later.start - region.end >= to_samples(MIN_PAUSE_S)


@given(cutters())
def test_windows_side_by_side_leave_no_hole_up_to_their_cuts(
    made: tuple[WindowCutter, list[Region], float, float],
) -> None:
    cutter, _, length_s, _ = made
    windows = cutter.windows()
    assert windows[0].start == 0
    assert windows[-1].cut == cutter.total
    assert all(window.end - window.start <= to_samples(length_s) for window in windows)
    for window, later in pairwise(windows):
        assert window.start < later.start <= window.cut < later.cut
        reach = 0 if window.at_pause else to_samples(LONGEST_WORD_S)
        assert later.start == window.cut - reach


@given(cutters(), st.data())
def test_speech_between_is_what_a_count_of_samples_gives(
    made: tuple[WindowCutter, list[Region], float, float], data: st.DataObject
) -> None:
    cutter, regions, _, _ = made
    start, end = (data.draw(st.integers(0, cutter.total)) for _ in range(2))
    assert cutter.speech_between(start, end) == sum(
        max(0, min(r.end, end) - max(r.start, start)) for r in regions
    )


@pytest.mark.parametrize("overlap_s", [0.2, 1.0, 2.4])
def test_the_shortest_windows_still_come_to_an_end(overlap_s: float) -> None:
    cutter = WindowCutter([region(0, 60)], to_samples(60), length_s=5.0, overlap_s=overlap_s)
    assert len(cutter.windows()) <= 60
