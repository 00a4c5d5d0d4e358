"""Uploaded files to 16 kHz mono int16 samples, with FFmpeg's libraries through PyAV.

A file is judged by its content, never by a name.

Nobody should get half a transcript as a success, so what was read is compared with what the
file promises:

| format     | promise                        | read                                         |
| ---------- | ------------------------------ | -------------------------------------------- |
| wav        | size of the data chunk         | decoded seconds                              |
| mp3        | frames in the Xing/VBRI header | decoded seconds                              |
| flac, aiff | length in the header           | decoded seconds                              |
| ogg        | from first to last packet      | decoded seconds                              |
| mp4        | length of the track            | end of the track less undecodable packets    |
| webm       | length of the file             | end of any track less undecodable packets    |
| aac        | nothing: raw frames            |                                              |

In mp4 and webm the clock of the packets counts, because live recordings have gaps. Packets that
cannot be decoded are skipped, as players do. A recording is refused when more than
`TOLERANCE_S` plus `TOLERANCE_SHARE` of it is missing, or when an mp4 or ogg file ends inside a
packet or page. A streamed wav or aiff (sizes unknown), an mp3 without such a header, raw aac, a
live webm and flac in ogg promise nothing: a cut cannot be seen there, what they hold is all
there is.
"""

from __future__ import annotations

import io
import math
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

import av
import numpy as np

from whisper_serve.audio.containers import FORMATS, canonical_format
from whisper_serve.audio.ffmpeg import (
    HEAD_BYTES,
    audio_track,
    check_foreign,
    demuxer_of,
    restrictions,
)
from whisper_serve.audio.pcm import Samples, seconds, to_samples
from whisper_serve.audio.resample import USUAL, Resampler
from whisper_serve.errors import AudioTooLong, EmptyAudio, UnreadableAudio, UnsupportedFormat

TOLERANCE_S = 0.5
TOLERANCE_SHARE = 0.001

# Writers that cannot seek back leave 0 or about 2 or 4 GiB where the size belongs.
STREAMED_BYTES = 0x7F00_0000
MAX_RIFF_CHUNKS = 1_000
CHUNK = struct.Struct("<4sI")
EBML = b"\x1aE\xdf\xa3"
MAX_OGG_PAGE_BYTES = 65_307
ID3 = struct.Struct(">6s4B")
# How many frames follow, as the Xing/Info or VBRI header says that stands in the first one.
MP3_FRAMES = re.compile(
    rb"(?:Xing|Info)\0\0\0[\1\3\5\7\t\v\r\x0f](.{4})|VBRI.{10}(.{4})", re.DOTALL
)
MP3_HEADER_BYTES = 4_096
LOWEST_MPEG1_RATE = 32_000


def decode(data: BinaryIO | bytes, *, accepted: Sequence[str], max_duration_s: float) -> Samples:
    """The recording in `data` as int16 at 16 kHz, shape (n,), the mean of all its channels.

    `data`: a whole file, or a seekable file object that is read from its start.
    `accepted`: names that `canonical_format` knows.
    The best audio track is taken; of m samples at a rate r come `ceil(m * 16,000 / r)`. Gaps
    between packets are closed up. Blocks, mostly without holding the interpreter lock, and
    needs memory for `max_duration_s`, however much a small file unpacks to.

    Raises `EmptyAudio` (no bytes or no samples), `UnsupportedFormat`, `UnreadableAudio` (not
    audio, no audio track, damaged or cut off) and `AudioTooLong`.
    """
    upload = _Upload(io.BytesIO(data) if isinstance(data, bytes) else data)
    if not upload.size:
        raise EmptyAudio("the file is empty")
    wanted = {canonical_format(name) for name in accepted}
    try:
        with _open(upload, accepted) as container:
            name = FORMATS[demuxer_of(container)][0]
            if name not in wanted:
                raise UnsupportedFormat(name, accepted)
            track = audio_track(container, accepted)
            samples = _decode(_Recording(upload, container, track), max_duration_s)
    except (av.FFmpegError, ValueError, ArithmeticError) as exc:
        raise UnreadableAudio("the file is not audio, or it is damaged or cut off") from exc
    if not len(samples):
        raise EmptyAudio("the file holds no audio")
    return samples


