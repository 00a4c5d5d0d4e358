"""TLS before a server that has none, with a certificate that nobody has signed."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

PIECE = 64 * 1024
WAIT_S = 10.0


def certificate(folder: Path, host: str = "127.0.0.1") -> tuple[Path, Path]:
    """A certificate for `host` and its key, made as an operator would."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl here to make a certificate with")
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    names = [
        "-subj",
        "/CN=test",
        "-addext",
        f"subjectAltName=IP:{host}",
        "-out",
        str(cert),
        "-keyout",
        str(key),
    ]
    subprocess.run([*command, *names], check=True, capture_output=True, timeout=60)
    return cert, key


@contextmanager
def encrypted(port: int, cert: Path, key: Path) -> Iterator[int]:
    """A port that speaks TLS and relays to `port`, in a thread of its own."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event, int]] = Future()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there = await asyncio.open_connection("127.0.0.1", port)
        copies = [_copy(reader, there), _copy(there_reader, writer)]
        tasks = [asyncio.ensure_future(copy) for copy in copies]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.sleep(0)
        for end in (there, writer):
            end.close()
        await asyncio.wait(tasks)

    async def live() -> None:
        over = asyncio.Event()
        server = await asyncio.start_server(relay, "127.0.0.1", 0, ssl=context)
        number = server.sockets[0].getsockname()[1]
        started.set_result((asyncio.get_running_loop(), over, number))
        await over.wait()
        server.close()

    thread = threading.Thread(target=lambda: asyncio.run(live()))
    thread.start()
    loop, over, number = started.result(WAIT_S)
    try:
        yield number
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(WAIT_S)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):  # which an SSLError is too
        while data := await reader.read(PIECE):
            writer.write(data)
            await writer.drain()
