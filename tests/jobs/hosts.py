"""Hosts elsewhere, which are all on this machine: a little HTTP server that says what it is told
to, and a network in which 127.0.0.2 counts as public and names mean what the tests want."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_address

from whisper_serve.jobs.urls import Address, CheckedNetwork, is_public

PUBLIC = "127.0.0.2"
NAMES = {
    "hooks.example.com": [PUBLIC],
    "media.example.com": [PUBLIC],
    "inner.example.com": ["127.0.0.1"],
    "both.example.com": [PUBLIC, "10.0.0.1"],
    "metadata.example.com": ["169.254.169.254"],
    "nobody.example.com": [],
}


@dataclass(frozen=True)
class Reply:
    """One answer; without a `status` the connection is closed instead. `length` is announced
    whatever the body has."""

    status: int | None = 200
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    length: int | None = -1


@dataclass(frozen=True)
class Heard:
    """One request that came."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


@asynccontextmanager
async def serving(
    replies: Sequence[Reply], *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[int, list[Heard]]]:
    """The port of a server at `PUBLIC` and what it hears; it gives its answers in turn."""
    heard: list[Heard] = []
    answers = iter(replies)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            heard.append(await _read(reader))
            await _answer(next(answers), writer)
        except (ConnectionError, asyncio.IncompleteReadError, StopIteration):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, PUBLIC, 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1], heard
    finally:
        server.close()
        await server.wait_closed()


async def _read(reader: asyncio.StreamReader) -> Heard:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.rstrip().split("\r\n")
    method, target, _ = first.split(" ")
    pairs = (line.split(": ", 1) for line in lines)
    headers = {name.lower(): value for name, value in pairs}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Heard(method, target, headers, body)


async def _answer(reply: Reply, writer: asyncio.StreamWriter) -> None:
    if reply.status is None:
        return
    length = len(reply.body) if reply.length == -1 else reply.length
    lines = [f"HTTP/1.1 {reply.status} So"]
    lines += [f"{name}: {value}" for name, value in reply.headers]
    lines += [] if length is None else [f"Content-Length: {length}"]
    head = "\r\n".join([*lines, "Connection: close", "", ""])
    writer.write(head.encode("latin-1") + reply.body)
    await writer.drain()


async def look_up(host: str, port: int) -> Sequence[Address]:
    """As `NAMES` says; addresses mean themselves."""
    if host in NAMES:
        return [ip_address(address) for address in NAMES[host]]
    try:
        return [ip_address(host.strip("[]"))]
    except ValueError as exc:
        raise OSError(f"{host} has no address") from exc


def is_public_here(address: Address) -> bool:
    return str(address) == PUBLIC or is_public(address)


def elsewhere() -> CheckedNetwork:
    return CheckedNetwork(look_up, is_public_here)
