"""Audio from wherever a caller has it, as pieces of raw bytes.

Whatever blocks does so in a thread of its own.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Iterator
from contextlib import aclosing, suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

from whisper_serve.audio.containers import FORMATS
from whisper_serve.audio.decode import decode
from whisper_serve.audio.pcm import SAMPLE_RATE, Samples
from whisper_serve.client.options import StreamOptions
from whisper_serve.client.recorder import Microphone
from whisper_serve.errors import InvalidParameter, UnreadableAudio

Piece = bytes | bytearray | memoryview | npt.NDArray[np.int16] | npt.NDArray[np.float32]
Source = str | Path | Piece | Iterable[Piece] | AsyncIterable[Piece] | Microphone

PIECE_ITEMS = SAMPLE_RATE // 2  # bytes, or frames of an array
PACE_S = 0.1
MAX_FILE_S = 24 * 3600.0
ARRAYS: dict[str, npt.DTypeLike] = {"pcm_s16le": "<i2", "pcm_f32le": "<f4"}


def config_for(source: Source, config: StreamOptions) -> StreamOptions:
    """`config` with what the source settles: a file is decoded, a microphone has a rate.

    Raises `InvalidParameter` when it says something else.
    """
    if isinstance(source, (str, Path)):
        sample_rate = SAMPLE_RATE
    elif isinstance(source, Microphone):
        sample_rate = source.sample_rate
    else:
        return config
    settled = {"encoding": "pcm_s16le", "sample_rate": sample_rate, "channels": 1}
    for key, value in settled.items():
        if config.get(key, value) != value:
            raise InvalidParameter(key, f"it is {value!r} with this source")
    return {**config, "sample_rate": sample_rate}


async def pieces_of(source: Source, encoding: str) -> AsyncGenerator[bytes, None]:
    """The audio of `source` in the form that `encoding` names. Closes what it reads from."""
    if isinstance(source, (str, Path)):
        source = await asyncio.to_thread(_decode, Path(source))
    if isinstance(source, (bytes, bytearray, memoryview, np.ndarray)):
        for piece in _cut(source, PIECE_ITEMS):
            yield _raw(piece, encoding)
        return
    items = aiter(source if isinstance(source, AsyncIterable) else InThread(source))
    try:
        async for item in items:
            yield _raw(item, encoding)
    finally:
        if hasattr(items, "aclose"):
            await items.aclose()


async def paced(
    pieces: AsyncGenerator[bytes, None], bytes_per_s: float
) -> AsyncGenerator[bytes, None]:
    """`pieces` as fast as they are spoken, as if they came from a microphone."""
    clock = asyncio.get_running_loop().time
    begin, given = clock(), 0
    async with aclosing(pieces):
        async for piece in pieces:
            for part in _cut(piece, max(1, round(PACE_S * bytes_per_s))):
                given += len(part)
                await asyncio.sleep(begin + given / bytes_per_s - clock())
                yield bytes(part)


def _decode(path: Path) -> Samples:
    try:
        with path.open("rb") as file:
            formats = [names[0] for names in FORMATS.values()]
            return decode(file, accepted=formats, max_duration_s=MAX_FILE_S)
    except OSError as exc:
        raise UnreadableAudio(f"{path} cannot be read: {exc.strerror or exc}") from exc


def _raw(piece: Piece, encoding: str) -> bytes:
    if not isinstance(piece, np.ndarray):
        return bytes(piece)
    wanted = ARRAYS.get(encoding)
    if wanted is None or piece.dtype.newbyteorder("<") != wanted:
        raise InvalidParameter("encoding", f"an array of {piece.dtype} is not {encoding}")
    data: bytes = piece.astype(wanted, copy=False).tobytes()
    return data


def _cut(data: Piece, size: int) -> Iterator[Piece]:
    return (data[first : first + size] for first in range(0, len(data), size))


class InThread(AsyncIterator[Piece]):
    """A blocking iterable, read in a daemon thread, one item at a time and none ahead.

    The thread does not hold up the end of the process, as a worker of an executor would that
    waits for input.
    """

    def __init__(self, items: Iterable[Piece]) -> None:
        self._items = items
        self._asked: queue.SimpleQueue[asyncio.Future[Piece | None] | None] = queue.SimpleQueue()
        self._waiting: asyncio.Future[Piece | None] | None = None
        self._started = self._stopped = False

    def stop(self) -> None:
        """End the iteration, also one that waits. To be called in the event loop."""
        self._stopped = True
        self._asked.put(None)
        if self._waiting is not None:
            _resolve(self._waiting, None)

    async def __anext__(self) -> Piece:
        if self._stopped:
            raise StopAsyncIteration
        if not self._started:
            self._started = True
            threading.Thread(target=self._read, name="audio source", daemon=True).start()
        self._waiting = asyncio.get_running_loop().create_future()
        self._asked.put(self._waiting)
        item = await self._waiting
        if item is None:
            raise StopAsyncIteration
        return item

    async def aclose(self) -> None:
        self.stop()

    def _read(self) -> None:
        items: Iterator[Piece] | None = None
        while (future := self._asked.get()) is not None:
            item: Piece | BaseException | None
            try:
                items = iter(self._items) if items is None else items
                item = next(items, None)
            except BaseException as exc:  # noqa: BLE001 - it belongs to who reads
                item = exc
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                future.get_loop().call_soon_threadsafe(_resolve, future, item)


def _resolve(future: asyncio.Future[Piece | None], item: Piece | BaseException | None) -> None:
    if future.done():
        return
    if isinstance(item, BaseException):
        future.set_exception(item)
    else:
        future.set_result(item)
