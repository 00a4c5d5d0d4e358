from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.audio.clips import raw_wav, tone
from tests.audio.streams import WEBM, stream, sweep
from whisper_serve.audio.decode import decode
from whisper_serve.audio.live import live_decoder
from whisper_serve.audio.pcm import SAMPLE_RATE, Samples

VALUE_BYTES = {"pcm_s16le": 2, "pcm_f32le": 4, "mulaw": 1, "alaw": 1}
WAV = {"pcm_s16le": (1, 16), "pcm_f32le": (3, 32), "mulaw": (7, 8), "alaw": (6, 8)}

rates = st.one_of(st.sampled_from([8_000, 16_000, 44_100, 48_000]), st.integers(8_000, 48_000))


def heard(pieces: Sequence[bytes], encoding: str, rate: int, channels: int) -> Samples:
    decoder = live_decoder(encoding, rate, channels)
    samples = np.concatenate([*(decoder.push(piece) for piece in pieces), decoder.finish()])
    decoder.close()
    assert samples.dtype == np.int16
    return samples


def cut(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    edges = [0, *sorted(min(at, len(data)) for at in cuts), len(data)]
    return [data[first:last] for first, last in pairwise(edges)]


@settings(max_examples=150)
@given(
    data=st.binary(max_size=2_000),
    encoding=st.sampled_from(list(VALUE_BYTES)),
    rate=rates,
    channels=st.sampled_from([1, 2]),
    cuts=st.lists(st.integers(0, 2_000), max_size=12),
)
def test_any_cutting_gives_the_same_samples(
    data: bytes, encoding: str, rate: int, channels: int, cuts: list[int]
) -> None:
    whole = heard([data], encoding, rate, channels)
    n_frames = len(data) // (VALUE_BYTES[encoding] * channels)
    assert len(whole) == math.ceil(n_frames * SAMPLE_RATE / rate)
    assert np.array_equal(heard(cut(data, cuts), encoding, rate, channels), whole)


@pytest.mark.parametrize("encoding", VALUE_BYTES)
@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
@pytest.mark.parametrize("channels", [1, 2])
def test_bytes_may_come_one_by_one(encoding: str, rate: int, channels: int) -> None:
    data = np.random.default_rng(0).bytes(500)
    single = [data[at : at + 1] for at in range(len(data))]
    assert np.array_equal(
        heard(single, encoding, rate, channels), heard([data], encoding, rate, channels)
    )


@pytest.mark.parametrize("encoding", VALUE_BYTES)
@pytest.mark.parametrize("channels", [1, 2])
def test_a_stream_is_heard_as_the_file_that_it_would_be(encoding: str, channels: int) -> None:
    tag, bits = WAV[encoding]
    values = np.random.default_rng(0).integers(-32_768, 32_768, 6_000)
    data = values.astype("<i2").tobytes()
    if encoding == "pcm_f32le":
        data = (values / 32_768).astype("<f4").tobytes()
    file = raw_wav(data, rate=SAMPLE_RATE, channels=channels, bits=bits, tag=tag)
    expected = decode(file, accepted=[".wav"], max_duration_s=9.0)
    assert np.array_equal(heard([data], encoding, SAMPLE_RATE, channels), expected)


def test_int16_at_sixteen_kilohertz_is_not_touched() -> None:
    samples = np.random.default_rng(0).integers(-32_768, 32_768, 5_000).astype(np.int16)
    assert np.array_equal(heard([samples.tobytes()], "pcm_s16le", SAMPLE_RATE, 1), samples)


@pytest.mark.parametrize("rate", [8_000, 44_100, 48_000])
def test_another_rate_gives_the_same_sound(rate: int) -> None:
    there = heard([sweep(2.0, rate=rate).tobytes()], "pcm_s16le", rate, 1)
    assert len(there) == 2 * SAMPLE_RATE
    assert np.corrcoef(there, sweep(2.0))[0, 1] > 0.999


def test_two_channels_are_mixed_without_overflow() -> None:
    loud = np.full(3_200, 32_767, np.int16).tobytes()
    assert set(heard([loud], "pcm_s16le", SAMPLE_RATE, 2)) == {32_767}
    left_only = np.stack([tone(0.1), np.zeros(1_600, np.int16)], axis=1).tobytes()
    mixed = heard([left_only], "pcm_s16le", SAMPLE_RATE, 2)
    assert np.abs(mixed - tone(0.1) / 2).max() <= 0.5


@pytest.mark.parametrize("rate", [16_000, 48_000])
def test_a_piece_of_minutes_is_decoded_like_small_ones(rate: int) -> None:
    data = sweep(100.0, rate=rate).tobytes()
    small = [data[first : first + 9_999] for first in range(0, len(data), 9_999)]
    assert np.array_equal(heard([data], "pcm_s16le", rate, 2), heard(small, "pcm_s16le", rate, 2))


def test_bad_floats_are_counted() -> None:
    decoder = live_decoder("pcm_f32le", SAMPLE_RATE, 1)
    wild = np.array([np.nan, np.inf, -np.inf, 1.5, -1.0, 0.5], "<f4").tobytes()
    assert decoder.push(wild[:5]).tolist() == [0]
    assert decoder.bad_samples == 1
    assert decoder.push(wild[5:]).tolist() == [32_767, -32_768, 32_767, -32_768, 16_384]
    assert decoder.bad_samples == 4


def test_bad_floats_are_counted_in_every_channel() -> None:
    decoder = live_decoder("pcm_f32le", SAMPLE_RATE, 2)
    wild = np.array([np.nan, 1.0, 9.0, -9.0], "<f4").tobytes()
    assert decoder.push(wild).tolist() == [16_384, 0]
    assert decoder.bad_samples == 3


@pytest.mark.parametrize("encoding", ["pcm_s16le", "mulaw", "alaw"])
def test_other_encodings_have_no_bad_values(encoding: str) -> None:
    for rate in (8_000, 16_000):
        decoder = live_decoder(encoding, rate, 1)
        decoder.push(bytes(range(256)))
        assert decoder.bad_samples == 0


def test_a_container_tells_its_rate_itself() -> None:
    decoder = live_decoder("container", 8_000, 2)
    n = len(decoder.push(stream(WEBM, 1.0))) + len(decoder.finish())
    decoder.close()
    assert n / SAMPLE_RATE == pytest.approx(1.0, abs=0.01)
    assert decoder.bad_samples == 0


@pytest.mark.parametrize("encoding", [*VALUE_BYTES, "container"])
@pytest.mark.parametrize("rate", [16_000, 48_000])
def test_finish_before_anything_gives_nothing(encoding: str, rate: int) -> None:
    assert len(heard([], encoding, rate, 1)) == 0
    assert len(heard([b""], encoding, rate, 1)) == 0


@pytest.mark.parametrize("encoding", [*VALUE_BYTES, "container"])
@pytest.mark.parametrize("rate", [16_000, 48_000])
def test_close_may_come_at_any_time_and_again(encoding: str, rate: int) -> None:
    for n in (0, 1, 3):
        decoder = live_decoder(encoding, rate, 2)
        for _ in range(n):
            decoder.push(b"\x1a")
        decoder.close()
        decoder.close()


def test_half_a_sample_at_the_end_is_dropped() -> None:
    assert heard([b"\1\2\3\4\5"], "pcm_s16le", SAMPLE_RATE, 1).tolist() == [0x0201, 0x0403]
    assert len(heard([bytes(7)], "pcm_f32le", SAMPLE_RATE, 1)) == 1


def test_an_unknown_encoding_is_refused() -> None:
    with pytest.raises(ValueError, match="'opus' is not a known encoding"):
        live_decoder("opus", SAMPLE_RATE, 1)
