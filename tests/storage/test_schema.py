from __future__ import annotations

import pytest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from whisper_serve.errors import ConfigError, StorageUnavailable
from whisper_serve.storage import schema
from whisper_serve.storage.database import Database

VERSION = text("SELECT version FROM schema_version")


async def version_of(database: Database) -> int:
    async with database.reading() as connection:
        return int((await connection.execute(VERSION)).scalar_one())


async def test_an_empty_database_gets_the_newest_tables(database: Database) -> None:
    await database.prepare()
    assert await version_of(database) == len(schema.STEPS)


async def test_a_newer_program_adds_its_steps_and_keeps_what_is_there(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = Database(place)
    async with old.writing() as connection:
        await connection.execute(text("INSERT INTO turns VALUES ('ada', 1)"))
    await old.close()
    monkeypatch.setattr(schema, "STEPS", (*schema.STEPS, ("ALTER TABLE turns ADD COLUMN x TEXT",)))
    new = Database(place)
    async with new.reading() as connection:
        row = (await connection.execute(text("SELECT * FROM turns"))).one()
    assert tuple(row) == ("ada", 1.0, None)
    assert await version_of(new) == len(schema.STEPS)
    await new.close()


async def test_an_older_program_keeps_its_hands_off(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as later:
        later.setattr(schema, "STEPS", (*schema.STEPS, ("ALTER TABLE turns ADD COLUMN x TEXT",)))
        new = Database(place)
        await new.prepare()
        await new.close()
    old = Database(place)
    with pytest.raises(ConfigError, match=r"jobs\.database: .*version 2.* knows 1"):
        await old.prepare()
    await old.close()


async def test_a_step_that_fails_changes_nothing(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Database(place)
    await first.prepare()
    await first.close()
    broken = ("CREATE TABLE half (x TEXT)", "CREATE TABLE half (x TEXT)")
    with monkeypatch.context() as later:
        later.setattr(schema, "STEPS", (*schema.STEPS, broken))
        second = Database(place)
        with pytest.raises((StorageUnavailable, ProgrammingError)):
            await second.prepare()
        await second.close()
    third = Database(place)
    assert await version_of(third) == len(schema.STEPS)
    await third.close()
