"""A stream's audio to 16 kHz mono, piece by piece as it arrives.

However the same bytes are cut into pieces, the same samples come out of all of them together;
only what is found of a damaged container may differ.
Time is counted in samples: when a client sends nothing for a while, or a paused recorder
leaves a gap between the times in its container, this takes no time of the stream.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import av
import numpy as np

from whisper_serve.audio.encodings import pcm_encoding, tamed
from whisper_serve.audio.isolation import IsolatedContainerDecoder
from whisper_serve.audio.pcm import SAMPLE_RATE, Samples
from whisper_serve.audio.resample import Resampler, joined

LAYOUTS = {1: "mono", 2: "stereo"}


class LiveDecoder(Protocol):
    """`push` what comes, then `finish`; `close` in any case, at any time."""

    @property
    def bad_samples(self) -> int:
        """How many values were NaN or beyond ±1 until now."""
        ...

    def push(self, data: bytes) -> Samples:
        """All that can be decoded by now and was not given yet: int16 at 16 kHz, shape (n,).

        For a container this computes for as long as it takes, and raises `UnreadableAudio`,
        `UnsupportedFormat` or `ClientTooFast`; the stream is lost then.
        """
        ...

    def finish(self) -> Samples:
        """The rest of the audio; what the last bytes began and did not end is left out.
        Raises what `push` raises."""
        ...

    def close(self) -> None:
        """Free what the decoder holds, which is of no use from then on. May be called again,
        and while another thread is in `push`."""
        ...


def live_decoder(encoding: str, sample_rate: int, channels: int) -> LiveDecoder:
    """`encoding`: "container", which tells rate and channels itself, or one of
    `encodings.pcm_encoding`, with 1 or 2 `channels` interleaved."""
    if encoding == "container":
        return IsolatedContainerDecoder()
    if (encoding, sample_rate, channels) == ("pcm_s16le", SAMPLE_RATE, 1):
        return ReadyPcm()
    return PcmDecoder(encoding, sample_rate, channels)


class _WholeFrames:
    """Keeps the bytes of a frame until all of them are there."""

    def __init__(self, frame_bytes: int) -> None:
        self._frame_bytes = frame_bytes
        self._rest = b""

    def push(self, data: bytes) -> bytes:
        pending = self._rest + data
        whole = len(pending) // self._frame_bytes * self._frame_bytes
        self._rest = pending[whole:]
        return pending[:whole]


class ReadyPcm:
    """int16 at 16 kHz, mono, needs nothing but whole samples."""

    bad_samples = 0

    def __init__(self) -> None:
        self._frames = _WholeFrames(2)

    def push(self, data: bytes) -> Samples:
        return np.frombuffer(self._frames.push(data), "<i2").astype(np.int16)

    def finish(self) -> Samples:
        return joined([])

    def close(self) -> None:
        """There is nothing to free."""


class PcmDecoder:
    """Any bare encoding, rate and number of channels."""

    def __init__(self, encoding: str, sample_rate: int, channels: int) -> None:
        self._encoding = pcm_encoding(encoding)
        self._rate, self._channels = sample_rate, channels
        self._frame_bytes = channels * self._encoding.value_bytes
        self._frames = _WholeFrames(self._frame_bytes)
        self._resampler = Resampler()
        self.bad_samples = 0

    def push(self, data: bytes) -> Samples:
        return joined([self._decode(second) for second in self._seconds(self._frames.push(data))])

    def finish(self) -> Samples:
        return self._resampler.finish()

    def close(self) -> None:
        self._resampler = Resampler()

    def _seconds(self, data: bytes) -> Iterator[bytes]:
        """As floats a big piece takes many times its memory, so it is decoded bit by bit."""
        size = self._rate * self._frame_bytes
        return (data[first : first + size] for first in range(0, len(data), size))

    def _decode(self, data: bytes) -> Samples:
        values, n_bad = tamed(self._encoding.read(data))
        self.bad_samples += n_bad
        frame = av.AudioFrame.from_ndarray(
            values.reshape(1, -1), format="flt", layout=LAYOUTS[self._channels]
        )
        frame.sample_rate = self._rate
        return self._resampler.push(frame)
