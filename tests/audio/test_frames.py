from __future__ import annotations

import re
import resource
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.audio.clips import Recipe, encode, image, raw_wav, tone, wav
from tests.audio.streams import (
    FMP4,
    LATE_INDEX_MP4,
    RECORDED,
    STREAMED,
    WEBM,
    pieces,
    spoilt,
    stream,
)
from whisper_serve.audio.frames import arriving_frames
from whisper_serve.audio.inlet import MAX_FUTILE_BYTES, Inlet
from whisper_serve.errors import UnreadableAudio, UnsupportedFormat, WhisperServeError


@contextmanager
def inlet_of(data: bytes) -> Iterator[Inlet]:
    """An inlet with `data` in it and its end behind it."""
    inlet = Inlet()

    def write() -> None:
        inlet.put(data)
        inlet.end()

    writer = Thread(target=write, daemon=True)
    writer.start()
    try:
        yield inlet
    finally:
        inlet.leave()
        writer.join()


def heard_s(data: bytes) -> float:
    """Seconds of audio in all frames."""
    with inlet_of(data) as inlet, closing(arriving_frames(inlet)) as frames:
        return float(sum(frame.samples / frame.sample_rate for frame in frames))


def refused_as(error: type[WhisperServeError], data: bytes) -> str:
    with pytest.raises(error) as refused:
        heard_s(data)
    return str(refused.value)


@pytest.mark.parametrize("name", STREAMED)
def test_every_frame_of_a_stream_comes_out(name: str) -> None:
    assert heard_s(stream(STREAMED[name])) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("recipe", [WEBM, FMP4])
def test_a_film_gives_its_sound(recipe: Recipe) -> None:
    film = encode([tone(1.0, rate=recipe.rate)], recipe, video_s=1.0)
    assert heard_s(film) == pytest.approx(1.0, abs=0.05)


def test_a_closed_inlet_ends_it() -> None:
    with inlet_of(stream(WEBM, 2.0)) as inlet, closing(arriving_frames(inlet)) as frames:
        assert next(frames).samples > 0
        inlet.close()
        assert list(frames) == []


# Where it breaks off


@pytest.mark.parametrize("name", RECORDED)
@pytest.mark.parametrize("share", [0.4, 0.7, 0.95])
def test_a_recording_that_breaks_off_gives_what_there_is(name: str, share: float) -> None:
    clip = stream(RECORDED[name], 2.0)
    assert heard_s(clip[: int(share * len(clip))]) == pytest.approx(2 * share, abs=0.5)


@pytest.mark.parametrize("name", STREAMED)
@pytest.mark.parametrize("size", [0, 1, 11, 12, 40])
def test_a_stream_may_break_off_in_its_header(name: str, size: int) -> None:
    if name in {"mp3", "aac", "aiff"} and size >= 12:
        return  # These have no mark, so that a few bytes are nothing that is known.
    assert heard_s(stream(STREAMED[name])[:size]) == 0


def test_a_recorder_that_was_stopped_at_once_is_no_error() -> None:
    for name in ("webm", "fmp4"):
        header = b"".join(pieces(RECORDED[name], 0.5)[: 1 if name == "webm" else 2])
        assert heard_s(header) == 0


# What it is not


@pytest.mark.parametrize(
    "data",
    [
        b"This is a text, whatever its name says.\n" * 50,
        b'{"type": "end"}',
        bytes(100_000),
        np.random.default_rng(3).bytes(50_000),
    ],
    ids=["text", "json", "zeros", "noise"],
)
def test_what_is_not_audio_is_unreadable(data: bytes) -> None:
    message = refused_as(UnreadableAudio, data)
    assert message == "the stream is not audio in a container that is known"


def test_what_is_not_audio_is_told_before_the_end() -> None:
    inlet = Inlet()
    writer = Thread(target=inlet.put, args=(bytes(20_000),), daemon=True)
    writer.start()
    with pytest.raises(UnreadableAudio):
        next(arriving_frames(inlet))
    inlet.leave()
    writer.join()


def test_a_piece_from_the_middle_of_a_recording_is_told() -> None:
    cluster = pieces(WEBM, 0.5)[2]
    fragment = stream(FMP4)[stream(FMP4).index(b"moof") - 4 :]
    for piece in (cluster, fragment):
        assert "does not begin with the header" in refused_as(UnreadableAudio, piece)


def test_an_mp4_with_its_index_at_the_end_is_told() -> None:
    assert "send fragments" in refused_as(UnreadableAudio, stream(LATE_INDEX_MP4))


