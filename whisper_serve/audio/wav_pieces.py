"""Bare audio out of pieces, some of which begin with the header of a WAV file.

A recorder that writes WAV for a stream gives the header once, with lengths that say nothing,
and then bare audio; or a whole file in each piece. Headers are read and taken away, and so is
what a file has behind its audio.
Source: Microsoft and IBM, "Multimedia Programming Interface and Data Specifications 1.0".
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from whisper_serve.errors import UnreadableAudio, UnsupportedFormat

RIFF, WAVE = b"RIFF", b"WAVE"
RIFF_BYTES, CHUNK_BYTES, FORMAT_BYTES = 12, 8, 16
PCM, EXTENSIBLE = 1, 0xFFFE
# Where an extensible format says what it really is.
SUBFORMAT_AT = 24
# Lengths that are not known when the header is written.
UNKNOWN = (0, 0xFFFFFFFF)
MAX_HEADER_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class WavFormat:
    """16-bit samples, `channels` interleaved."""

    sample_rate: int
    channels: int

    @property
    def frame_bytes(self) -> int:
        return 2 * self.channels


@dataclass(frozen=True, slots=True)
class WavHeader:
    """`length`: bytes of header. `audio_bytes`: how much follows, None when that is unknown."""

    format: WavFormat
    length: int
    audio_bytes: int | None


def read_header(data: bytes) -> WavHeader | None:
    """The header that `data` begins with, None while it is not all there.

    Raises `UnreadableAudio` or `UnsupportedFormat`.
    """
    found: WavFormat | None = None
    at = RIFF_BYTES
    while len(data) >= at + CHUNK_BYTES:
        name, size = struct.unpack_from("<4sI", data, at)
        at += CHUNK_BYTES
        if name == b"data":
            if found is None:
                raise UnreadableAudio("a WAV header tells no format")
            return WavHeader(found, at, None if size in UNKNOWN else size)
        if name == b"fmt ":
            if len(data) < at + size:
                break
            found = _format(data[at : at + size])
        at += size + size % 2  # chunks begin at even places
    if max(len(data), at) > MAX_HEADER_BYTES:
        raise UnreadableAudio("a WAV header does not come to its audio")
    return None


def _format(chunk: bytes) -> WavFormat:
    if len(chunk) < FORMAT_BYTES:
        raise UnreadableAudio("a WAV header is damaged")
    tag, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", chunk)
    if tag == EXTENSIBLE and len(chunk) >= SUBFORMAT_AT + 2:
        (tag,) = struct.unpack_from("<H", chunk, SUBFORMAT_AT)
    if (tag, bits) != (PCM, 16):
        raise UnsupportedFormat(f"WAV with format {tag}, {bits} bits", ("WAV with 16-bit PCM",))
    return WavFormat(rate, channels)


class WavPieces:
    """`push` pieces; `format` is what the latest header says, None before the first."""

    def __init__(self) -> None:
        self.format: WavFormat | None = None
        self._head = b""  # of a header that is not all there
        self._left: int | None = None  # bytes of audio until the file that is open ends
        self._given = 0

    def push(self, piece: bytes) -> bytes:
        """The audio in a piece: whole frames wherever a header begins anew.

        Raises `UnreadableAudio` or `UnsupportedFormat`; nothing can be pushed then.
        """
        data, self._head = self._head + piece, b""
        if not _may_be_header(data):
            return self._audio(data)
        header = read_header(data) if len(data) >= RIFF_BYTES else None
        if header is None:
            self._head = data
            return b""
        filled = self._fill_frame()
        self.format, self._left = header.format, header.audio_bytes
        return filled + self._audio(data[header.length :])

    def _audio(self, data: bytes) -> bytes:
        if self._left is not None:
            data = data[: self._left]
            self._left = self._left - len(data) or None
        self._given += len(data)
        return data

    def _fill_frame(self) -> bytes:
        """Silence for the rest of a frame that broke off; all behind it would be shifted."""
        missing = -self._given % self.format.frame_bytes if self.format else self._given % 2
        self._given = 0
        return bytes(missing)


def _may_be_header(data: bytes) -> bool:
    return RIFF.startswith(data[:4]) and WAVE.startswith(data[8:12])
