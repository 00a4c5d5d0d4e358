"""Formats have one name each, and FFmpeg has what is listed."""

from __future__ import annotations

import av
import pytest

from whisper_serve.audio.containers import DECODERS, FORMATS, canonical_format


@pytest.mark.parametrize(
    ("name", "canonical"),
    [("WAV", ".wav"), (".m4a", ".mp4"), ("MOV", ".mp4"), ("opus", ".ogg"), (".aif", ".aiff")],
)
def test_names_have_one_canonical_form(name: str, canonical: str) -> None:
    assert canonical_format(name) == canonical


@pytest.mark.parametrize("name", ["", ".", ".xyz", "mp3 ", "..wav", "*"])
def test_unknown_names_are_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(ValueError, match=r"\.wav.*\.aiff"):
        canonical_format(name)


def test_every_format_and_decoder_on_the_lists_exists() -> None:
    known = {part for name in av.formats_available for part in name.split(",")}
    assert set(FORMATS) <= known
    assert set(DECODERS) <= av.codecs_available
