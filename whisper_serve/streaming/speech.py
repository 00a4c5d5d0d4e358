"""Where in a stream people speak, as far as it has been looked at."""

from __future__ import annotations

from collections import deque
from itertools import pairwise

from whisper_serve.audio.pcm import to_samples
from whisper_serve.audio.vad import Region, SpeechDetector, VadOptions

MIN_PAUSE_S = 0.3


class SpeechMap:
    """Regions of speech from one speech probability a frame; positions are samples of the
    stream, which is looked at from `origin` on."""

    def __init__(self, origin: int, options: VadOptions) -> None:
        self._origin = origin
        self._detector = SpeechDetector(options)
        self._regions: deque[Region] = deque()

    @property
    def position(self) -> int:
        """Up to here the stream has been looked at."""
        return self._origin + self._detector.position

    @property
    def regions(self) -> list[Region]:
        """What is remembered, the speech that goes on included."""
        open_region = self._moved(self._detector.open)
        return [*self._regions, *([open_region] if open_region else [])]

    @property
    def last(self) -> Region | None:
        """The latest speech, ended or not."""
        open_region = self._moved(self._detector.open)
        return open_region or (self._regions[-1] if self._regions else None)

    @property
    def silent_from(self) -> int:
        """Where the latest sound that is or may be speech ended; `position` when it has not."""
        sound = self._moved(self._detector.sound) or self.last
        return sound.end if sound else self._origin

    def push(self, probability: float) -> None:
        """Look at the next frame."""
        for region in self._detector.push([probability]):
            self._regions.append(Region(region.start + self._origin, region.end + self._origin))

    def speech_between(self, start: int, end: int) -> int:
        """Samples of speech that lie between two positions."""
        return sum(max(0, min(end, r.end) - max(start, r.start)) for r in self.regions)

    def pauses_between(self, start: int, end: int) -> list[int]:
        """The middles of pauses that lie between two positions."""
        regions = self.regions
        middles = [
            (before.end + after.start) // 2
            for before, after in pairwise(regions)
            if after.start - before.end >= to_samples(MIN_PAUSE_S)
        ]
        return [middle for middle in middles if start <= middle <= end]

    def forget_before(self, position: int) -> None:
        while self._regions and self._regions[0].end <= position:
            self._regions.popleft()

    def _moved(self, region: Region | None) -> Region | None:
        if region is None:
            return None
        return Region(region.start + self._origin, region.end + self._origin)
