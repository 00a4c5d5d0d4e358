"""Cutting speech into overlapping windows of a fixed length.

Every window but the last has the full length. Its words count up to a cut, and the next
window starts there. The cut is the last pause in the window's second half that leaves
`overlap` seconds behind it: what follows is heard again, but the words before the cut were
decoded with their surroundings, and no word is divided. Unbroken speech has no such pause;
then the cut is `overlap` before the window's end, and the next window starts behind the last
word that was whole.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

from whisper_serve.audio.pcm import SAMPLE_RATE, to_samples
from whisper_serve.audio.vad import Region

MIN_PAUSE_S = 0.3
# Hardly a word takes longer.
LONGEST_WORD_S = 1.5


@dataclass(frozen=True, slots=True)
class Window:
    """Samples `start` to `end` of the speech, of which the words up to `cut` count.

    `at_pause` tells that nobody speaks at `cut`, which is true of the last window too.
    """

    start: int
    end: int
    cut: int
    at_pause: bool

    @property
    def duration_s(self) -> float:
        return (self.end - self.start) / SAMPLE_RATE

    @property
    def start_s(self) -> float:
        return self.start / SAMPLE_RATE

    @property
    def cut_s(self) -> float:
        return self.cut / SAMPLE_RATE


def _pauses_between(regions: Sequence[Region]) -> list[int]:
    """The middles of pauses."""
    min_pause = to_samples(MIN_PAUSE_S)
    pairs = pairwise(regions)
    return [(a.end + b.start) // 2 for a, b in pairs if b.start - a.end >= min_pause]


class WindowCutter:
    """Cuts `total` samples in which people speak in `regions`, in order. At `joints` there was a
    pause before it was cut out."""

    def __init__(
        self,
        regions: Sequence[Region],
        total: int,
        *,
        length_s: float,
        overlap_s: float,
        joints: Collection[int] = (),
    ) -> None:
        self._regions = regions
        self._total = total
        self._length = to_samples(length_s)
        self._overlap = to_samples(overlap_s)
        # Speech before each region.
        self._totals = [0, *accumulate(region.end - region.start for region in regions)]
        self._pauses = sorted({*joints, *_pauses_between(regions)})

    @property
    def total(self) -> int:
        return self._total

    def window_at(self, start: int) -> Window:
        end = start + self._length
        if end >= self._total:
            return Window(start, self._total, self._total, at_pause=True)
        latest = end - self._overlap
        pauses = [p for p in self._pauses if start + self._length // 2 <= p <= latest]
        return Window(start, end, pauses[-1] if pauses else latest, at_pause=bool(pauses))

    def windows(self) -> list[Window]:
        """Windows for decoding side by side. Those that are cut at a pause end there: what
        follows is heard by the next."""
        windows: list[Window] = []
        start = 0
        while not windows or windows[-1].cut < self._total:
            window = self.window_at(start)
            windows.append(replace(window, end=window.cut) if window.at_pause else window)
            start = self.start_after(window)
        return windows

    def start_after(self, window: Window) -> int:
        """Where the window behind `window` starts, side by side: at its cut, or when this is
        within speech, so far before it that the word at the cut is whole."""
        return window.cut if window.at_pause else window.cut - to_samples(LONGEST_WORD_S)

    def speech_between(self, start: int, end: int) -> int:
        """Samples of speech that lie between two positions."""
        return max(0, self._speech_before(end) - self._speech_before(start))

    def _speech_before(self, position: int) -> int:
        index = bisect_right(self._regions, position, key=lambda region: region.start)
        if index == 0:
            return 0
        last = self._regions[index - 1]
        return self._totals[index - 1] + min(position, last.end) - last.start
