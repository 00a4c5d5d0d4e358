from __future__ import annotations

import io
import os
import re
import resource
import socket
import struct
import sys
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import cycle
from math import ceil
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.audio.clips import Pcm, Recipe, encode, image, raw_wav, silence, tone, wav
from whisper_serve.audio.decode import decode
from whisper_serve.audio.pcm import SAMPLE_RATE, Samples
from whisper_serve.errors import (
    AudioTooLong,
    EmptyAudio,
    UnreadableAudio,
    UnsupportedFormat,
    WhisperServeError,
)

ACCEPTED = (".wav", ".mp3", ".m4a", ".mp4", ".ogg", ".flac", ".webm", ".aac", ".aiff")
# Lossy encoders add silence at both ends; this bounds what is left of it after decoding.
PADDING_S = 0.06
CLIPS = Path(
    os.environ.get("WHISPER_SERVE_TEST_AUDIO") or Path(__file__).parents[3] / "shared" / "audio"
)

WAV = Recipe("wav", "pcm_s16le", 16_000)
FLAC = Recipe("flac", "flac")
MP3 = Recipe("mp3", "libmp3lame")
BARE_MP3 = Recipe("mp3", "libmp3lame", options={"write_xing": "0", "id3v2_version": "0"})
AAC = Recipe("adts", "aac")
AIFF = Recipe("aiff", "pcm_s16be")
MP4 = Recipe("mp4", "aac", options={"movflags": "faststart"})
LATE_INDEX_MP4 = Recipe("mp4", "aac")
FRAGMENTED_MP4 = Recipe(
    "mp4", "aac", options={"movflags": "frag_keyframe+empty_moov", "frag_duration": "500000"}
)
WEBM = Recipe("webm", "libopus")
LIVE_WEBM = Recipe("webm", "libopus", options={"live": "1"})
OPUS = Recipe("ogg", "libopus")
OGG_FLAC = Recipe("ogg", "flac")

EVERY_RECIPE = [
    (WAV, ".wav"),
    (Recipe("wav", "pcm_f32le", 44_100), ".wav"),
    (Recipe("wav", "pcm_mulaw", 8_000), ".wav"),
    (Recipe("wav", "adpcm_ms", 22_050), ".wav"),
    (Recipe("wav", "libmp3lame"), ".wav"),
    (FLAC, ".flac"),
    (MP3, ".mp3"),
    (BARE_MP3, ".mp3"),
    (Recipe("mp3", "libmp3lame", 16_000), ".mp3"),
    (AAC, ".aac"),
    (AIFF, ".aiff"),
    (MP4, ".mp4"),
    (LATE_INDEX_MP4, ".mp4"),
    (FRAGMENTED_MP4, ".mp4"),
    (Recipe("ipod", "alac", 44_100), ".m4a"),
    (Recipe("mov", "pcm_s16le", 44_100), ".mov"),
    (WEBM, ".webm"),
    (LIVE_WEBM, ".webm"),
    (Recipe("matroska", "flac"), ".mkv"),
    (OPUS, ".ogg"),
    (OGG_FLAC, ".oga"),
]


def ids(recipes: Sequence[Recipe]) -> list[str]:
    return [
        "-".join([recipe.container, recipe.codec, str(recipe.rate), *recipe.options.values()])
        for recipe in recipes
    ]


def heard(data: BinaryIO | bytes, *, max_duration_s: float = 60.0) -> Samples:
    return decode(data, accepted=ACCEPTED, max_duration_s=max_duration_s)


def level(samples: Samples) -> float:
    """Root mean square, as a share of full scale."""
    return float(np.sqrt(np.mean((samples / 32768.0) ** 2)))