@pytest.mark.parametrize("data", [image("png", "rgb24"), encode([], WEBM, video_s=1.0)])
def test_without_a_track_there_is_nothing_to_hear(data: bytes) -> None:
    assert "no audio track" in refused_as(UnreadableAudio, data)


@pytest.mark.parametrize(
    ("recipe", "name"),
    [
        (Recipe("avi", "pcm_s16le"), ".avi"),
        (Recipe("caf", "pcm_s16be"), ".caf"),
        (Recipe("asf", "wmav2", 44_100, bit_rate=64_000), ".wma"),
        (Recipe("matroska", "wavpack"), ".webm with wavpack"),
    ],
)
def test_formats_that_nobody_decodes_are_named(recipe: Recipe, name: str) -> None:
    assert f"unsupported format: {name};" in refused_as(UnsupportedFormat, recipe.tone(0.5))


@pytest.mark.parametrize("kind", ["file", "network"])
def test_playlists_are_refused_and_open_nothing(kind: str, tmp_path: Path) -> None:
    target = tmp_path / "secret.wav"
    target.write_bytes(wav(tone(2.0)))
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        address = f"http://127.0.0.1:{server.getsockname()[1]}/secret.wav"
        url = str(target) if kind == "file" else address
        playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{url}\n#EXT-X-ENDLIST\n"
        refused_as(UnreadableAudio, playlist.encode())
        with pytest.raises(BlockingIOError):
            server.accept()


# Damage


def test_a_damaged_packet_is_skipped_as_players_do() -> None:
    for name in RECORDED:
        clip = bytearray(stream(RECORDED[name], 2.0))
        clip[len(clip) // 2 : len(clip) // 2 + 20] = b"\x55" * 20
        assert heard_s(bytes(clip)) == pytest.approx(2.0, abs=0.3)


def test_a_stream_in_which_nothing_can_be_decoded_is_refused() -> None:
    clip = stream(FMP4, 4.0)
    start = clip.index(b"moof") - 4
    assert "cannot be decoded" in refused_as(UnreadableAudio, clip[:start] + spoilt(clip[start:]))


def test_a_mark_with_nothing_behind_it_is_no_audio() -> None:
    for mark in (b"OggS", b"\x1aE\xdf\xa3", b"ID3\x04\0\0\0\0\0\0", b"fLaC"):
        refused_as(UnreadableAudio, mark + np.random.default_rng(0).bytes(200_000))


def test_a_stream_may_not_hold_nothing_for_ever() -> None:
    """A void of 2 GiB that the header promises is skipped, not collected."""
    header = pieces(WEBM, 0.5)[0]
    void = b"\xec\x01" + (2 << 30).to_bytes(7, "big")
    message = refused_as(UnreadableAudio, header + void + bytes(MAX_FUTILE_BYTES))
    assert message == "16 MiB of the stream hold no audio"


@settings(max_examples=100)
@given(
    name=st.sampled_from(list(STREAMED)),
    changes=st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=8)),
        min_size=1,
        max_size=10,
    ),
)
def test_any_damage_gives_frames_or_one_of_our_errors(
    name: str, changes: list[tuple[float, bytes]]
) -> None:
    clip = bytearray(stream(STREAMED[name]))
    for where, replacement in changes:
        at = int(where * len(clip))
        clip[at : at + len(replacement)] = replacement
    message = ""
    try:
        length_s = heard_s(bytes(clip))
    except (UnreadableAudio, UnsupportedFormat) as exc:
        message = str(exc)
    else:
        assert 0 <= length_s < 60
    assert not re.search("none|errno|avcodec|/", message, re.IGNORECASE)


# Bounds


@pytest.mark.skipif(sys.platform != "linux", reason="counts the process's memory in KiB")
def test_an_index_of_samples_that_do_not_exist_takes_no_memory() -> None:
    clip = bytearray(stream(STREAMED["mp4"]))
    count = 60_000_000  # FFmpeg's index would be 1.4 GB.
    struct.pack_into(">II", clip, clip.index(b"stsz") + 8, 1, count)
    struct.pack_into(">I", clip, clip.index(b"stsc") + 16, count)
    struct.pack_into(">I", clip, clip.index(b"stts") + 12, count)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert heard_s(bytes(clip)) == 0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


def test_thousands_of_channels_are_no_audio() -> None:
    clip = raw_wav(bytes(200_000), channels=2_000)
    assert refused_as(UnreadableAudio, clip) == "the stream holds no audio"
