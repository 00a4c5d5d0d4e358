"""The audio of a stream that may still be needed."""

from __future__ import annotations

import numpy as np

from whisper_serve.audio.pcm import Samples


class SampleBuffer:
    """Samples `start` up to `end` of a stream; positions count from the stream's first sample.

    Appending is cheap: room doubles when it runs out, and what was dropped makes room again.
    """

    def __init__(self, start: int = 0) -> None:
        self._data: Samples = np.zeros(0, np.int16)
        self._offset = 0  # of `start` in the data
        self._start = self._end = start

    @property
    def start(self) -> int:
        return self._start

    @property
    def end(self) -> int:
        return self._end

    def append(self, samples: Samples) -> None:
        used = self._end - self._start
        if self._offset + used + len(samples) > len(self._data):
            self._make_room(used + len(samples))
        first = self._offset + used
        self._data[first : first + len(samples)] = samples
        self._end += len(samples)

    def slice(self, start: int, end: int) -> Samples:
        """A copy of samples that are there: `self.start <= start <= end <= self.end`."""
        if not self._start <= start <= end <= self._end:
            raise IndexError(f"{start} to {end} is not within {self._start} to {self._end}")
        first = self._offset + start - self._start
        return self._data[first : first + end - start].copy()

    def drop_before(self, position: int) -> None:
        """Forget what lies before `position`; what is not there is not missed."""
        position = min(max(position, self._start), self._end)
        self._offset += position - self._start
        self._start = position

    def _make_room(self, needed: int) -> None:
        room = max(needed * 2, 1 << 14)
        fresh = np.zeros(room, np.int16)
        used = self._end - self._start
        fresh[:used] = self._data[self._offset : self._offset + used]
        self._data, self._offset = fresh, 0
