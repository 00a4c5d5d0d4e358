from __future__ import annotations

import asyncio

from whisper_serve.storage.database import Database
from whisper_serve.storage.usage import UsageTable


async def test_seconds_add_up_by_key_and_day(database: Database) -> None:
    usage = UsageTable(database)
    assert await usage.add("ada", "2026-03-01", 1.5) == 1.5
    assert await usage.add("ada", "2026-03-01", 2) == 3.5
    assert await usage.add("ada", "2026-03-02", 4.0) == 4.0
    assert await usage.add("bob", "2026-03-01", 8.0) == 8.0


async def test_what_was_taken_by_mistake_is_given_back(database: Database) -> None:
    usage = UsageTable(database)
    await usage.add("ada", "2026-03-01", 10.0)
    assert await usage.add("ada", "2026-03-01", -4.0) == 6.0


async def test_nothing_is_lost_when_many_add_at_once(database: Database) -> None:
    usage = UsageTable(database)
    totals = await asyncio.gather(*(usage.add("ada", "2026-03-01", 1.0) for _ in range(40)))
    assert sorted(totals) == [float(n) for n in range(1, 41)]


async def test_another_process_sees_it(place: str, database: Database) -> None:
    await UsageTable(database).add("ada", "2026-03-01", 1.0)
    other = Database(place)
    assert await UsageTable(other).add("ada", "2026-03-01", 1.0) == 2.0
    await other.close()