def _decode(recording: _Recording, max_duration_s: float) -> Samples:
    promised_s = recording.promised_s()
    # What promises more than it holds is refused anyway, so there is no need to read it all.
    if promised_s is not None and promised_s - _tolerance(promised_s) > max_duration_s:
        raise AudioTooLong(max_duration_s)
    reading = _read(recording, max_duration_s)
    _check_complete(recording, reading, promised_s)
    return np.frombuffer(reading.pcm, np.int16)


class _Upload:
    """A file as FFmpeg may see it: without a name, and with reads as long as they can be."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hides_size = False
        self.size = self.seek(0, io.SEEK_END)
        # FFmpeg would make up the length of a live webm from its size and bit rate.
        self._hides_size = self.peek(0, len(EBML)) == EBML
        self.seek(0)

    def read(self, size: int) -> bytes:
        parts = []
        while size > 0 and (part := self._file.read(size)):
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if self._hides_size and whence == io.SEEK_END:
            return -1
        self._file.seek(offset, whence)
        return self.tell()

    def tell(self) -> int:
        return self._file.tell()

    def peek(self, offset: int, size: int) -> bytes:
        """Bytes anywhere in the file; where FFmpeg reads stays as it was."""
        position = self.tell()
        self.seek(offset)
        found = self.read(size)
        self.seek(position)
        return found


def _open(upload: _Upload, accepted: Sequence[str]) -> av.container.InputContainer:
    try:
        return av.open(upload, options=restrictions(), metadata_errors="replace")
    except av.ArgumentError:  # A demuxer that is not on the list.
        check_foreign(upload.peek(0, HEAD_BYTES), accepted)
        raise


@dataclass(frozen=True, slots=True)
class _Recording:
    """An opened file and the track of it that is decoded."""

    upload: _Upload
    container: av.container.InputContainer
    track: av.audio.stream.AudioStream

    @property
    def demuxer(self) -> str:
        return demuxer_of(self.container)

    def promised_s(self) -> float | None:
        """How long the file says it is; None when it does not say, or FFmpeg only guesses."""
        if self.demuxer == "wav":
            return self._wav_promise()
        if self.demuxer == "mp3":
            return self._mp3_promise()
        if self.demuxer == "matroska":
            return self.container.duration / av.time_base if self.container.duration else None
        if self.demuxer in {"mov", "flac", "aiff"} and self.track.duration:
            return self._header_promise()
        return None

    def _header_promise(self) -> float | None:
        promised_s = float(self.track.duration * self.track.time_base)
        size = promised_s * (self.track.bit_rate or 0) / 8
        return None if self.demuxer == "aiff" and size >= STREAMED_BYTES else promised_s

    def _wav_promise(self) -> float | None:
        size = _riff_data_bytes(self.upload)
        return 8 * size / self.track.bit_rate if size and self.track.bit_rate else None

    def _mp3_promise(self) -> float | None:
        frames = _mp3_frames(self.upload)
        frame_samples = 1152 if self.track.sample_rate >= LOWEST_MPEG1_RATE else 576
        return frames * frame_samples / self.track.sample_rate if frames else None


@dataclass(slots=True)
class _Reading:
    """What came out of a file.

    `start_s` and `end_s`: the earliest start and the latest end of a packet. `lost_s`: length
    of the packets that could not be decoded. `cut`: an mp4 ends inside a packet.
    """

    pcm: bytearray = field(default_factory=bytearray)
    start_s: float = math.inf
    end_s: float = 0.0
    lost_s: float = 0.0
    cut: bool = False

    @property
    def decoded_s(self) -> float:
        return seconds(len(self.pcm) // 2)


def _read(recording: _Recording, max_duration_s: float) -> _Reading:
    """Decode the whole track; raises at the first frame that is over the limit."""
    reading, resampler = _Reading(), Resampler(USUAL)
    demuxer = recording.demuxer
    for packet in recording.container.demux():
        ours = packet.stream_index == recording.track.index
        if packet.pts is not None and (ours or demuxer == "matroska"):
            _note_times(reading, packet)
        reading.cut = reading.cut or (demuxer == "mov" and packet.is_corrupt)
        for frame in _frames(packet, reading) if ours else ():
            _append(reading, resampler.push(frame), max_duration_s)
    _append(reading, resampler.finish(), max_duration_s)
    return reading


def _note_times(reading: _Reading, packet: av.Packet) -> None:
    end = packet.pts + (packet.duration or 0)
    reading.start_s = min(reading.start_s, float(packet.pts * packet.time_base))
    reading.end_s = max(reading.end_s, float(end * packet.time_base))


def _frames(packet: av.Packet, reading: _Reading) -> list[av.AudioFrame]:
    try:
        return list(packet.decode())
    except av.FFmpegError:
        reading.lost_s += float((packet.duration or 0) * packet.time_base)
        return []


def _append(reading: _Reading, samples: Samples, max_duration_s: float) -> None:
    reading.pcm += samples.tobytes()
    if len(reading.pcm) // 2 > to_samples(max_duration_s):
        raise AudioTooLong(max_duration_s)


def _tolerance(length_s: float) -> float:
    return TOLERANCE_S + TOLERANCE_SHARE * length_s


def _check_complete(recording: _Recording, reading: _Reading, promised_s: float | None) -> None:
    ogg = recording.demuxer == "ogg"
    # FFmpeg drops damaged pages of Ogg without a word; FLAC's packets have no reliable clock.
    if ogg and recording.track.codec_context.name != "flac":
        promised_s = reading.end_s - reading.start_s
    by_clock = recording.demuxer in {"mov", "matroska"}
    read_s = max(0.0, reading.end_s - reading.lost_s) if by_clock else reading.decoded_s
    whole_s = max(promised_s or 0.0, read_s + reading.lost_s)
    if whole_s - read_s > _tolerance(whole_s):
        raise UnreadableAudio(
            "the recording is incomplete: "
            f"{whole_s:.2f} s are promised, {read_s:.2f} s are readable"
        )
    if reading.cut or (ogg and _ends_inside_page(recording.upload)):
        raise UnreadableAudio(f"the recording is incomplete: it breaks off after {read_s:.2f} s")


def _riff_data_bytes(upload: _Upload) -> int | None:
    """What the data chunk should hold, if that is more than there is.

    FFmpeg quietly takes the smaller of both, so the header has to be read again.
    """
    offset = 12
    for _ in range(MAX_RIFF_CHUNKS):
        header = upload.peek(offset, CHUNK.size)
        if len(header) < CHUNK.size:
            break
        name, size = CHUNK.unpack(header)
        offset += CHUNK.size
        if name == b"data":
            return size if upload.size - offset < size < STREAMED_BYTES else None
        offset += size + size % 2
    return None


def _mp3_frames(upload: _Upload) -> int | None:
    """FFmpeg's own duration may be a guess from size and bit rate, so the count is read here."""
    offset = 0
    tag = upload.peek(0, ID3.size)
    if tag.startswith(b"ID3") and len(tag) == ID3.size:
        _, a, b, c, d = ID3.unpack(tag)
        offset = ID3.size + (a << 21 | b << 14 | c << 7 | d)
    counted = MP3_FRAMES.search(upload.peek(offset, MP3_HEADER_BYTES))
    return int.from_bytes(counted[1] or counted[2], "big") if counted else None


def _ends_inside_page(upload: _Upload) -> bool:
    """Source: RFC 3533, section 6."""
    tail = upload.peek(max(0, upload.size - MAX_OGG_PAGE_BYTES), MAX_OGG_PAGE_BYTES)
    at = tail.rfind(b"OggS")
    if at < 0:
        return False
    if len(tail) < at + 27:
        return True
    sizes = tail[at + 27 : at + 27 + tail[at + 26]]
    return len(sizes) < tail[at + 26] or at + 27 + len(sizes) + sum(sizes) > len(tail)
