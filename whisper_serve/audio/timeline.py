"""The speech of a recording with its long pauses cut out, and the way back to true times."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from whisper_serve.audio.pcm import SAMPLE_RATE, Samples
from whisper_serve.audio.vad import Region
from whisper_serve.text.transcript import Segment, Word


class SpeechTimeline:
    """Maps between a recording and its `kept` regions laid end to end.

    `kept` regions are in order and do not touch. Positions in the joined speech are samples
    or seconds from its start; `samples` holds it, shape (sum of the regions,).
    """

    def __init__(self, recording: Samples, kept: Sequence[Region]) -> None:
        self._kept = kept
        lengths = [region.end - region.start for region in kept]
        self._starts = np.cumsum([0, *lengths[:-1]]).tolist() if kept else []
        parts = [recording[region.start : region.end] for region in kept]
        self.samples: Samples = np.concatenate(parts) if parts else np.zeros(0, np.int16)

    @property
    def joints(self) -> Sequence[int]:
        """Where in the speech two regions meet."""
        return self._starts[1:]

    def locate(self, regions: Sequence[Region]) -> list[Region]:
        """`regions` of the recording, each inside a kept one, as they lie in the speech."""
        return [Region(self._inward(r.start), self._inward(r.end)) for r in regions]

    def restore(self, segment: Segment) -> Segment:
        """`segment`, with times in the speech, as it lies in the recording."""
        start, end = self._outward(segment.start, segment.end)
        words = tuple(self._restore_word(word) for word in segment.words)
        if words:
            start, end = words[0].start, words[-1].end
        seek, _ = self._outward(segment.seek, segment.seek)
        return replace(segment, start=start, end=end, words=words, seek=seek)

    def _restore_word(self, word: Word) -> Word:
        start, end = self._outward(word.start, word.end)
        return replace(word, start=start, end=end)

    def _inward(self, sample: int) -> int:
        index = bisect_right(self._kept, sample, key=lambda region: region.start) - 1
        return int(self._starts[index]) + sample - self._kept[index].start

    def _outward(self, start_s: float, end_s: float) -> tuple[float, float]:
        """What is spoken lies within one region: the one that holds its middle. A time that
        the aligner set beyond its edge would reach over a pause that was cut out."""
        middle = (start_s + end_s) / 2 * SAMPLE_RATE
        index = max(0, bisect_right(self._starts, middle) - 1)
        region, first = self._kept[index], self._starts[index]
        offset = (region.start - first) / SAMPLE_RATE
        low, high = region.start / SAMPLE_RATE, region.end / SAMPLE_RATE
        return (
            min(max(start_s + offset, low), high),
            min(max(end_s + offset, low), high),
        )
