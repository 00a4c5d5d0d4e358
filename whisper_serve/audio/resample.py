"""Audio of any rate, number of channels and sample format to 16 kHz mono, as it comes.

FFmpeg's resampler does the work. It gives the same samples however the input is cut, and they
are where they belong: its delay is taken out again. With `SHARP` taps it keeps what lies below
7.5 kHz and lets nothing through above 8.2 kHz; 4 ms of audio, 8 ms at 8 kHz, are held back until
what follows is known. `USUAL` is FFmpeg's own choice, with which files have been measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from fractions import Fraction

import av
import numpy as np

from whisper_serve.audio.pcm import SAMPLE_RATE, Samples
from whisper_serve.errors import UnreadableAudio

LOWEST_RATE, HIGHEST_RATE = 4_000, 384_000
SHARP, USUAL = 128, 32


def joined(parts: Sequence[Samples]) -> Samples:
    return np.concatenate(parts) if parts else np.zeros(0, np.int16)


class Resampler:
    """Any frames to 16 kHz mono int16; `finish` gives what the filter still holds.

    Of m samples at a rate r come `ceil(m * 16,000 / r)`. Rate, channels and sample format may
    change on the way, as they do in joined Ogg files; times of frames do not matter.
    """

    def __init__(self, filter_taps: int = SHARP) -> None:
        self._filter_taps = filter_taps
        self._graph: av.filter.Graph | None = None
        self._form: tuple[int, str, str] | None = None
        self._taken = self._given = 0  # samples of this form, before and after

    def push(self, frame: av.AudioFrame) -> Samples:
        """Raises `UnreadableAudio` for a rate that nobody records with."""
        form = (frame.sample_rate, frame.format.name, frame.layout.name)
        before = []
        if form != self._form:
            before.append(self.finish())
            self._graph, self._form = _mixing_graph(frame, self._filter_taps), form
        self._taken += frame.samples
        return joined([*before, *self._pass(frame)])

    def finish(self) -> Samples:
        if self._form is None:
            return joined([])
        due = math.ceil(self._taken * SAMPLE_RATE / self._form[0])
        left = due - self._given
        rest = joined(list(self._pass(None)))[: max(0, left)]
        self._graph, self._form, self._taken, self._given = None, None, 0, 0
        return rest

    def _pass(self, frame: av.AudioFrame | None) -> Iterator[Samples]:
        assert self._graph is not None
        self._graph.push(frame)
        with suppress(av.BlockingIOError, av.EOFError):
            while True:
                mixed = self._graph.pull()
                self._given += mixed.samples
                yield np.frombuffer(mixed.planes[0], np.int16)[: mixed.samples]


def _mixing_graph(frame: av.AudioFrame, filter_taps: int) -> av.filter.Graph:
    """FFmpeg's own down-mix drops channels that it takes for a subwoofer, refuses layouts it
    does not know, and overflows in int16; the mean of floats does none of this. Without the
    padding, which `finish` cuts off again, the resampler keeps the end of a short recording."""
    if not LOWEST_RATE <= frame.sample_rate <= HIGHEST_RATE:
        raise UnreadableAudio(f"a sample rate of {frame.sample_rate} Hz is not supported")
    channels = frame.layout.nb_channels
    mean = "+".join(f"{1 / channels:.9f}*c{channel}" for channel in range(channels))
    graph = av.filter.Graph()
    graph.threads = 1  # By default every graph starts one for each CPU.
    source = graph.add_abuffer(
        sample_rate=frame.sample_rate,
        format=frame.format.name,
        layout=frame.layout.name,
        time_base=Fraction(1, frame.sample_rate),
    )
    graph.link_nodes(
        source,
        graph.add("aformat", "sample_fmts=fltp"),
        graph.add("pan", f"mono|c0={mean}"),
        graph.add("apad", f"pad_len={frame.sample_rate // 20}"),
        graph.add("aresample", f"{SAMPLE_RATE}:filter_size={filter_taps}"),
        graph.add("aformat", "sample_fmts=s16"),
        graph.add("abuffersink"),
    ).configure()
    return graph
