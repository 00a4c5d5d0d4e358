"""The audio of WAV files that come in pieces, without what is no audio."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.audio.clips import raw_wav, tone, wav
from whisper_serve.audio.wav_pieces import MAX_HEADER_BYTES, WavFormat, WavPieces
from whisper_serve.errors import UnreadableAudio, UnsupportedFormat

AUDIO = tone(0.1).tobytes()
HEADER_BYTES = 44


def header(*, size: int = 0, rate: int = 16_000, channels: int = 1) -> bytes:
    return raw_wav(b"", size=size, rate=rate, channels=channels)


def pushed(*pieces: bytes) -> bytes:
    wav_pieces = WavPieces()
    return b"".join(wav_pieces.push(piece) for piece in pieces)


def extended(channels: int = 1, subformat: int = 1, bits: int = 16) -> bytes:
    """The header that Windows writes for the same."""
    block = channels * bits // 8
    layout = struct.pack("<HHIIHH", 0xFFFE, channels, 16_000, 16_000 * block, block, bits)
    rest = (
        struct.pack("<HHIH", 22, bits, 0, subformat) + b"\0\0\0\0\x10\0\x80\0\0\xaa\0\x38\x9b\x71"
    )
    chunk = layout + rest
    return b"RIFF\xff\xff\xff\xffWAVEfmt " + struct.pack("<I", len(chunk)) + chunk + b"data\0\0\0\0"


def test_bare_audio_stays_as_it_is() -> None:
    pieces = WavPieces()
    assert pieces.push(AUDIO) == AUDIO
    assert pieces.format is None


def test_a_header_is_read_and_taken_away() -> None:
    pieces = WavPieces()
    assert pieces.push(header(rate=44_100, channels=2) + AUDIO) == AUDIO
    assert pieces.format == WavFormat(44_100, 2)


def test_audio_goes_on_without_a_header() -> None:
    assert pushed(header() + AUDIO, AUDIO, AUDIO) == 3 * AUDIO


def test_a_header_may_come_alone() -> None:
    assert pushed(header(), AUDIO) == AUDIO


def test_each_piece_may_be_a_file() -> None:
    assert pushed(*[wav(tone(0.1))] * 3) == 3 * AUDIO


def test_what_a_file_has_behind_its_audio_is_no_audio() -> None:
    tail = b"LIST\x04\0\0\0INFO"
    assert pushed(header(size=len(AUDIO)) + AUDIO + tail, AUDIO) == 2 * AUDIO


def test_a_file_may_be_cut_anywhere() -> None:
    file = header(size=3 * len(AUDIO)) + 3 * AUDIO + b"LIST\x04\0\0\0INFO"
    assert pushed(file[:1_000], file[1_000:5_000], file[5_000:]) == 3 * AUDIO


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF])
def test_a_length_that_says_nothing_is_not_believed(size: int) -> None:
    assert pushed(header(size=size) + AUDIO, AUDIO) == 2 * AUDIO


def test_a_length_that_ends_with_its_piece_ends_nothing_else() -> None:
    """As a recorder writes it that knows the length of its first piece only."""
    assert pushed(header(size=len(AUDIO)) + AUDIO, AUDIO, AUDIO) == 3 * AUDIO


def test_a_frame_that_broke_off_is_filled_before_a_header() -> None:
    stereo = header(channels=2)
    pieces = WavPieces()
    assert pieces.push(stereo + AUDIO[:5]) == AUDIO[:5]
    assert pieces.push(stereo + AUDIO) == b"\0\0\0" + AUDIO


def test_half_a_sample_of_bare_audio_is_filled_before_a_header() -> None:
    assert pushed(AUDIO[:3], header() + AUDIO) == AUDIO[:3] + b"\0" + AUDIO


def test_chunks_before_the_audio_are_passed_over() -> None:
    plain = header()
    odd = b"LIST" + struct.pack("<I", 3) + b"abc\0"
    assert pushed(plain[:12] + odd + plain[12:36] + odd + plain[36:] + AUDIO) == AUDIO


def test_a_header_may_be_an_extended_one() -> None:
    pieces = WavPieces()
    assert pieces.push(extended(channels=2) + AUDIO) == AUDIO
    assert pieces.format == WavFormat(16_000, 2)


@given(sizes=st.lists(st.integers(1, 70), min_size=1, max_size=80))
def test_a_header_may_be_cut_anywhere(sizes: Sequence[int]) -> None:
    file = extended() + AUDIO
    pieces, at = [], 0
    for size in sizes:
        pieces.append(file[at : at + size])
        at += size
    assert pushed(*pieces, file[at:]) == AUDIO


@given(st.binary(min_size=1, max_size=200).filter(lambda data: data[:1] != b"F"))
def test_audio_that_looks_like_a_header_for_a_while_is_not_lost(data: bytes) -> None:
    piece = b"RIF" + data
    assert pushed(piece[:2], piece[2:]) == piece


@given(st.binary(max_size=300))
def test_any_header_is_read_or_refused(data: bytes) -> None:
    try:
        audio = pushed(b"RIFF\0\0\0\0WAVE" + data)
    except (UnreadableAudio, UnsupportedFormat):
        return
    assert len(audio) <= len(data)


@pytest.mark.parametrize(
    "wrong",
    [
        raw_wav(AUDIO, bits=24),
        raw_wav(AUDIO, bits=8),
        raw_wav(AUDIO, bits=32, tag=3),
        raw_wav(AUDIO, bits=8, tag=7),
        extended(subformat=3, bits=32),
    ],
)
def test_other_samples_are_refused(wrong: bytes) -> None:
    with pytest.raises(UnsupportedFormat, match="16-bit PCM"):
        pushed(wrong)


def test_audio_without_a_format_is_refused() -> None:
    with pytest.raises(UnreadableAudio, match="no format"):
        pushed(b"RIFF\0\0\0\0WAVEdata\0\0\0\0" + AUDIO)


def test_a_header_that_never_ends_is_refused() -> None:
    endless = b"RIFF\0\0\0\0WAVE" + b"junk\0\0\0\0" * (MAX_HEADER_BYTES // 8)
    with pytest.raises(UnreadableAudio, match="come to its audio"):
        pushed(endless)


def test_a_chunk_that_is_larger_than_a_header_may_be_is_refused_at_once() -> None:
    with pytest.raises(UnreadableAudio, match="come to its audio"):
        pushed(b"RIFF\0\0\0\0WAVEjunk\xff\xff\xff\x7f")
