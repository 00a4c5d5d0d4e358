"""The first boxes of an mp4 file. Source: ISO/IEC 14496-12, section 4.2."""

from __future__ import annotations

import struct

from whisper_serve.errors import UnreadableAudio

BOX = struct.Struct(">I4s")
LARGE_BOX = struct.Struct(">8xQ")
MAX_HEADER_BYTES = 4 << 20


def header_is_whole(data: bytes) -> bool:
    """Whether `data`, the start of a file, holds its index (`moov`): what the samples are.

    Raises `UnreadableAudio` when samples come before the index or it is too big: then the file
    cannot be decoded while it arrives.
    """
    start = 0
    size: int
    while len(data) - start >= LARGE_BOX.size:
        size, name = BOX.unpack_from(data, start)
        if size == 1:
            (size,) = LARGE_BOX.unpack_from(data, start)
        if name in {b"mdat", b"moof"}:
            raise UnreadableAudio(
                "the index of this mp4 file does not come before its audio, so it cannot be "
                "decoded as a stream: send fragments (fMP4), or upload the whole file"
            )
        start += size
        if size < BOX.size or start > MAX_HEADER_BYTES:
            raise UnreadableAudio("the header of this mp4 file is damaged or too big")
        if name == b"moov":
            return start <= len(data)
    return False
