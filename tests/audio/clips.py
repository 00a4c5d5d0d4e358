"""Recordings for tests, made in memory with PyAV's own encoders: no `ffmpeg` command is needed."""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

Pcm = npt.NDArray[np.int16]  # shape (n,) or (n, channels)

LAYOUTS = {1: "mono", 2: "stereo", 3: "2.1", 4: "4.0", 6: "5.1", 8: "7.1"}


def tone(duration_s: float, *, rate: int = 16_000, hz: float = 440.0, level: float = 0.25) -> Pcm:
    """A sine, shape (n,); `level` is the share of full scale."""
    times = np.arange(round(duration_s * rate)) / rate
    return np.asarray(32767 * level * np.sin(2 * np.pi * hz * times), np.int16)


def silence(duration_s: float, *, rate: int = 16_000) -> Pcm:
    return np.zeros(round(duration_s * rate), np.int16)


@dataclass(frozen=True, eq=False)
class Recipe:
    """How to encode: FFmpeg's names of the muxer and the encoder, and their options."""

    container: str
    codec: str
    rate: int = 48_000
    options: Mapping[str, str] = field(default_factory=dict)
    bit_rate: int | None = None
    frame_samples: int = 1024

    def encode(self, samples: Pcm) -> bytes:
        return encode([samples], self)

    def tone(self, duration_s: float) -> bytes:
        return self.encode(tone(duration_s, rate=self.rate))


def wav(samples: Pcm, *, rate: int = 16_000, codec: str = "pcm_s16le") -> bytes:
    return Recipe("wav", codec, rate).encode(samples)


def raw_wav(
    data: bytes,
    *,
    rate: int = 16_000,
    channels: int = 1,
    bits: int = 16,
    tag: int = 1,
    size: int | None = None,
) -> bytes:
    """A WAV written by hand; `size` is what its header says of `data`, right or wrong."""
    block = channels * bits // 8
    layout = struct.pack("<HHIIHH", tag, channels, rate, rate * block & 0xFFFFFFFF, block, bits)
    said = struct.pack("<I", len(data) if size is None else size)
    return b"RIFF" + said + b"WAVEfmt " + struct.pack("<I", 16) + layout + b"data" + said + data


def encode(tracks: Sequence[Pcm], recipe: Recipe, *, video_s: float = 0.0) -> bytes:
    """A file with one audio track for each of `tracks`, and `video_s` of a black picture."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "clip")
        # Nothing but a real file can be opened again, which `faststart` needs.
        with av.open(str(path), "w", format=recipe.container, options=dict(recipe.options)) as out:
            streams = [_audio_stream(out, samples, recipe) for samples in tracks]
            picture = _video_stream(out) if video_s else None
            for stream, samples in zip(streams, tracks, strict=True):
                for frame in _frames(samples, recipe):
                    out.mux(stream.encode(frame))
                out.mux(stream.encode(None))
            if picture is not None:
                _write_video(out, picture, video_s)
        return path.read_bytes()


def _audio_stream(
    out: av.container.OutputContainer, samples: Pcm, recipe: Recipe
) -> av.audio.stream.AudioStream:
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    # FFmpeg calls its own Vorbis encoder experimental.
    options = {"strict": "experimental"}
    stream = out.add_stream(
        recipe.codec, rate=recipe.rate, layout=LAYOUTS[channels], options=options
    )
    if recipe.bit_rate is not None:
        stream.bit_rate = recipe.bit_rate
    return stream


def _frames(samples: Pcm, recipe: Recipe) -> Iterator[av.AudioFrame]:
    columns = samples.reshape(len(samples), -1)
    for first in range(0, len(columns), recipe.frame_samples):
        part = np.ascontiguousarray(columns[first : first + recipe.frame_samples])
        layout = LAYOUTS[columns.shape[1]]
        frame = av.AudioFrame.from_ndarray(part.reshape(1, -1), format="s16", layout=layout)
        frame.sample_rate, frame.pts = recipe.rate, first
        frame.time_base = Fraction(1, recipe.rate)
        yield frame


def _video_stream(out: av.container.OutputContainer) -> av.video.stream.VideoStream:
    codec = "libvpx" if out.format.name in {"webm", "matroska"} else "mpeg4"
    stream = out.add_stream(codec, rate=10)
    stream.width = stream.height = 64
    stream.pix_fmt = "yuv420p"
    return stream


def _write_video(
    out: av.container.OutputContainer, stream: av.video.stream.VideoStream, duration_s: float
) -> None:
    for index in range(round(duration_s * 10)):
        frame = black("yuv420p")
        frame.pts, frame.time_base = index, Fraction(1, 10)
        out.mux(stream.encode(frame))
    out.mux(stream.encode(None))


def black(pixel_format: str) -> av.VideoFrame:
    frame = av.VideoFrame(64, 64, pixel_format)
    for plane in frame.planes:
        plane.update(bytes(plane.buffer_size))
    return frame


def image(codec: str, pixel_format: str) -> bytes:
    encoder = av.CodecContext.create(codec, "w")
    encoder.width = encoder.height = 64
    encoder.pix_fmt, encoder.time_base = pixel_format, Fraction(1, 25)
    packets = [*encoder.encode(black(pixel_format)), *encoder.encode(None)]
    return b"".join(bytes(packet) for packet in packets)
