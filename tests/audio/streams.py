"""Streams for tests: containers as recorders send them, in the pieces in which they write them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from functools import cache

import av
import numpy as np

from tests.audio.clips import Pcm, Recipe

FRAGMENTS = {"movflags": "frag_keyframe+empty_moov+default_base_moof", "frag_duration": "200000"}
WEBM = Recipe("webm", "libopus", options={"live": "1", "cluster_time_limit": "100"})
SLOW_WEBM = Recipe("webm", "libopus", options={"live": "1", "cluster_time_limit": "250"})
OGG = Recipe("ogg", "libopus", options={"page_duration": "100000"})
VORBIS = Recipe("ogg", "vorbis", 44_100, options={"page_duration": "100000"})
FMP4 = Recipe("mp4", "aac", options=FRAGMENTS)
MP4 = Recipe("mp4", "aac", options={"movflags": "faststart"})
LATE_INDEX_MP4 = Recipe("mp4", "aac")
WAV = Recipe("wav", "pcm_s16le", 44_100)
MP3 = Recipe("mp3", "libmp3lame")
AAC = Recipe("adts", "aac")
FLAC = Recipe("flac", "flac")
OGG_FLAC = Recipe("ogg", "flac")
MATROSKA = Recipe("matroska", "pcm_s16le", options={"live": "1"})
AIFF = Recipe("aiff", "pcm_s16be")

# What recorders of browsers send, and what else can be decoded while it arrives.
RECORDED: Mapping[str, Recipe] = {
    "webm": WEBM,
    "slow webm": SLOW_WEBM,
    "ogg": OGG,
    "ogg with vorbis": VORBIS,
    "fmp4": FMP4,
}
STREAMED: Mapping[str, Recipe] = {
    **RECORDED,
    "mp4": MP4,
    "wav": WAV,
    "mp3": MP3,
    "aac": AAC,
    "flac": FLAC,
    "ogg with flac": OGG_FLAC,
    "matroska": MATROSKA,
    "aiff": AIFF,
}
CLUSTER = b"\x1f\x43\xb6\x75"


def sweep(duration_s: float, *, rate: int = 16_000) -> Pcm:
    """From 200 Hz up to 3 kHz within a second, and again: no two moments are alike."""
    times = np.arange(round(duration_s * rate)) / rate % 1.0
    return np.asarray(8_000 * np.sin(2 * np.pi * (200 + 1_400 * times) * times), np.int16)


@cache
def stream(recipe: Recipe, duration_s: float = 0.5) -> bytes:
    samples = sweep(duration_s, rate=recipe.rate)
    # FFmpeg's own Vorbis encoder knows two channels only.
    return recipe.encode(np.stack([samples] * 2, axis=1) if recipe is VORBIS else samples)


class Socket:
    """A file that cannot seek, and keeps what is written in its pieces."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def write(self, data: bytes) -> int:
        self.pieces.append(bytes(data))
        return len(data)


@cache
def pieces(recipe: Recipe, duration_s: float) -> list[bytes]:
    """The stream as a recorder sends it: one cluster, page or fragment after the other."""
    socket, samples = Socket(), sweep(duration_s, rate=recipe.rate)
    with av.open(socket, "w", format=recipe.container, options=dict(recipe.options)) as out:
        track = out.add_stream(recipe.codec, rate=recipe.rate, layout="mono")
        for first in range(0, len(samples), 960):
            part = samples[first : first + 960].reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(part, format="s16", layout="mono")
            frame.sample_rate, frame.pts = recipe.rate, first
            frame.time_base = Fraction(1, recipe.rate)
            out.mux(track.encode(frame))
        out.mux(track.encode(None))
    return socket.pieces


def of_unknown_size(webm: bytes) -> bytes:
    """The same with clusters that do not tell their sizes, which is how Chrome writes them."""
    parts = webm.split(CLUSTER)
    sized = [part[_size_bytes(part[0]) :] for part in parts[1:]]
    return parts[0] + b"".join(CLUSTER + b"\x01" + b"\xff" * 7 + part for part in sized)


def _size_bytes(first: int) -> int:
    """Length of a number that begins with this byte. Source: RFC 8794, section 4."""
    return 9 - first.bit_length()


def spoilt(fragments: bytes) -> bytes:
    """Fragments of mp4 with noise in the place of their audio."""
    noise = np.random.default_rng(0).bytes(len(fragments))
    audio = re.compile(rb"(mdat)(.*?)(?=....moof|....mfra)", re.DOTALL)
    return audio.sub(lambda found: found[1] + noise[: len(found[2])], fragments)
