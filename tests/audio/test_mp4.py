from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.audio.clips import Recipe
from tests.audio.streams import FMP4, LATE_INDEX_MP4, MP4, stream
from whisper_serve.audio.mp4 import MAX_HEADER_BYTES, header_is_whole
from whisper_serve.errors import UnreadableAudio


def box(name: bytes, content: bytes = b"", *, size: int | None = None) -> bytes:
    return struct.pack(">I4s", 8 + len(content) if size is None else size, name) + content


HEADER = box(b"ftyp", b"isom") + box(b"free", bytes(20)) + box(b"moov", bytes(100))


@pytest.mark.parametrize("recipe", [FMP4, MP4])
def test_the_header_of_a_stream_ends_with_its_index(recipe: Recipe) -> None:
    clip = stream(recipe)
    at = clip.index(b"moov") - 4
    (size,) = struct.unpack_from(">I", clip, at)
    assert not header_is_whole(clip[: at + size - 1])
    assert header_is_whole(clip[: at + size])
    assert header_is_whole(clip)


@given(st.integers(0, len(HEADER) - 1))
def test_no_part_of_a_header_is_whole(size: int) -> None:
    assert not header_is_whole(HEADER[:size])
    assert header_is_whole(HEADER + box(b"moof") + bytes(size))


def test_a_box_may_have_a_size_of_64_bits() -> None:
    large = struct.pack(">I4sQ", 1, b"free", 116) + bytes(100)
    assert header_is_whole(large + HEADER)
    assert not header_is_whole(large + HEADER[:-1])


@pytest.mark.parametrize("name", [b"mdat", b"moof"])
def test_samples_before_the_index_are_refused_at_once(name: bytes) -> None:
    with pytest.raises(UnreadableAudio, match=r"index .* does not come before its audio"):
        header_is_whole(box(b"ftyp", b"isom") + box(name, bytes(8), size=100_000))


def test_a_file_with_its_index_at_the_end_is_refused() -> None:
    with pytest.raises(UnreadableAudio, match="index"):
        header_is_whole(stream(LATE_INDEX_MP4)[:1_000])


@pytest.mark.parametrize("size", [0, 2, 7, MAX_HEADER_BYTES, 2**32 - 1])
def test_boxes_of_impossible_sizes_are_refused(size: int) -> None:
    with pytest.raises(UnreadableAudio, match="damaged or too big"):
        header_is_whole(box(b"ftyp", b"isom") + box(b"free", bytes(8), size=size))
