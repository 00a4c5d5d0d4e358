"""From speech probabilities to regions of speech.

The rule is Silero's own: speech begins with a frame above `threshold` and ends when the
probability stayed below `threshold - hysteresis` for `min_silence_s`.
Source: `get_speech_timestamps` of snakers4/silero-vad.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from whisper_serve.audio.pcm import SAMPLE_RATE, to_samples

FRAME_SAMPLES = 512
# Below this a frame is silence however low the threshold is; no probability is ever negative.
MIN_QUIET = 0.01


@dataclass(frozen=True, slots=True)
class Region:
    """Samples `start` up to, not including, `end`."""

    start: int
    end: int

    @property
    def duration_s(self) -> float:
        return (self.end - self.start) / SAMPLE_RATE


@dataclass(frozen=True, slots=True)
class VadOptions:
    """`threshold`: probability from which a frame is speech. `hysteresis`: how far below it
    the probability must fall before speech can end. Shorter speech than `min_speech_s` is
    taken for noise, shorter silence than `min_silence_s` for a part of speech."""

    threshold: float = 0.5
    hysteresis: float = 0.15
    min_speech_s: float = 0.1
    min_silence_s: float = 0.1


class SpeechDetector:
    """Finds regions in a row of probabilities that may come in any pieces."""

    def __init__(self, options: VadOptions) -> None:
        self._options = options
        self._position = 0
        self._start: int | None = None
        self._silent_since: int | None = None

    def push(self, probabilities: Iterable[float]) -> list[Region]:
        """The regions that ended within these frames."""
        ended = (self._frame(probability) for probability in probabilities)
        return [region for region in ended if region is not None]

    @property
    def position(self) -> int:
        """Samples that have been judged."""
        return self._position

    @property
    def sound(self) -> Region | None:
        """What began and has not ended yet, and may be speech."""
        if self._start is None:
            return None
        return Region(self._start, self._silent_since or self._position)

    @property
    def open(self) -> Region | None:
        """The speech that has not ended yet, once it is long enough to be speech."""
        sound = self.sound
        return sound if sound and sound.duration_s >= self._options.min_speech_s else None

    def finish(self) -> list[Region]:
        """The region that the end of the audio cut off, if one was open."""
        if self._start is None:
            return []
        return self._close(self._silent_since or self._position)

    def _frame(self, probability: float) -> Region | None:
        at, self._position = self._position, self._position + FRAME_SAMPLES
        if probability >= self._options.threshold:
            self._start = at if self._start is None else self._start
            self._silent_since = None
        elif self._start is not None and probability < self._quiet_below:
            self._silent_since = at if self._silent_since is None else self._silent_since
            if self._position - self._silent_since >= to_samples(self._options.min_silence_s):
                ended = self._close(self._silent_since)
                return ended[0] if ended else None
        return None

    @property
    def _quiet_below(self) -> float:
        return max(self._options.threshold - self._options.hysteresis, MIN_QUIET)

    def _close(self, end: int) -> list[Region]:
        assert self._start is not None
        region = Region(self._start, end)
        self._start = self._silent_since = None
        return [region] if region.duration_s >= self._options.min_speech_s else []


def merge(regions: Sequence[Region], *, max_gap_s: float, pad_s: float, total: int) -> list[Region]:
    """Widen every region, in order, by `pad_s` on both sides, within the `total` samples, and join
    those that then lie less than `max_gap_s` apart."""
    pad, max_gap = to_samples(pad_s), to_samples(max_gap_s)
    merged: list[Region] = []
    for region in regions:
        start, end = max(0, region.start - pad), min(total, region.end + pad)
        if merged and start - merged[-1].end < max_gap:
            merged[-1] = Region(merged[-1].start, end)
        else:
            merged.append(Region(start, end))
    return merged
