"""The microphone, through the optional package `sounddevice` (PortAudio)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from typing import Any, Protocol

from whisper_serve.audio.pcm import SAMPLE_RATE
from whisper_serve.errors import MicrophoneUnavailable

BLOCK_S = 0.1
# Longer than a stream tries to connect again, so that nothing spoken meanwhile is lost.
MAX_WAITING_S = 120.0


class Device(Protocol):
    """Records until it is closed."""

    def close(self) -> None: ...


Hear = Callable[[bytes], None]
Opener = Callable[["str | int | None", int, Hear], Device]


def microphone(device: str | int | None = None, *, sample_rate: int = SAMPLE_RATE) -> Microphone:
    """What is spoken, as a source for `stream`. `device`: number of a sound device or part of
    its name, by default the one that the system prefers."""
    return Microphone(device, sample_rate=sample_rate)


class Microphone:
    """16-bit mono audio while it is spoken, from the first iteration until `stop`.

    Iterating raises `MicrophoneUnavailable` when there is no device, or when two minutes of
    audio wait because nobody takes them.
    """

    def __init__(
        self,
        device: str | int | None = None,
        *,
        sample_rate: int = SAMPLE_RATE,
        opener: Opener | None = None,
    ) -> None:
        self.sample_rate = sample_rate
        self._device = device
        self._opener = opener or open_device
        self._blocks: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._changed = asyncio.Event()
        self._stopped = self._overflowed = False

    def stop(self) -> None:
        """Record no more; what was recorded is still given out. To be called in the event
        loop that iterates."""
        self._stopped = True
        self._changed.set()

    async def __aiter__(self) -> AsyncGenerator[bytes, None]:
        device = await self._open()
        try:
            while self._blocks or not self._stopped:
                if not self._blocks:
                    self._changed.clear()
                    await self._changed.wait()
                    continue
                block = self._blocks.popleft()
                self._waiting_bytes -= len(block)
                yield block
        finally:
            device.close()
        if self._overflowed:
            raise MicrophoneUnavailable(
                f"more than {MAX_WAITING_S:g} s of what was spoken wait to be sent"
            )

    async def _open(self) -> Device:
        loop = asyncio.get_running_loop()

        def hear(block: bytes) -> None:  # called in the device's thread
            with suppress(RuntimeError):  # the loop is closed, nobody listens any more
                loop.call_soon_threadsafe(self._take, block)

        opening = loop.run_in_executor(None, self._opener, self._device, self.sample_rate, hear)
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            (await opening).close()  # or it would record on and on
            raise

    def _take(self, block: bytes) -> None:
        if self._stopped:
            return
        self._blocks.append(block)
        self._waiting_bytes += len(block)
        if self._waiting_bytes > MAX_WAITING_S * 2 * self.sample_rate:
            self._stopped = self._overflowed = True
        self._changed.set()


def open_device(name: str | int | None, sample_rate: int, hear: Hear) -> Device:
    """Begin to record; `hear` gets blocks of 16-bit mono audio in a thread of PortAudio's.

    Raises `MicrophoneUnavailable`.
    """
    try:
        import sounddevice  # type: ignore[import-not-found]  # noqa: PLC0415
    except ImportError as exc:
        raise MicrophoneUnavailable(
            "the microphone needs a package: pip install sounddevice"
        ) from exc
    except OSError as exc:
        raise MicrophoneUnavailable(f"the sound system cannot be used: {exc}") from exc

    def heard(block: Any, _frames: int, _time: object, _status: object) -> None:
        hear(bytes(block))

    try:
        stream: Any = sounddevice.RawInputStream(
            device=name,
            samplerate=sample_rate,
            channels=1,
            dtype="int16",
            blocksize=round(BLOCK_S * sample_rate),
            callback=heard,
        )
        stream.start()
    except (sounddevice.PortAudioError, ValueError) as exc:
        raise MicrophoneUnavailable(f"there is no microphone to record from: {exc}") from exc
    device: Device = stream
    return device
