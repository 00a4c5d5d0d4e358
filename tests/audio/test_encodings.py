from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tests.audio.clips import raw_wav
from whisper_serve.audio.decode import decode
from whisper_serve.audio.encodings import Values, pcm_encoding, tamed

EVERY_BYTE = bytes(range(256))
WAV_TAGS = {"alaw": 6, "mulaw": 7}


def test_int16_is_a_share_of_full_scale() -> None:
    data = np.array([-32_768, -1, 0, 1, 16_384, 32_767], "<i2").tobytes()
    values = pcm_encoding("pcm_s16le").read(data)
    assert values.dtype == np.float32
    assert values.tolist() == [-1.0, -1 / 32_768, 0.0, 1 / 32_768, 0.5, 32_767 / 32_768]


def test_floats_are_what_they_are() -> None:
    data = np.array([-1.0, 0.25, 3.0], "<f4").tobytes()
    assert pcm_encoding("pcm_f32le").read(data).tolist() == [-1.0, 0.25, 3.0]


@pytest.mark.parametrize("law", WAV_TAGS)
def test_both_laws_are_those_of_ffmpeg(law: str) -> None:
    wav = raw_wav(EVERY_BYTE, bits=8, tag=WAV_TAGS[law])
    expected = decode(wav, accepted=[".wav"], max_duration_s=1.0)
    assert len(set(expected.tolist())) >= 255
    assert (pcm_encoding(law).read(EVERY_BYTE) * 32_768).tolist() == expected.tolist()


@pytest.mark.parametrize("name", ["pcm_s16le", "pcm_f32le", "mulaw", "alaw"])
def test_there_is_one_value_for_each_of_its_bytes(name: str) -> None:
    encoding = pcm_encoding(name)
    assert len(encoding.read(EVERY_BYTE)) == 256 / encoding.value_bytes


def test_an_unknown_encoding_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'opus' is not.*pcm_s16le.*alaw"):
        pcm_encoding("opus")


@given(arrays(np.float32, st.integers(0, 50), elements=st.floats(width=32)))
def test_tamed_values_are_within_full_scale(values: Values) -> None:
    before = values.copy()
    after, n_bad = tamed(values)
    fine = np.isfinite(before) & (np.abs(np.nan_to_num(before)) <= 1)
    assert n_bad == np.count_nonzero(~fine)
    assert np.array_equal(after[fine], before[fine])
    assert np.all(np.abs(after) <= 1)


def test_what_is_no_number_is_silence_and_what_is_too_loud_is_clipped() -> None:
    wild = np.array([np.nan, np.inf, -np.inf, 1.5, -7.0, 0.5], np.float32)
    after, n_bad = tamed(wild)
    assert after.tolist() == [0.0, 1.0, -1.0, 1.0, -1.0, 0.5]
    assert n_bad == 5


def test_no_pattern_of_bits_is_worth_a_warning() -> None:
    signalling = np.array([0x7F800001, 0xFF800001], "<u4").tobytes()
    after, n_bad = tamed(pcm_encoding("pcm_f32le").read(signalling))
    assert (after.tolist(), n_bad) == ([0.0, 0.0], 2)
