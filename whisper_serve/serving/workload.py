"""What an engine replica has done since it began, from which its load is told."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Workload:
    """`clock` gives seconds that never go back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._held = 0
        self._held_since = self._busy_s = self._answered_s = 0.0

    @contextmanager
    def window(self, audio_s: float) -> Iterator[None]:
        """Around a window of `audio_s` seconds, until it is answered; one that fails is work too,
        and no audio."""
        if not self._held:
            self._held_since = self._clock()
        self._held += 1
        try:
            yield
            self._answered_s += audio_s
        finally:
            self._held -= 1
            if not self._held:
                self._busy_s += self._clock() - self._held_since

    @property
    def busy_s(self) -> float:
        """Seconds in which there was any window."""
        now_s = self._clock() - self._held_since if self._held else 0.0
        return self._busy_s + now_s

    @property
    def answered_s(self) -> float:
        """Seconds of audio."""
        return self._answered_s
