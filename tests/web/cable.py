"""What lies between a browser and a service, to be cut and slowed down: a TCP relay."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

PIECE = 64 * 1024


class Cable:
    """Relays `port` to `target` on this machine. Its methods may be called from any thread."""

    def __init__(self, target: int) -> None:
        self.port = 0
        self.bytes_per_s: float | None = None
        self._target = target
        self._unplugged = False
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def cut(self) -> None:
        """All connections die, without a word to anybody."""
        self._loop.call_soon_threadsafe(self._cut)

    def unplug(self) -> None:
        """As `cut`, and new connections die too until it is plugged in again."""
        self._unplugged = True
        self.cut()

    def plug(self) -> None:
        self._unplugged = False

    def run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    def wait(self) -> None:
        assert self._ready.wait(10)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._over.set)

    async def _serve(self) -> None:
        self._over = asyncio.Event()
        server = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._over.wait()
        server.close()
        self._cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _cut(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        ends = [writer]
        try:
            if self._unplugged:
                return
            there_reader, there = await asyncio.open_connection("127.0.0.1", self._target)
            ends.append(there)
            await asyncio.gather(
                self._copy(reader, there, self.bytes_per_s), self._copy(there_reader, writer, None)
            )
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            for end in ends:
                end.transport.abort()

    async def _copy(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rate: float | None
    ) -> None:
        while data := await reader.read(PIECE):
            writer.write(data)
            await writer.drain()
            if rate:
                await asyncio.sleep(len(data) / rate)
        with suppress(OSError):
            writer.write_eof()


@contextmanager
def cabled(target: int) -> Iterator[Cable]:
    cable = Cable(target)
    thread = threading.Thread(target=cable.run)
    thread.start()
    try:
        cable.wait()
        yield cable
    finally:
        cable.stop()
        thread.join(10)
