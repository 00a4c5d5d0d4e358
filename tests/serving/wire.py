"""A TCP relay that a test can cut: what a client sees when the network fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class Relay:
    """Passes bytes between clients and `port`; `cut` resets every connection."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._writers: set[asyncio.StreamWriter] = set()
        self.connections = 0

    def cut(self) -> int:
        """Reset what is open; returns how many connections there were."""
        writers, self._writers = self._writers, set()
        for writer in writers:
            writer.transport.abort()
        return len(writers)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        there, to_there = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers |= {writer, to_there}
        try:
            await asyncio.gather(_pass(reader, to_there), _pass(there, writer))
        finally:
            for end in (writer, to_there):
                end.transport.abort()
                self._writers.discard(end)


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        writer.write_eof()


@asynccontextmanager
async def relay_to(port: int) -> AsyncIterator[tuple[Relay, int]]:
    """A relay and the port where it listens."""
    relay = Relay(port)
    server = await asyncio.start_server(relay.serve, "127.0.0.1", 0)
    try:
        yield relay, server.sockets[0].getsockname()[1]
    finally:
        server.close()
        relay.cut()
        await server.wait_closed()
