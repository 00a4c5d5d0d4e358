"""A TCP relay before a service that can be cut: what a client sees when the network fails."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

PIECE_BYTES = 1 << 16


class Relay:
    """Passes bytes between clients and a service; `cut` resets one connection."""

    def __init__(self, host: str, port: int, chance: random.Random) -> None:
        self._host, self._port = host, port
        self._chance = chance
        self._clients: dict[asyncio.StreamWriter, asyncio.StreamWriter] = {}

    def cut(self) -> bool:
        """One connection by chance; false when there is none."""
        if not self._clients:
            return False
        client = self._chance.choice(list(self._clients))
        for end in (client, self._clients.pop(client)):
            end.transport.abort()
        return True

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, to_there = await asyncio.open_connection(self._host, self._port)
        self._clients[writer] = to_there
        try:
            await asyncio.gather(passed(reader, to_there), passed(there, writer))
        finally:
            self._clients.pop(writer, None)
            for end in (writer, to_there):
                end.transport.abort()


async def passed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    # uvloop tells a transport that is gone by a RuntimeError.
    with suppress(ConnectionError, RuntimeError):
        while data := await reader.read(PIECE_BYTES):
            writer.write(data)
            await writer.drain()
        writer.write_eof()


@asynccontextmanager
async def relayed(url: str, chance: random.Random) -> AsyncIterator[tuple[Relay, str]]:
    """A relay to the service at `url`, and the address by which it is reached through it."""
    parts = urlsplit(url)
    relay = Relay(parts.hostname or "127.0.0.1", parts.port or 80, chance)
    server = await asyncio.start_server(relay.serve, "127.0.0.1", 0)
    try:
        yield relay, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        while relay.cut():
            pass
