"""The audio frames of a container that is read while it arrives.

What is held back until more comes: an incomplete packet (webm, mp4) or page (ogg); of mp3 about
0.1 s and of flac 1 s, because FFmpeg looks for the next frame to find the end of one; and at
the start what tells the format: the header, 2 to 8 KiB of mp3 and aac, 64 KiB of wav.

Packets that cannot be decoded are skipped, as players do; how much of damaged data is found can
depend on the pieces in which it arrives. Gaps between the times of packets are closed up.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator

import av

from whisper_serve.audio.containers import FORMATS
from whisper_serve.audio.ffmpeg import HEAD_BYTES, audio_track, check_foreign, restrictions
from whisper_serve.audio.inlet import Inlet
from whisper_serve.audio.mp4 import header_is_whole
from whisper_serve.errors import UnreadableAudio

ACCEPTED = tuple(names[0] for names in FORMATS.values())
MARK_BYTES = 12
# What the first bytes tell for sure: (offset, bytes, demuxer).
MARKS = (
    (0, b"\x1aE\xdf\xa3", "matroska"),
    (0, b"OggS", "ogg"),
    (4, b"ftyp", "mov"),
    (8, b"WAVE", "wav"),
    (0, b"fLaC", "flac"),
    (0, b"ID3", "mp3"),
)
# What a recorder's later pieces begin with: clusters or blocks of webm, fragments of mp4.
MIDDLES = ((0, b"\x1f\x43\xb6\x75"), (0, b"\xa3"), (4, b"styp"), (4, b"moof"), (4, b"mdat"))
# Start on as little as possible, and do not look for a format for ever.
IMPATIENCE = {"probesize": "32", "analyzeduration": "1", "formatprobesize": "16384"}
MAX_BROKEN_PACKETS = 100
# A recorder that was stopped at once leaves hardly more than a header.
MAX_SILENT_BYTES = 64 << 10


def arriving_frames(inlet: Inlet) -> Generator[av.AudioFrame, None, None]:
    """Each frame of the best track as soon as `inlet` has its bytes, until it is closed.

    Raises `UnreadableAudio` and `UnsupportedFormat`. A stream that breaks off is no error.
    """
    head = inlet.peek(lambda data: len(data) >= MARK_BYTES)
    if len(head) < MARK_BYTES:
        return
    heard = False
    try:
        with _open(inlet, _demuxer(head)) as container:
            for frame in _decoded(inlet, container):
                heard = True
                yield frame
    except (av.FFmpegError, ValueError, ArithmeticError) as exc:
        if not inlet.ran_out:
            raise UnreadableAudio("the stream is damaged") from exc
    if not heard and inlet.futile_bytes > MAX_SILENT_BYTES:
        raise UnreadableAudio("the stream holds no audio")


def _demuxer(head: bytes) -> str | None:
    """None when FFmpeg has to find out."""
    if any(head.startswith(mark, offset) for offset, mark in MIDDLES):
        raise UnreadableAudio("the stream does not begin with the header of its container")
    return next((name for offset, mark, name in MARKS if head.startswith(mark, offset)), None)


def _open(inlet: Inlet, demuxer: str | None) -> av.container.InputContainer:
    options = {**restrictions(), **IMPATIENCE}
    if demuxer == "mov":
        # FFmpeg goes back and forth in the header, within what it got in one read.
        inlet.peek(header_is_whole)
    if demuxer is not None:
        return av.open(inlet, format=demuxer, options=options, metadata_errors="replace")
    head = inlet.peek(lambda data: len(data) >= HEAD_BYTES)
    try:
        return av.open(inlet, options=options, metadata_errors="replace")
    except av.FFmpegError as exc:
        check_foreign(head, ACCEPTED)
        raise UnreadableAudio("the stream is not audio in a container that is known") from exc


def _decoded(inlet: Inlet, container: av.container.InputContainer) -> Iterator[av.AudioFrame]:
    if inlet.ran_out and not len(container.streams):
        return  # It broke off in its header.
    track = audio_track(container, ACCEPTED)
    n_broken = 0
    for packet in container.demux(track):
        if inlet.closed:
            return
        try:
            frames = packet.decode()
        except av.FFmpegError as exc:
            n_broken += 1
            if n_broken > MAX_BROKEN_PACKETS:
                raise UnreadableAudio("the audio in the stream cannot be decoded") from exc
            continue
        for frame in frames:
            n_broken = 0
            inlet.found()
            yield frame
