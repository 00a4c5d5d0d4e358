"""Files that were made to do harm, each small for what it costs who believes it."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping

import numpy as np

from tests.audio.clips import Recipe, raw_wav, tone
from tests.audio.streams import FLAC, MP3

FOURTH_LAST = 0xFFFF_FFFC
STREAMINFO_END = 42  # mark, head of the block and 34 bytes
INDEX_ENTRIES = 2_500_000
ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdef"


def tagged_flac(n_tags: int) -> bytes:
    """Every tag is compared with all before it."""
    tags = b"".join(struct.pack("<I", 10) + b"K%07d=v" % number for number in range(n_tags))
    return flac_with(4, struct.pack("<I", 1) + b"x" + struct.pack("<I", n_tags) + tags)


def pictured_flac(megabytes: int) -> bytes:
    about = struct.pack(">II", 3, 9) + b"image/png" + struct.pack(">5I", 0, 9, 9, 24, 0)
    size = megabytes * 1_000_000
    return flac_with(6, about + struct.pack(">I", size) + bytes(size))


def flac_with(kind: int, block: bytes) -> bytes:
    flac = FLAC.tone(0.5)
    first = flac[:4] + bytes([flac[4] & 0x7F]) + flac[5:STREAMINFO_END]
    return first + bytes([kind]) + len(block).to_bytes(3, "big") + block + flac[STREAMINFO_END:]


def tagged_mp3(n_tags: int) -> bytes:
    frames = b"".join(id3_frame(b"TXXX", b"\3K%07d\0v" % number) for number in range(n_tags))
    return id3(frames) + MP3.tone(0.5)


def pictured_mp3(megabytes: int) -> bytes:
    return id3(id3_frame(b"APIC", b"\0image/png\0\3\0" + bytes(megabytes * 1_000_000))) + MP3.tone(
        0.5
    )


def id3_frame(name: bytes, body: bytes) -> bytes:
    return name + synchsafe(len(body)) + b"\0\0" + body


def id3(frames: bytes) -> bytes:
    return b"ID3\4\0\0" + synchsafe(len(frames)) + frames


def synchsafe(size: int) -> bytes:
    """Source: ID3 tag version 2.4.0, section 6.2."""
    return bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))


def tagged_wav(n_tags: int) -> bytes:
    names = (
        bytes(ALPHABET[number >> shift & 31] for shift in (15, 10, 5, 0))
        for number in range(n_tags)
    )
    tags = b"INFO" + b"".join(name + struct.pack("<I", 2) + b"v\0" for name in names)
    wav = raw_wav(tone(0.5).tobytes())
    return wav[:36] + b"LIST" + struct.pack("<I", len(tags)) + tags + wav[36:]


def box(name: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I4s", 8 + len(body), name) + body


def full_box(name: bytes, *parts: bytes) -> bytes:
    return box(name, bytes(4), *parts)


def indexed_mp4(n_tracks: int, n_samples: int, edits: int = 0) -> bytes:
    """An index that says in a few bytes that each of the tracks has so many packets."""
    tracks = [_track(number, n_samples, edits) for number in range(1, n_tracks + 1)]
    movie = full_box(b"mvhd", struct.pack(">IIII", 0, 0, 1_000, 1_000), bytes(80))
    return box(b"ftyp", b"isom", bytes(4), b"isom") + box(b"moov", movie, *tracks)


def _track(number: int, n_samples: int, edits: int) -> bytes:
    entry = struct.pack(">6xH8xHHHHI", 1, 1, 16, 0, 0, 16_000 << 16)
    table = box(
        b"stbl",
        full_box(b"stsd", struct.pack(">I", 1), box(b"mp4a", entry)),
        full_box(b"stts", struct.pack(">III", 1, n_samples, 1_024)),
        full_box(b"stsc", struct.pack(">IIII", 1, 1, n_samples, 1)),
        full_box(b"stsz", struct.pack(">II", 1, n_samples)),
        full_box(b"stco", struct.pack(">II", 1, 1_000)),
    )
    listed = struct.pack(">IiI", 1, 0, 1 << 16) * edits
    return box(
        b"trak",
        full_box(b"tkhd", struct.pack(">IIIII", 0, 0, number, 0, 16_000), bytes(60)),
        box(b"edts", full_box(b"elst", struct.pack(">I", edits), listed)),
        box(
            b"mdia",
            full_box(b"mdhd", struct.pack(">IIIII", 0, 0, 16_000, 16_000, 0)),
            full_box(b"hdlr", bytes(4), b"soun", bytes(13)),
            box(b"minf", full_box(b"smhd", bytes(4)), table),
        ),
    )


def nested_mp4(depth: int) -> bytes:
    nest = b""
    for _ in range(depth):
        nest = box(b"udta", nest)
    return box(b"ftyp", b"isom", bytes(4), b"isom") + box(b"moov", nest)


def element(name: bytes, size: int, body: bytes = b"") -> bytes:
    """Of EBML, with a size of eight bytes, right or wrong. Source: RFC 8794."""
    return name + (size | 1 << 56).to_bytes(8, "big") + body


def webm(*parts: bytes) -> bytes:
    kind = element(b"\x42\x82", 4, b"webm")
    return element(b"\x1aE\xdf\xa3", len(kind), kind) + b"".join(parts)


def crowded_webm(n_tracks: int) -> bytes:
    tracks = b"".join(
        element(b"\xae", 24, b"\xd7\x82" + struct.pack(">H", 1 + number % 60_000) + b"\x83\x81\2")
        for number in range(n_tracks)
    )
    inner = element(b"\x16\x54\xae\x6b", len(tracks), tracks)
    return webm(element(b"\x18\x53\x80\x67", len(inner), inner))


def hours_of_silence(hours: float) -> bytes:
    samples = np.zeros(round(hours * 3_600 * 8_000), np.int16)
    return Recipe("flac", "flac", 8_000, frame_samples=1 << 16).encode(samples)


def big_picture(width: int) -> bytes:
    """A film of one picture that would need gigabytes, if anybody looked at it."""
    video = b"\xb0\x84" + struct.pack(">I", width) + b"\xba\x84" + struct.pack(">I", width)
    entry = b"\xd7\x81\1\x83\x81\1\x86\x85V_VP8" + element(b"\xe0", len(video), video)
    track = element(b"\xae", len(entry), entry)
    tracks = element(b"\x16\x54\xae\x6b", len(track), track)
    return webm(element(b"\x18\x53\x80\x67", len(tracks), tracks))


SAMPLES = tone(0.5).tobytes()
# What nobody may spend much on, by what it is.
HOSTILE: Mapping[str, Callable[[], bytes]] = {
    "tags of a flac": lambda: tagged_flac(100_000),
    "tags of an mp3": lambda: tagged_mp3(100_000),
    "tags of a wav": lambda: tagged_wav(100_000),
    "picture of a flac": lambda: pictured_flac(16),
    "picture of an mp3": lambda: pictured_mp3(70),
    "index of 100 tracks": lambda: indexed_mp4(100, INDEX_ENTRIES),
    "index of a billion": lambda: indexed_mp4(1, 10**9),
    "list of a million edits": lambda: indexed_mp4(1, 100_000, 1_000_000),
    "2,000 tracks of mp4": lambda: indexed_mp4(2_000, 1),
    "5,000 nested boxes": lambda: nested_mp4(5_000),
    "5,000 tracks of webm": lambda: crowded_webm(5_000),
    "endless webm": lambda: webm(
        element(b"\x18\x53\x80\x67", (1 << 56) - 2, b"\xec" + b"\xff" * 8)
    ),
    "picture of 60,000 by 60,000": lambda: big_picture(60_000),
    "hours of silence": lambda: hours_of_silence(3.0),
    "1 Hz": lambda: raw_wav(SAMPLES, rate=1),
    "4 GHz": lambda: raw_wav(SAMPLES, rate=FOURTH_LAST),
    "65,535 channels": lambda: raw_wav(SAMPLES, channels=0xFFFF, bits=8),
    "a header of 4 GiB": lambda: b"RIFF\xff\xff\xff\xffWAVEfmt \xfc\xff\xff\xff" + SAMPLES,
}
