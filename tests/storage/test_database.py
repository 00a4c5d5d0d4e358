from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from tests.storage.servers import connections_gone
from whisper_serve.errors import StorageUnavailable
from whisper_serve.storage.database import Database

ADD = text("INSERT INTO turns (caller, served_at) VALUES (:caller, 0)")
COUNT = text("SELECT COUNT(*) FROM turns")


async def count(database: Database) -> int:
    async with database.reading() as connection:
        return int((await connection.execute(COUNT)).scalar_one())


async def test_what_was_written_is_there(database: Database) -> None:
    async with database.writing() as connection:
        await connection.execute(ADD, {"caller": "ada"})
    assert await count(database) == 1


async def test_an_exception_takes_everything_back(database: Database) -> None:
    async def write() -> None:
        async with database.writing() as connection:
            await connection.execute(ADD, {"caller": "ada"})
            raise LookupError

    with pytest.raises(LookupError):
        await write()
    assert await count(database) == 0


async def test_a_cancelled_transaction_leaves_nothing_and_blocks_nobody(
    database: Database,
) -> None:
    written = asyncio.Event()

    async def write() -> None:
        async with database.writing() as connection:
            await connection.execute(ADD, {"caller": "ada"})
            written.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(write())
    await written.wait()
    task.cancel()
    await asyncio.wait([task])
    async with database.writing() as connection:
        await connection.execute(ADD, {"caller": "bob"})
    assert await count(database) == 1


async def test_a_broken_rule_is_told_from_a_broken_database(database: Database) -> None:
    async def write_twice() -> None:
        async with database.writing() as connection:
            await connection.execute(ADD, {"caller": "ada"})
            await connection.execute(ADD, {"caller": "ada"})

    with pytest.raises(IntegrityError):
        await write_twice()
    assert await count(database) == 0


async def test_many_writers_wait_for_each_other(place: str) -> None:
    databases = [Database(place) for _ in range(4)]

    async def write(number: int) -> None:
        async with databases[number % 4].writing() as connection:
            await connection.execute(ADD, {"caller": f"caller {number}"})

    # The first also make the tables, all at once.
    await asyncio.gather(*(write(number) for number in range(40)))
    assert await count(databases[0]) == 40
    for database in databases:
        await database.close()


async def test_many_may_open_a_new_file_at_once(tmp_path: Path) -> None:
    """SQLite does not let the others wait while one of them chooses the kind of journal."""
    for number in range(40):
        databases = [Database(str(tmp_path / f"{number}.sqlite3")) for _ in range(4)]
        await asyncio.gather(*(database.prepare() for database in databases))
        assert await count(databases[-1]) == 0
        for database in databases:
            await database.close()


async def test_readers_do_not_wait_for_a_writer(database: Database) -> None:
    async with database.writing() as connection:
        await connection.execute(ADD, {"caller": "ada"})
        assert await count(database) == 0


async def test_what_belongs_to_a_row_goes_with_it(database: Database) -> None:
    """SQLite looks after references only when it is told to."""

    async def write() -> None:
        async with database.writing() as connection:
            await connection.execute(text("INSERT INTO results VALUES ('nobody', '{}')"))

    with pytest.raises(IntegrityError):
        await write()


async def test_a_folder_that_is_not_there_is_no_database(tmp_path: Path) -> None:
    database = Database(str(tmp_path / "nowhere" / "jobs.sqlite3"))
    with pytest.raises(StorageUnavailable):
        await database.prepare()
    await database.close()
    await connections_gone()


async def test_a_file_that_is_something_else_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite3"
    path.write_bytes(b"a letter to my aunt " * 100)
    database = Database(str(path))
    with pytest.raises(StorageUnavailable):
        await database.prepare()
    await database.close()
    await connections_gone()
    assert path.read_bytes().startswith(b"a letter")


async def test_a_server_that_is_away_is_no_database_and_its_password_is_told_to_nobody() -> None:
    database = Database("postgresql://ada:secret@127.0.0.1:1/jobs")
    with pytest.raises(StorageUnavailable) as caught:
        await database.prepare()
    await database.close()
    assert "secret" not in f"{caught.value} {caught.value.detail}"


async def test_it_comes_back_with_its_server(tmp_path: Path) -> None:
    folder = tmp_path / "later"
    database = Database(str(folder / "jobs.sqlite3"))
    with pytest.raises(StorageUnavailable):
        await count(database)
    folder.mkdir()
    assert await count(database) == 0
    await database.close()
    await connections_gone()


def rights_in(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}


@pytest.mark.skipif(os.name == "nt", reason="there are no such rights on Windows")
async def test_nobody_else_on_the_machine_can_read_the_file(tmp_path: Path) -> None:
    database = Database(str(tmp_path / "jobs.sqlite3"))
    async with database.writing() as connection:
        await connection.execute(ADD, {"caller": "ada"})
        rights = rights_in(tmp_path)
    await database.close()
    assert set(rights) == {"jobs.sqlite3", "jobs.sqlite3-wal", "jobs.sqlite3-shm"}
    assert set(rights.values()) == {0o600}
