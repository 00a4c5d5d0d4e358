from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from whisper_serve.audio.pcm import SAMPLE_RATE, Samples, seconds
from whisper_serve.audio.timeline import SpeechTimeline
from whisper_serve.audio.vad import Region
from whisper_serve.text.transcript import Segment, Word

TOTAL = 60 * SAMPLE_RATE
# No two neighbours are alike, so that a sample tells where it comes from.
RECORDING: Samples = (np.arange(TOTAL) % 30_011).astype(np.int16)

# One second of speech, ten of silence, two of speech.
KEPT = [Region(16_000, 32_000), Region(192_000, 224_000)]


def test_what_was_cut_out_is_a_joint() -> None:
    assert list(SpeechTimeline(RECORDING, KEPT).joints) == [16_000]
    assert list(SpeechTimeline(RECORDING, KEPT[:1]).joints) == []
    assert list(SpeechTimeline(RECORDING, []).joints) == []


@st.composite
def kept_regions(draw: st.DrawFn) -> list[Region]:
    edges = draw(st.lists(st.integers(0, TOTAL), min_size=2, max_size=12, unique=True).map(sorted))
    return [Region(a, b) for a, b in zip(edges[::2], edges[1::2], strict=False)]


@st.composite
def spoken(draw: st.DrawFn, timeline: SpeechTimeline) -> Segment:
    """A segment whose words lie in order anywhere in the speech, and some way beyond."""
    reach = seconds(len(timeline.samples)) + 0.5
    times = draw(st.lists(st.floats(0, reach), min_size=2, max_size=16).map(sorted))
    pairs = zip(times[::2], times[1::2], strict=False)
    words = tuple(Word(f" {n}", a, b, n / 16) for n, (a, b) in enumerate(pairs))
    return replace(Segment(0.0, 0.0, ""), seek=draw(st.floats(0, reach))).with_words(words)


def word_at(start: float, end: float) -> Segment:
    return Segment(0, 0, "").with_words([Word(" word", start, end, 0.5)])


def times_of(segment: Segment) -> list[float]:
    return [time for word in segment.words for time in (word.start, word.end)]


def test_the_speech_is_the_kept_regions_end_to_end() -> None:
    samples = SpeechTimeline(RECORDING, KEPT).samples
    assert samples.dtype == np.int16
    np.testing.assert_array_equal(
        samples, np.concatenate([RECORDING[16_000:32_000], RECORDING[192_000:224_000]])
    )


def test_a_recording_without_speech_has_none() -> None:
    timeline = SpeechTimeline(RECORDING, [])
    assert timeline.samples.shape == (0,)
    assert timeline.samples.dtype == np.int16
    assert timeline.locate([]) == []


def test_regions_are_located_in_the_speech() -> None:
    located = SpeechTimeline(RECORDING, KEPT).locate([Region(20_000, 32_000), KEPT[1]])
    assert located == [Region(4_000, 16_000), Region(16_000, 48_000)]


def test_a_word_behind_a_pause_gets_its_true_time() -> None:
    restored = SpeechTimeline(RECORDING, KEPT).restore(word_at(1.5, 2.0))
    assert times_of(restored) == [12.5, 13.0]
    assert (restored.start, restored.end) == (12.5, 13.0)


def test_a_word_that_the_aligner_stretched_over_a_cut_stays_on_its_side() -> None:
    timeline = SpeechTimeline(RECORDING, KEPT)
    assert times_of(timeline.restore(word_at(0.75, 1.125))) == [1.75, 2.0]
    assert times_of(timeline.restore(word_at(0.875, 1.25))) == [12.0, 12.25]


def test_a_segment_without_words_stays_on_the_side_of_its_middle() -> None:
    restored = SpeechTimeline(RECORDING, KEPT).restore(Segment(0.5, 2.0, " text", seek=0.25))
    assert (restored.start, restored.end, restored.seek) == (12.0, 13.0, 1.25)


@given(kept_regions(), st.data())
def test_times_within_a_kept_region_come_back_as_they_were(
    kept: list[Region], data: st.DataObject
) -> None:
    timeline = SpeechTimeline(RECORDING, kept)
    region = data.draw(st.sampled_from(kept))
    # The outermost sample belongs to the neighbour as well, once pauses are cut out.
    start, end = sorted(data.draw(st.integers(region.start, region.end)) for _ in range(2))
    (located,) = timeline.locate([Region(start, end)])
    assert located.end - located.start == end - start
    np.testing.assert_array_equal(
        timeline.samples[located.start : located.end], RECORDING[start:end]
    )
    if start < end:
        restored = timeline.restore(word_at(seconds(located.start), seconds(located.end)))
        assert times_of(restored) == pytest.approx([seconds(start), seconds(end)])


@given(kept_regions(), st.data())
def test_restored_words_are_in_order_and_never_in_a_pause_that_was_cut_out(
    kept: list[Region], data: st.DataObject
) -> None:
    timeline = SpeechTimeline(RECORDING, kept)
    restored = timeline.restore(data.draw(spoken(timeline)))
    assert all(earlier <= later for earlier, later in pairwise(times_of(restored)))
    for word in restored.words:
        assert any(
            seconds(region.start) <= word.start <= word.end <= seconds(region.end)
            for region in kept
        )


@given(kept_regions(), st.data())
def test_restoring_changes_times_only(kept: list[Region], data: st.DataObject) -> None:
    timeline = SpeechTimeline(RECORDING, kept)
    segment = replace(
        data.draw(spoken(timeline)),
        tokens=(1, 2),
        temperature=0.2,
        avg_logprob=-0.3,
        compression_ratio=1.1,
        no_speech_prob=0.01,
    )
    restored = timeline.restore(segment)
    assert (restored.start, restored.end) == (restored.words[0].start, restored.words[-1].end)
    untimed = [replace(word, start=0, end=0) for word in segment.words]
    assert [replace(word, start=0, end=0) for word in restored.words] == untimed
    assert (
        replace(
            restored, start=segment.start, end=segment.end, seek=segment.seek, words=segment.words
        )
        == segment
    )
