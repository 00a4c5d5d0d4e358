from __future__ import annotations

import asyncio
import sys
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from whisper_serve.client import recorder
from whisper_serve.client.recorder import Hear, Microphone, microphone
from whisper_serve.errors import MicrophoneUnavailable

BLOCK = bytes(3_200)
WAIT_S = 10.0


class Device:
    """Hears `blocks` in a thread of its own, as PortAudio does, and then nothing."""

    def __init__(self, *blocks: bytes) -> None:
        self.blocks = blocks
        self.closed = False
        self.opened_with: tuple[object, int] | None = None

    def open(self, name: str | int | None, sample_rate: int, hear: Hear) -> Device:
        self.opened_with = name, sample_rate
        thread = threading.Thread(target=self._speak, args=[hear])
        thread.start()
        thread.join()
        return self

    def _speak(self, hear: Hear) -> None:
        for block in self.blocks:
            hear(block)

    def close(self) -> None:
        self.closed = True


async def test_what_is_spoken_is_given_in_order_until_it_is_stopped() -> None:
    device = Device(b"aa", b"bb", b"cc")
    source = Microphone("USB", sample_rate=48_000, opener=device.open)
    heard = []
    async for block in source:
        heard.append(block)
        if block == b"cc":
            source.stop()
    assert heard == [b"aa", b"bb", b"cc"]
    assert device.opened_with == ("USB", 48_000)
    assert device.closed


async def test_what_was_spoken_before_the_stop_is_still_given() -> None:
    source = Microphone(opener=Device(b"aa", b"bb", b"cc").open)
    heard = []
    async for block in source:
        heard.append(block)
        source.stop()
    assert heard == [b"aa", b"bb", b"cc"]


async def test_it_waits_for_somebody_to_speak() -> None:
    source = Microphone(opener=Device().open)
    asyncio.get_running_loop().call_later(0.05, source.stop)
    assert [block async for block in source] == []


async def test_leaving_closes_the_device() -> None:
    device = Device(b"aa", b"bb")
    blocks = Microphone(opener=device.open).__aiter__()
    assert await anext(blocks) == b"aa"
    await blocks.aclose()
    assert device.closed


async def test_a_device_that_opens_too_late_is_closed() -> None:
    device, opening, go = Device(), threading.Event(), threading.Event()

    def open_slowly(name: str | int | None, sample_rate: int, hear: Hear) -> Device:
        opening.set()
        assert go.wait(WAIT_S)
        return device.open(name, sample_rate, hear)

    task = asyncio.ensure_future(anext(Microphone(opener=open_slowly).__aiter__()))
    assert await asyncio.to_thread(opening.wait, WAIT_S)
    task.cancel()
    await asyncio.sleep(0)
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert device.closed


async def test_what_nobody_takes_is_not_kept_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "MAX_WAITING_S", 0.2)
    blocks = Microphone(opener=Device(*[BLOCK] * 5).open).__aiter__()
    assert [await anext(blocks) for _ in range(3)] == [BLOCK] * 3
    with pytest.raises(MicrophoneUnavailable, match=r"more than 0.2 s"):
        await anext(blocks)


# The package


class PortAudioError(Exception):
    pass


class RawInputStream:
    """Stands in for the package's: it speaks once when it is started."""

    def __init__(self, **options: Any) -> None:
        if options["device"] == "none":
            raise PortAudioError("No input device matching 'none'")
        assert (options["channels"], options["dtype"]) == (1, "int16")
        self._options = options
        self.closed = False

    def start(self) -> None:
        count = self._options["blocksize"]
        self._options["callback"](bytearray(2 * count), count, None, None)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def _sounddevice(monkeypatch: pytest.MonkeyPatch) -> None:
    package = SimpleNamespace(RawInputStream=RawInputStream, PortAudioError=PortAudioError)
    monkeypatch.setitem(sys.modules, "sounddevice", package)


@pytest.mark.usefixtures("_sounddevice")
async def test_the_package_records_a_tenth_of_a_second_at_a_time() -> None:
    source = microphone(sample_rate=48_000)
    async for block in source:
        assert len(block) == 2 * 4_800
        source.stop()


@pytest.mark.usefixtures("_sounddevice")
async def test_a_device_that_is_not_there_is_told() -> None:
    with pytest.raises(MicrophoneUnavailable, match="No input device matching"):
        await anext(microphone("none").__aiter__())


async def test_without_the_package_it_is_told_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(MicrophoneUnavailable, match=r"pip install sounddevice"):
        await anext(microphone().__aiter__())