def pitch(samples: Samples) -> float:
    """The loudest frequency, in Hz."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum)) * SAMPLE_RATE / len(samples)


@cache
def short_tone(recipe: Recipe) -> bytes:
    return recipe.tone(0.5)


def refused_as(error: type[WhisperServeError], data: BinaryIO | bytes) -> str:
    with pytest.raises(error) as refused:
        heard(data)
    return str(refused.value)


# What comes out


@pytest.mark.parametrize(
    ("recipe", "name"), EVERY_RECIPE, ids=ids([recipe for recipe, _ in EVERY_RECIPE])
)
def test_every_format_gives_the_tone_that_went_in(recipe: Recipe, name: str) -> None:
    samples = decode(recipe.tone(2.0), accepted=[name], max_duration_s=60.0)
    assert samples.dtype == np.int16
    assert samples.ndim == 1
    assert len(samples) / SAMPLE_RATE == pytest.approx(2.0, abs=PADDING_S)
    assert pitch(samples) == pytest.approx(440.0, abs=1.0)
    assert level(samples[8_000:24_000]) == pytest.approx(0.25 / 2**0.5, rel=0.1)


def test_vorbis_is_decoded() -> None:
    stereo = np.stack([tone(2.0, rate=44_100)] * 2, axis=1)
    samples = heard(Recipe("ogg", "vorbis", 44_100).encode(stereo))
    assert len(samples) / SAMPLE_RATE == pytest.approx(2.0, abs=PADDING_S)
    assert pitch(samples) == pytest.approx(440.0, abs=1.0)


def test_sixteen_kilohertz_mono_comes_out_bit_for_bit() -> None:
    noise = np.random.default_rng(0).integers(-32768, 32767, 20_000).astype(np.int16)
    assert np.array_equal(heard(wav(noise)), noise)
    assert np.array_equal(heard(Recipe("flac", "flac", 16_000).encode(noise)), noise)


@pytest.mark.parametrize(
    "codec", ["pcm_u8", "pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_f64le"]
)
def test_sample_formats_differ_only_in_precision(codec: str) -> None:
    samples = tone(0.5)
    error = heard(wav(samples, codec=codec)).astype(int) - samples
    assert np.abs(error).max() <= (256 if codec == "pcm_u8" else 1)


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000, 192_000])
def test_durations_are_exact_to_the_sample(rate: int) -> None:
    n = 3 * rate + 17
    assert len(heard(wav(silence(n / rate, rate=rate), rate=rate))) == ceil(n * 16_000 / rate)


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 20_000),
    channels=st.sampled_from([1, 2]),
    rate=st.sampled_from([8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 96_000]),
)
def test_any_number_of_samples_gives_its_duration(n: int, channels: int, rate: int) -> None:
    samples = heard(wav(np.ones((n, channels), np.int16), rate=rate))
    assert len(samples) == ceil(n * 16_000 / rate)


@pytest.mark.parametrize("recipe", [WAV, Recipe("wav", "pcm_s16le", 44_100), FLAC])
def test_the_tail_is_not_lost_in_the_resampler(recipe: Recipe) -> None:
    quiet_then_loud = np.concatenate(
        [silence(1.0, rate=recipe.rate), tone(0.01, rate=recipe.rate, hz=1_000.0)]
    )
    assert level(heard(recipe.encode(quiet_then_loud))[-160:]) > 0.1


# Channels


@pytest.mark.parametrize("channels", [2, 3, 4, 6, 8])
def test_every_channel_counts_the_same(channels: int) -> None:
    for loud in range(channels):
        mixed = np.zeros((8_000, channels), np.int16)
        mixed[:, loud] = 24_000
        samples = heard(wav(mixed))
        assert np.median(samples) == pytest.approx(24_000 / channels, abs=1)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 6, 8])
@pytest.mark.parametrize("full", [32_767, -32_768])
def test_full_scale_on_all_channels_does_not_overflow(channels: int, full: int) -> None:
    samples = heard(wav(np.full((8_000, channels), full, np.int16)))
    assert np.abs(samples.astype(int) - full).max() <= 1


def test_a_layout_without_a_name_is_mixed_too() -> None:
    samples = np.zeros((16_000, 11), np.int16)
    samples[:, 10] = 11_000
    assert np.median(heard(raw_wav(samples.tobytes(), channels=11))) == 1_000


def test_floats_beyond_full_scale_are_clipped() -> None:
    loud = np.full(16_000, 1.7, np.float32)
    loud[8_000:] = -3.0
    samples = heard(raw_wav(loud.tobytes(), bits=32, tag=3))
    assert samples.max() == 32_767
    assert samples.min() == -32_768


# Tracks


@pytest.mark.parametrize("recipe", [MP4, WEBM])
def test_a_video_gives_its_sound(recipe: Recipe) -> None:
    film = encode([tone(2.0, rate=recipe.rate)], recipe, video_s=2.0)
    samples = heard(film)
    assert len(samples) / SAMPLE_RATE == pytest.approx(2.0, abs=PADDING_S)
    assert pitch(samples) == pytest.approx(440.0, abs=1.0)


@pytest.mark.parametrize("recipe", [MP4, WEBM])
def test_a_video_may_go_on_after_its_sound(recipe: Recipe) -> None:
    film = encode([tone(2.0, rate=recipe.rate)], recipe, video_s=6.0)
    assert len(heard(film)) / SAMPLE_RATE == pytest.approx(2.0, abs=PADDING_S)


@pytest.mark.parametrize("recipe", [MP4, WEBM])
def test_of_two_tracks_one_is_taken(recipe: Recipe) -> None:
    tracks = [tone(2.0, rate=recipe.rate, hz=hz) for hz in (440.0, 880.0)]
    samples = heard(encode(tracks, recipe))
    assert len(samples) / SAMPLE_RATE == pytest.approx(2.0, abs=PADDING_S)
    assert pitch(samples) == pytest.approx(440.0, abs=1.0)


@pytest.mark.parametrize("recipe", [MP4, WEBM])
def test_a_video_without_sound_is_told_apart(recipe: Recipe) -> None:
    assert "no audio track" in refused_as(UnreadableAudio, encode([], recipe, video_s=1.0))


@pytest.mark.parametrize(
    ("codec", "pixels"), [("png", "rgb24"), ("mjpeg", "yuvj420p"), ("bmp", "bgr24")]
)
def test_an_image_has_no_audio_track(codec: str, pixels: str) -> None:
    assert "no audio track" in refused_as(UnreadableAudio, image(codec, pixels))


def test_joined_ogg_files_may_differ_in_rate_and_channels() -> None:
    stereo = np.stack([tone(1.0)] * 2, axis=1)
    joined = OGG_FLAC.tone(2.0) + Recipe("ogg", "flac", 16_000).encode(stereo)
    assert len(heard(joined)) / SAMPLE_RATE == pytest.approx(3.0, abs=0.01)


# What is accepted


def test_a_format_that_is_not_accepted_is_named() -> None:
    with pytest.raises(UnsupportedFormat) as refused:
        decode(FLAC.tone(0.5), accepted=["WAV", ".mp3"], max_duration_s=60.0)
    assert refused.value.found == ".flac"
    assert refused.value.accepted == ("WAV", ".mp3")


@pytest.mark.parametrize(
    ("recipe", "name"),
    [
        (Recipe("avi", "pcm_s16le"), ".avi"),
        (Recipe("caf", "pcm_s16be"), ".caf"),
        (Recipe("au", "pcm_s16be"), ".au"),
        (Recipe("w64", "pcm_s16le"), ".w64"),
        (Recipe("asf", "wmav2", 44_100, bit_rate=64_000), ".wma"),
        (Recipe("mpegts", "aac"), ".ts"),
        (Recipe("flv", "aac", 44_100), ".flv"),
        (Recipe("ac3", "ac3"), ".ac3"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_formats_that_nobody_accepts_are_named(recipe: Recipe, name: str) -> None:
    assert name in refused_as(UnsupportedFormat, recipe.tone(0.5))


def test_a_codec_that_is_not_on_the_list_is_named() -> None:
    message = refused_as(UnsupportedFormat, Recipe("matroska", "wavpack").tone(0.5))
    assert ".webm with wavpack" in message


def test_the_content_decides_and_not_the_name() -> None:
    class Misnamed(io.BytesIO):
        name = "speech.mp3"

    assert np.array_equal(heard(Misnamed(wav(tone(0.5)))), tone(0.5))


# Nothing to hear


@pytest.mark.parametrize("data", [b"", raw_wav(b"")], ids=["no bytes", "no samples"])
def test_without_samples_a_file_is_empty(data: bytes) -> None:
    refused_as(EmptyAudio, data)


@pytest.mark.parametrize(
    "data",
    [
        b"x",
        b"This is a text, whatever its name says.\n" * 50,
        b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n1 0 obj\n<< /Type /Catalog >>\nendobj\n" * 20,
        b'{"key": "value"}',
        b"<html><body>404 Not Found</body></html>",
        b"1\n00:00:01,000 --> 00:00:02,000\nHello.\n\n" * 5,
        bytes(100_000),
        b"RIFF\x24\x00\x00\x00WAVEfmt ",
    ],
    ids=["byte", "text", "pdf", "json", "html", "subtitles", "zeros", "half a header"],
)
def test_what_is_not_audio_is_unreadable(data: bytes) -> None:
    message = refused_as(UnreadableAudio, data)
    assert message == "the file is not audio, or it is damaged or cut off"


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), size=st.integers(1, 200_000))
def test_random_bytes_are_never_taken_for_audio(seed: int, size: int) -> None:
    with pytest.raises((UnreadableAudio, UnsupportedFormat)):
        heard(np.random.default_rng(seed).bytes(size))


# Nothing else is opened


@pytest.mark.parametrize(
    "playlist",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{url}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile '{url}'\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 9 RTP/AVP 0\n",
    ],
    ids=["hls", "concat", "sdp"],
)
@pytest.mark.parametrize("kind", ["file", "network"])
def test_playlists_are_refused_and_open_nothing(playlist: str, kind: str, tmp_path: Path) -> None:
    target = tmp_path / "secret.wav"
    target.write_bytes(wav(tone(2.0)))
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        port = server.getsockname()[1]
        url = str(target) if kind == "file" else f"http://127.0.0.1:{port}/secret.wav"
        refused_as(UnreadableAudio, playlist.format(url=url).encode())
        with pytest.raises(BlockingIOError):
            server.accept()


# Limits


def test_a_recording_as_long_as_the_limit_passes() -> None:
    assert len(heard(wav(tone(2.0)), max_duration_s=2.0)) == 32_000


@pytest.mark.parametrize("recipe", [WAV, FLAC, MP3, BARE_MP3, AAC, AIFF, MP4, WEBM, OPUS])
def test_a_longer_recording_is_too_long(recipe: Recipe) -> None:
    with pytest.raises(AudioTooLong) as refused:
        heard(recipe.tone(3.0), max_duration_s=2.0)
    assert refused.value.limit_s == 2.0


class Counting(io.BytesIO):
    taken = 0

    def read(self, size: int | None = -1, /) -> bytes:
        part = super().read(size)
        self.taken += len(part)
        return part


def noise(duration_s: float, rate: int) -> Pcm:
    samples = np.random.default_rng(0).integers(-9_000, 9_000, round(duration_s * rate))
    return np.asarray(samples, np.int16)


@pytest.mark.parametrize("recipe", [LIVE_WEBM, AAC])
def test_too_long_is_noticed_before_the_end(recipe: Recipe) -> None:
    clip = recipe.encode(noise(30.0, recipe.rate))
    upload = Counting(clip)
    with pytest.raises(AudioTooLong):
        heard(upload, max_duration_s=2.0)
    assert upload.taken < len(clip) / 3


@pytest.mark.parametrize("recipe", [AIFF, FLAC])
def test_a_promise_that_is_too_long_is_enough(recipe: Recipe) -> None:
    clip = recipe.encode(noise(30.0, recipe.rate))
    upload = Counting(clip)
    with pytest.raises(AudioTooLong):
        heard(upload, max_duration_s=25.0)
    assert upload.taken < len(clip) / 3


def test_a_small_file_that_unpacks_to_hours_needs_memory_for_the_limit_only() -> None:
    bomb = Recipe("ogg", "flac", 8_000).encode(silence(1_200.0, rate=8_000))
    assert len(bomb) < 300_000
    tracemalloc.start()
    try:
        with pytest.raises(AudioTooLong):
            heard(bomb, max_duration_s=10.0)
        assert tracemalloc.get_traced_memory()[1] < 4 * 10 * SAMPLE_RATE * 2
    finally:
        tracemalloc.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="counts the process's memory in KiB")
def test_an_index_of_samples_that_do_not_exist_takes_no_memory() -> None:
    clip = bytearray(MP4.tone(1.0))
    count = 60_000_000  # FFmpeg's index would be 1.4 GB.
    struct.pack_into(">II", clip, clip.index(b"stsz") + 8, 1, count)
    struct.pack_into(">I", clip, clip.index(b"stsc") + 16, count)
    struct.pack_into(">I", clip, clip.index(b"stts") + 12, count)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused_as(UnreadableAudio, bytes(clip))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


@pytest.mark.parametrize("rate", [1, 3_999, 384_001, 2**31 - 1])
def test_absurd_sample_rates_are_refused(rate: int) -> None:
    refused_as(UnreadableAudio, raw_wav(bytes(2_000), rate=rate))


def test_a_frame_of_millions_of_samples_is_refused() -> None:
    count = 5_000_000
    recipe = Recipe("matroska", "pcm_s16le", options={"live": "1"}, frame_samples=count)
    refused_as(UnreadableAudio, recipe.encode(np.zeros(count, np.int16)))


# Damage


@pytest.mark.parametrize(
    "recipe",
    [
        WAV,
        Recipe("wav", "pcm_f32le"),
        FLAC,
        MP3,
        AIFF,
        MP4,
        Recipe("mov", "pcm_s16le", options={"movflags": "faststart"}),
        WEBM,
        Recipe("matroska", "flac"),
    ],
)
@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
def test_a_cut_file_is_refused_with_what_it_promised(recipe: Recipe, share: float) -> None:
    clip = recipe.tone(6.0)
    message = refused_as(UnreadableAudio, clip[: int(len(clip) * share)])
    numbers = [float(word) for word in message.split() if word.replace(".", "").isdigit()]
    assert numbers[0] == pytest.approx(6.0, abs=PADDING_S)
    assert numbers[1] == pytest.approx(6.0 * share, abs=1.0)


@pytest.mark.parametrize("recipe", [LATE_INDEX_MP4, FRAGMENTED_MP4, OPUS, OGG_FLAC])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
def test_a_cut_file_that_promises_nothing_is_refused_when_the_cut_shows(
    recipe: Recipe, share: float
) -> None:
    clip = recipe.tone(6.0)
    refused_as(UnreadableAudio, clip[: int(len(clip) * share)])


@pytest.mark.parametrize("recipe", [BARE_MP3, AAC, LIVE_WEBM])
def test_streams_that_promise_nothing_are_taken_as_far_as_they_go(recipe: Recipe) -> None:
    clip = recipe.tone(6.0)
    samples = heard(clip[: len(clip) // 2])
    assert len(samples) / SAMPLE_RATE == pytest.approx(3.0, abs=0.3)


@pytest.mark.parametrize("size", [0, 0x7FFFF000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
def test_a_streamed_wav_has_no_size(size: int) -> None:
    samples = tone(2.0)
    clip = raw_wav(samples.tobytes(), size=size)
    assert np.array_equal(heard(clip), samples)


def test_a_streamed_aiff_has_no_size() -> None:
    clip = bytearray(AIFF.tone(2.0))
    struct.pack_into(">I", clip, clip.index(b"COMM") + 10, 0x3F800000)
    struct.pack_into(">I", clip, clip.index(b"SSND") + 4, 0x7F000008)
    assert len(heard(bytes(clip))) == 32_000


def test_a_streamed_flac_has_no_length() -> None:
    clip = bytearray(FLAC.tone(2.0))
    clip[21] &= 0xF0  # The count of samples has 36 bits.
    clip[22:26] = bytes(4)
    assert len(heard(bytes(clip))) == 32_000


@pytest.mark.parametrize("codec", ["pcm_s16le", "libmp3lame", "ac3"])
def test_a_live_film_has_no_length(codec: str) -> None:
    recipe = Recipe("matroska", codec, options={"live": "1"})
    film = encode([tone(1.0, rate=48_000)], recipe, video_s=60.0)
    assert len(heard(film)) / SAMPLE_RATE == pytest.approx(1.0, abs=PADDING_S)


def test_a_wav_that_promises_everything_and_holds_nothing_is_refused() -> None:
    message = refused_as(UnreadableAudio, raw_wav(b"", size=64_000))
    assert "2.00 s are promised, 0.00 s" in message


@pytest.mark.parametrize("recipe", [BARE_MP3, AAC])
def test_a_stream_without_a_promise_may_change_its_bit_rate(recipe: Recipe) -> None:
    low, high = (replace(recipe, bit_rate=rate) for rate in (32_000, 256_000))
    assert len(heard(low.tone(1.0) + high.tone(5.0))) / SAMPLE_RATE == pytest.approx(6.0, abs=0.2)


def pages(ogg: bytes) -> list[bytes]:
    found, at = [], 0
    while at < len(ogg):
        segments = ogg[at + 26]
        size = 27 + segments + sum(ogg[at + 27 : at + 27 + segments])
        found.append(ogg[at : at + size])
        at += size
    return found


def test_an_ogg_stream_may_begin_in_the_middle_and_have_no_end() -> None:
    parts = pages(OPUS.tone(8.0))
    clip = b"".join([*parts[:2], *parts[5:-1]])
    assert len(heard(clip)) / SAMPLE_RATE == pytest.approx(4.5, abs=1.0)


def test_an_ogg_file_with_a_damaged_page_is_refused() -> None:
    clip = bytearray(OPUS.tone(8.0))
    clip[len(clip) // 2] ^= 0x55
    assert "8.0" in refused_as(UnreadableAudio, bytes(clip))


@pytest.mark.parametrize("recipe", [MP3, AAC, MP4, FLAC])
def test_a_damaged_packet_is_skipped_as_players_do(recipe: Recipe) -> None:
    clip = bytearray(recipe.tone(4.0))
    middle = len(clip) // 2
    clip[middle : middle + 20] = b"\x55" * 20
    assert len(heard(bytes(clip))) / SAMPLE_RATE == pytest.approx(4.0, abs=0.25)


@pytest.mark.parametrize("recipe", [MP3, MP4, FLAC, OPUS])
def test_much_damage_is_refused(recipe: Recipe) -> None:
    clip = bytearray(recipe.tone(6.0))
    third = len(clip) // 3
    clip[third : 2 * third] = bytes(third)
    refused_as(UnreadableAudio, bytes(clip))


@settings(max_examples=150, deadline=None)
@given(
    recipe=st.sampled_from([WAV, FLAC, MP3, AAC, AIFF, MP4, FRAGMENTED_MP4, WEBM, OPUS]),
    changes=st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=8)),
        min_size=1,
        max_size=10,
    ),
    kept=st.floats(0.05, 1),
)
def test_any_damage_gives_samples_or_one_of_our_errors(
    recipe: Recipe, changes: list[tuple[float, bytes]], kept: float
) -> None:
    clip = bytearray(short_tone(recipe))
    for where, replacement in changes:
        at = int(where * len(clip))
        clip[at : at + len(replacement)] = replacement
    message = ""
    try:
        samples = heard(bytes(clip[: ceil(kept * len(clip))]))
    except WhisperServeError as exc:
        message = str(exc)
    else:
        assert 0 < len(samples) <= 60 * SAMPLE_RATE
    assert not re.search("none|errno|avcodec|/", message, re.IGNORECASE)


# Tags


def id3(size: int) -> bytes:
    return b"ID3\x04\x00\x00" + bytes(size >> shift & 127 for shift in (21, 14, 7, 0)) + bytes(size)


def without_id3(mp3: bytes) -> bytes:
    return mp3[mp3.index(b"\xff\xfb") :]


def test_a_large_picture_before_the_audio_changes_nothing() -> None:
    clip = id3(3 << 20) + without_id3(MP3.tone(4.0))
    assert len(heard(clip)) / SAMPLE_RATE == pytest.approx(4.0, abs=PADDING_S)
    refused_as(UnreadableAudio, clip[: len(clip) - 16_000])


def test_tags_after_the_audio_change_nothing() -> None:
    ape = b"APETAGEX" + struct.pack("<IIII8x", 2000, 300_000, 1, 0) + bytes(300_000)
    clip = MP3.tone(4.0) + ape + b"TAG" + b"x" * 125
    assert len(heard(clip)) / SAMPLE_RATE == pytest.approx(4.0, abs=PADDING_S)


def test_tags_need_not_be_utf_8() -> None:
    title = b"INFOINAM" + struct.pack("<I", 4) + b"\xe4\xf6\xfc\x00"
    chunk = b"LIST" + struct.pack("<I", len(title)) + title
    clip = raw_wav(tone(1.0).tobytes())
    assert np.array_equal(heard(clip[:36] + chunk + clip[36:]), tone(1.0))


# File objects


class Trickle(io.BytesIO):
    """Gives less than it is asked for, as a pipe may."""

    def __init__(self, data: bytes, sizes: Sequence[int]) -> None:
        super().__init__(data)
        self._sizes = cycle(sizes)

    def read(self, size: int | None = -1, /) -> bytes:
        most = next(self._sizes)
        return super().read(most if size is None or size < 0 else min(size, most))


@settings(max_examples=25, deadline=None)
@given(
    recipe=st.sampled_from([WAV, MP3, LATE_INDEX_MP4, OPUS]),
    sizes=st.lists(st.integers(1, 5_000), min_size=1, max_size=10),
)
def test_short_reads_give_the_same_samples(recipe: Recipe, sizes: list[int]) -> None:
    clip = short_tone(recipe)
    assert np.array_equal(heard(Trickle(clip, sizes)), heard(clip))


def test_a_file_is_read_from_its_start() -> None:
    upload = io.BytesIO(wav(tone(0.5)))
    upload.seek(0, io.SEEK_END)
    assert np.array_equal(heard(upload), tone(0.5))


def test_an_error_of_the_file_object_is_not_the_senders_fault() -> None:
    class Broken(io.BytesIO):
        def read(self, _size: int | None = -1, /) -> bytes:
            raise OSError("disk on fire")

    with pytest.raises(OSError, match="disk on fire"):
        heard(Broken(wav(tone(0.5))))


# Real recordings


@pytest.mark.skipif(not CLIPS.is_dir(), reason="no speech data here")
@pytest.mark.parametrize(("stem", "seconds"), [("jfk", 11.0), ("audioformats_p001", 8.995)])
def test_real_recordings_are_as_long_in_every_format(stem: str, seconds: float) -> None:
    files = [p for p in (CLIPS / "formats").glob(f"{stem}.*") if p.suffix != ".empty"]
    lengths = {file.name: len(heard(file.read_bytes())) / SAMPLE_RATE for file in files}
    assert len(lengths) >= 5
    assert all(length == pytest.approx(seconds, abs=0.05) for length in lengths.values()), lengths


@pytest.mark.skipif(not CLIPS.is_dir(), reason="no speech data here")
def test_a_real_empty_file_is_empty() -> None:
    with (CLIPS / "formats" / "audioformats_p001.empty").open("rb") as upload:
        refused_as(EmptyAudio, upload)
