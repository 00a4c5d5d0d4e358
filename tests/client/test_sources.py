from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.audio.clips import tone, wav
from whisper_serve.client.recorder import Microphone
from whisper_serve.client.sources import InThread, config_for, paced, pieces_of
from whisper_serve.errors import InvalidParameter, UnreadableAudio

SAMPLES = np.arange(-20_000, 20_000, 2, dtype=np.int16)
WAIT_S = 10.0


async def bytes_of(source: Any, encoding: str = "pcm_s16le") -> bytes:
    return b"".join([piece async for piece in pieces_of(source, encoding)])


async def each(*items: Any) -> AsyncIterator[Any]:
    for item in items:
        yield item


# Forms


@pytest.mark.parametrize("make", [bytes, bytearray, memoryview])
async def test_bytes_are_raw_audio(make: Any) -> None:
    assert await bytes_of(make(SAMPLES.tobytes())) == SAMPLES.tobytes()


async def test_an_array_is_raw_audio() -> None:
    assert await bytes_of(SAMPLES) == SAMPLES.astype("<i2").tobytes()
    assert await bytes_of(SAMPLES.astype(">i2")) == SAMPLES.astype("<i2").tobytes()
    assert await bytes_of(SAMPLES[::-2]) == SAMPLES[::-2].tobytes()


async def test_channels_are_interleaved() -> None:
    stereo = np.stack([SAMPLES, -SAMPLES], axis=1)
    assert await bytes_of(stereo) == stereo.astype("<i2").tobytes()


async def test_floats_are_sent_as_floats() -> None:
    floats = np.linspace(-1.0, 1.0, 9, dtype=np.float32)
    assert await bytes_of(floats, "pcm_f32le") == floats.astype("<f4").tobytes()


@pytest.mark.parametrize(
    ("dtype", "encoding"),
    [("f4", "pcm_s16le"), ("f8", "pcm_f32le"), ("i2", "pcm_f32le"), ("i4", "pcm_s16le")],
)
async def test_an_array_that_is_not_as_the_configuration_says_is_refused(
    dtype: str, encoding: str
) -> None:
    with pytest.raises(InvalidParameter, match=r"^encoding"):
        await bytes_of(np.zeros(9, dtype), encoding)


async def test_iterables_of_both_kinds_are_taken() -> None:
    parts = [SAMPLES[:7], SAMPLES[7:].tobytes()]
    assert await bytes_of(parts) == SAMPLES.tobytes()
    assert await bytes_of(iter(parts)) == SAMPLES.tobytes()
    assert await bytes_of(each(*parts)) == SAMPLES.tobytes()


async def test_long_audio_comes_in_pieces() -> None:
    pieces = [piece async for piece in pieces_of(bytes(100_000), "pcm_s16le")]
    assert max(len(piece) for piece in pieces) < 40_000


async def test_a_file_is_decoded_whatever_its_rate(tmp_path: Path) -> None:
    path = tmp_path / "tone.wav"
    path.write_bytes(wav(tone(0.5, rate=44_100), rate=44_100))
    assert len(await bytes_of(path)) == 2 * 8_000
    assert await bytes_of(str(path)) == await bytes_of(path)


@pytest.mark.parametrize("name", ["nowhere.wav", "."])
async def test_a_file_that_cannot_be_read_is_told(name: str, tmp_path: Path) -> None:
    with pytest.raises(UnreadableAudio, match="cannot be read"):
        await bytes_of(tmp_path / name)


async def test_a_file_that_is_no_audio_is_told(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("nothing to hear")
    with pytest.raises(UnreadableAudio):
        await bytes_of(path)


async def test_an_iterable_is_closed_when_nobody_reads_on() -> None:
    closed = []

    async def source() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"ab"
        finally:
            closed.append(True)

    pieces = pieces_of(source(), "pcm_s16le")
    await anext(pieces)
    await pieces.aclose()
    assert closed == [True]


# Configuration


def test_a_file_and_a_microphone_settle_the_form() -> None:
    assert config_for("talk.mp3", {"language": "de"}) == {"language": "de", "sample_rate": 16_000}
    assert config_for(Microphone(sample_rate=48_000), {}) == {"sample_rate": 48_000}
    assert config_for(b"", {"encoding": "mulaw"}) == {"encoding": "mulaw"}


@pytest.mark.parametrize("config", [{"encoding": "mulaw"}, {"sample_rate": 8_000}, {"channels": 2}])
def test_another_form_is_refused(config: Any) -> None:
    with pytest.raises(InvalidParameter, match="with this source"):
        config_for(Path("talk.mp3"), config)


# Pace


async def test_paced_audio_comes_when_it_is_spoken() -> None:
    clock = asyncio.get_running_loop().time
    begin, parts = clock(), []
    async for part in paced(pieces_of(bytes(6_000), "pcm_s16le"), 20_000):
        parts.append(len(part))
        assert clock() - begin >= sum(parts) / 20_000 - 0.01
    assert parts == [2_000, 2_000, 2_000]


# Threads


async def test_a_blocking_iterable_is_read_on_demand_only() -> None:
    given: list[int] = []

    def items() -> Iterator[bytes]:
        for number in range(3):
            given.append(number)
            yield bytes([number])

    source = InThread(items())
    assert await anext(source) == b"\0"
    assert given == [0]
    assert [item async for item in source] == [b"\1", b"\2"]
    with pytest.raises(StopAsyncIteration):
        await anext(source)


async def test_what_a_blocking_iterable_raises_is_raised() -> None:
    def items() -> Iterator[bytes]:
        yield b"a"
        raise KeyError("lost")

    source = InThread(items())
    await anext(source)
    with pytest.raises(KeyError, match="lost"):
        await anext(source)


async def test_what_is_no_iterable_is_raised_too() -> None:
    with pytest.raises(TypeError):
        await anext(InThread(5))  # type: ignore[arg-type]


async def test_stopping_ends_an_iteration_that_waits() -> None:
    go = threading.Event()

    def items() -> Iterator[bytes]:
        yield b"a"
        go.wait(WAIT_S)
        yield b"b"

    source = InThread(items())
    assert await anext(source) == b"a"
    asyncio.get_running_loop().call_later(0.05, source.stop)
    assert [item async for item in source] == []
    go.set()


async def test_stopping_twice_and_before_the_beginning_is_no_harm() -> None:
    source = InThread([b"a"])
    source.stop()
    await source.aclose()
    assert [item async for item in source] == []
