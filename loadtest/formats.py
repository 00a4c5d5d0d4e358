"""Recordings as files of other kinds, encoded by PyAV: no `ffmpeg` command is needed."""

from __future__ import annotations

import io
from dataclasses import dataclass

import av

from whisper_serve.audio.pcm import SAMPLE_RATE, Samples


@dataclass(frozen=True, slots=True)
class Kind:
    """FFmpeg's names of the muxer and the encoder, and the file's media type."""

    container: str
    codec: str
    media_type: str


KINDS = {
    "wav": Kind("wav", "pcm_s16le", "audio/wav"),
    "flac": Kind("flac", "flac", "audio/flac"),
    "mp3": Kind("mp3", "libmp3lame", "audio/mpeg"),
    "opus": Kind("ogg", "libopus", "audio/ogg"),
}


def encoded(samples: Samples, kind: Kind) -> bytes:
    """A mono file of `samples`, int16 at 16 kHz, shape (n,)."""
    file = io.BytesIO()
    with av.open(file, "w", format=kind.container) as out:
        track = out.add_stream(kind.codec, rate=SAMPLE_RATE, layout="mono")
        track.codec_context.open()
        fitting = av.AudioResampler(
            format=track.format, layout="mono", rate=SAMPLE_RATE, frame_size=track.frame_size
        )
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        for ready in [*fitting.resample(frame), *fitting.resample(None)]:
            out.mux(track.encode(ready))
        out.mux(track.encode(None))
    return file.getvalue()
