"""What FFmpeg may do with data that anybody can send.

It may use only the demuxers and decoders listed in `containers` and no protocol at all, so that
a playlist or a script cannot make it open anything, and it may not allocate or decode without
bounds.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache

import av

from whisper_serve.audio.containers import DECODERS, FOREIGN, FORMATS, IMAGES
from whisper_serve.errors import UnreadableAudio, UnsupportedFormat

# The most one decoded frame may hold, samples times channels: 2.7 s of 192 kHz in 8 channels.
MAX_FRAME_VALUES = 1 << 22
# The largest single block FFmpeg may allocate.
MAX_BLOCK_BYTES = 64 << 20
# So much from the start of a file tells what it is.
HEAD_BYTES = 256


def restrictions() -> dict[str, str]:
    """Options for `av.open`."""
    _limit_allocations()
    return {
        "format_whitelist": ",".join(FORMATS),
        "codec_whitelist": ",".join(DECODERS),
        "protocol_whitelist": "",
    }


@lru_cache(maxsize=1)
def _limit_allocations() -> None:
    """Without this a few bytes in an mp4 ("1,000 million samples follow") take all memory.

    PyAV does not offer the call, and where its libraries hide it there is no limit.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(av.frame.__file__).av_max_alloc(ctypes.c_size_t(MAX_BLOCK_BYTES))


def check_foreign(head: bytes, accepted: Sequence[str]) -> None:
    """`head`: the first `HEAD_BYTES` of what FFmpeg may not open.

    Raises `UnsupportedFormat` with its name or `UnreadableAudio` for an image; returns when it
    is nothing that is known.
    """
    if head.startswith(IMAGES) or head[8:12] == b"WEBP":
        raise UnreadableAudio("this is an image: there is no audio track")
    for offset, mark, name in FOREIGN:
        if head.startswith(mark, offset):
            raise UnsupportedFormat(name, accepted)


def demuxer_of(container: av.container.InputContainer) -> str:
    """A key of `containers.FORMATS`."""
    return str(container.format.name).split(",", maxsplit=1)[0]


def audio_track(
    container: av.container.InputContainer, accepted: Sequence[str]
) -> av.audio.stream.AudioStream:
    """The best one. Raises `UnreadableAudio` without any, `UnsupportedFormat` for its codec."""
    if not container.streams.audio:
        raise UnreadableAudio("there is no audio track")
    track = container.streams.best("audio") or container.streams.audio[0]
    codec = track.codec_context.codec.name if track.codec_context else "an unknown codec"
    if codec not in DECODERS:
        name = FORMATS[demuxer_of(container)][0]
        raise UnsupportedFormat(f"{name} with {codec}", accepted)
    track.codec_context.options = {"max_samples": str(MAX_FRAME_VALUES)}
    return track
