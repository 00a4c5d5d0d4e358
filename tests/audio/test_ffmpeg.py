from __future__ import annotations

import io

import av
import numpy as np
import pytest

from tests.audio.clips import Recipe, encode, image, tone
from tests.audio.streams import AAC, FLAC, FMP4, MATROSKA, MP3, OGG, WAV, WEBM, stream
from whisper_serve.audio.ffmpeg import (
    HEAD_BYTES,
    MAX_FRAME_VALUES,
    audio_track,
    check_foreign,
    demuxer_of,
    restrictions,
)
from whisper_serve.errors import UnreadableAudio, UnsupportedFormat

ACCEPTED = (".wav", ".webm")


def opened(data: bytes) -> av.container.InputContainer:
    return av.open(io.BytesIO(data), options=restrictions())


@pytest.mark.parametrize("recipe", [Recipe("avi", "pcm_s16le"), Recipe("caf", "pcm_s16be")])
def test_demuxers_that_are_not_listed_cannot_be_used(recipe: Recipe) -> None:
    with pytest.raises(av.ArgumentError):
        opened(recipe.tone(0.1))


@pytest.mark.parametrize(
    ("recipe", "name"),
    [
        (WAV, "wav"),
        (FLAC, "flac"),
        (MP3, "mp3"),
        (AAC, "aac"),
        (OGG, "ogg"),
        (WEBM, "matroska"),
        (FMP4, "mov"),
    ],
)
def test_a_demuxer_is_called_what_the_formats_call_it(recipe: Recipe, name: str) -> None:
    with opened(stream(recipe)) as container:
        assert demuxer_of(container) == name


def test_the_audio_track_is_found_beside_a_picture() -> None:
    film = encode([tone(0.5, rate=48_000)], WEBM, video_s=0.5)
    with opened(film) as container:
        assert audio_track(container, ACCEPTED).type == "audio"


def test_a_picture_alone_has_no_audio_track() -> None:
    with (
        opened(encode([], WEBM, video_s=0.5)) as container,
        pytest.raises(UnreadableAudio, match="no audio track"),
    ):
        audio_track(container, ACCEPTED)


def test_a_codec_that_is_not_listed_is_named() -> None:
    with (
        opened(Recipe("matroska", "wavpack").tone(0.5)) as container,
        pytest.raises(UnsupportedFormat, match=r"\.webm with wavpack; accepted: \.wav, \.webm"),
    ):
        audio_track(container, ACCEPTED)


def test_a_frame_beyond_all_bounds_is_not_decoded() -> None:
    count = MAX_FRAME_VALUES + 1
    recipe = Recipe("matroska", "pcm_s16le", options={"live": "1"}, frame_samples=count)
    with opened(recipe.encode(np.zeros(count, np.int16))) as container:
        packet = next(container.demux(audio_track(container, ACCEPTED)))
        with pytest.raises(av.FFmpegError):
            packet.decode()


def test_a_frame_within_the_bounds_is_decoded() -> None:
    with opened(stream(MATROSKA)) as container:
        packet = next(container.demux(audio_track(container, ACCEPTED)))
        assert packet.decode()[0].samples > 0


@pytest.mark.parametrize(
    ("recipe", "name"),
    [
        (Recipe("avi", "pcm_s16le"), ".avi"),
        (Recipe("caf", "pcm_s16be"), ".caf"),
        (Recipe("mpegts", "aac"), ".ts"),
    ],
)
def test_foreign_formats_are_named(recipe: Recipe, name: str) -> None:
    with pytest.raises(UnsupportedFormat) as refused:
        check_foreign(recipe.tone(0.5)[:HEAD_BYTES], ACCEPTED)
    assert (refused.value.found, refused.value.accepted) == (name, ACCEPTED)


@pytest.mark.parametrize("head", [image("png", "rgb24")[:HEAD_BYTES], b"RIFF\x10\0\0\0WEBPVP8 "])
def test_an_image_is_told(head: bytes) -> None:
    with pytest.raises(UnreadableAudio, match="image"):
        check_foreign(head, ACCEPTED)


@pytest.mark.parametrize("head", [b"", b"x", b"<html><body>404 Not Found</body></html>"])
def test_of_the_unknown_there_is_nothing_to_tell(head: bytes) -> None:
    check_foreign(head, ACCEPTED)
