"""Connections and transactions: the same for an SQLite file and a PostgreSQL server.

SQLite: its journal is a write-ahead log, so that readers and the one writer do not wait for
each other; a commit is on the disk before it returns (`synchronous` is FULL); and a writing
transaction takes the lock when it begins (`BEGIN IMMEDIATE`), since one that asks for it later
is refused without waiting when another one wrote meanwhile.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
from sqlalchemy import event, text
from sqlalchemy.engine import URL, Connection
from sqlalchemy.exc import DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from whisper_serve.errors import StorageUnavailable
from whisper_serve.storage.schema import migrate

RETRY_AFTER_S = 5.0
# A writer of a few milliseconds is waited for; one that holds the lock so long hangs.
BUSY_TIMEOUT_S = 10.0
CONNECT_TIMEOUT_S = 10.0
COMMAND_TIMEOUT_S = 60.0
CONNECTIONS = 8
PRAGMAS = ("synchronous = FULL", "foreign_keys = ON")
# How soon one asks again that lost the race for a new file.
LOCKED_AGAIN_S = 0.02
BEGIN = "sqlite_begin"
# What the libraries raise when the database is away, full, or refuses us.
FAULTS = (
    DBAPIError,
    PoolTimeout,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncio.TimeoutError,
    OSError,
    sqlite3.Error,
)
# Of PostgreSQL's advisory locks: whoever holds it may change the tables.
MIGRATION_LOCK = 0x776869737065


class Database:
    """The tables of `schema.py` at `place`, a path or `postgresql://...`, which are made or
    brought up to date when they are first asked for."""

    def __init__(self, place: str) -> None:
        self.is_sqlite = "://" not in place
        self._file = Path(place) if self.is_sqlite else None
        self._engine = _sqlite(place) if self.is_sqlite else _postgresql(place)
        self._writer = self._engine.execution_options(**{BEGIN: "BEGIN IMMEDIATE"})
        self._preparing = asyncio.Lock()
        self._is_prepared = False

    async def prepare(self) -> None:
        """Raises `StorageUnavailable`, or `ConfigError` for tables of a newer program."""
        async with self._preparing:
            if self._is_prepared:
                return
            with _translated():
                if self._file is not None:
                    await asyncio.to_thread(_write_ahead, self._file)
                async with self._writer.begin() as connection:
                    if not self.is_sqlite:
                        lock = text("SELECT pg_advisory_xact_lock(:key)")
                        await connection.execute(lock, {"key": MIGRATION_LOCK})
                    await migrate(connection)
            self._is_prepared = True

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """A transaction, committed at the end and rolled back by an exception.

        Raises `StorageUnavailable`; what breaks a rule of the tables stays SQLAlchemy's
        `IntegrityError`.
        """
        await self.prepare()
        with _translated():
            async with self._writer.begin() as connection:
                yield connection

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that only reads. Raises `StorageUnavailable`."""
        await self.prepare()
        with _translated():
            async with self._engine.connect() as connection:
                yield connection

    @property
    def skip_locked(self) -> str:
        """Behind a SELECT of rows to be claimed: others claim other rows meanwhile. SQLite has
        one writer at a time and needs nothing."""
        return "" if self.is_sqlite else "FOR UPDATE OF j SKIP LOCKED"

    async def close(self) -> None:
        await self._engine.dispose()


def make_private(file: Path) -> None:
    """Make a file that only its owner can read, unless it is there; what is wrong with its place
    is told by whoever opens it. SQLite gives its journals the same rights."""
    with suppress(OSError):
        os.close(os.open(file, os.O_CREAT | os.O_RDWR, 0o600))


def _write_ahead(file: Path) -> None:
    """Make the file, if need be, and have it keep its journal as a write-ahead log, which it
    remembers. SQLite refuses at once, without waiting, when others do the same meanwhile.

    Raises `sqlite3.Error`.
    """
    make_private(file)
    give_up_at = time.monotonic() + BUSY_TIMEOUT_S
    with closing(sqlite3.connect(file, timeout=BUSY_TIMEOUT_S)) as connection:
        while not _keeps_write_ahead_log(connection, is_last=time.monotonic() > give_up_at):
            time.sleep(LOCKED_AGAIN_S)


def _keeps_write_ahead_log(connection: sqlite3.Connection, *, is_last: bool) -> bool:
    """Not while others hold the file; an exception when this was the last attempt."""
    try:
        connection.execute("PRAGMA journal_mode = WAL")
    except sqlite3.OperationalError as exc:
        if is_last or "locked" not in str(exc):
            raise
        return False
    return True


def _sqlite(path: str) -> AsyncEngine:
    engine = create_async_engine(
        URL.create("sqlite+aiosqlite", database=path),
        connect_args={"timeout": BUSY_TIMEOUT_S},
        pool_size=CONNECTIONS,
        max_overflow=0,
    )
    event.listen(engine.sync_engine, "connect", _on_connect)
    event.listen(engine.sync_engine, "begin", _on_begin)
    return engine


def _on_connect(connection: Any, _record: object) -> None:
    # The driver begins no transactions by itself; `_on_begin` does.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in PRAGMAS:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _on_begin(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get(BEGIN, "BEGIN"))


def _postgresql(url: str) -> AsyncEngine:
    """The driver reads the URL itself, with all that PostgreSQL's own programs know in it."""
    connect = partial(
        asyncpg.connect, url, timeout=CONNECT_TIMEOUT_S, command_timeout=COMMAND_TIMEOUT_S
    )
    return create_async_engine(
        "postgresql+asyncpg://",
        async_creator=connect,
        pool_size=CONNECTIONS,
        max_overflow=0,
        pool_pre_ping=True,
    )


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (IntegrityError, ProgrammingError):  # not the database's fault
        raise
    except FAULTS as exc:
        raise StorageUnavailable(str(exc), RETRY_AFTER_S) from exc
