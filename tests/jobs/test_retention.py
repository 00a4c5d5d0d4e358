from __future__ import annotations

import pytest
from sqlalchemy import text

from tests.jobs.orders import CONFIG, HOOK, submitted
from whisper_serve.errors import JobNotFound
from whisper_serve.jobs.orders import Orders
from whisper_serve.jobs.queue import JobQueue
from whisper_serve.jobs.retention import KEEP_USAGE_DAYS, LONGEST_UPLOAD_S, sweep
from whisper_serve.storage.database import Database
from whisper_serve.storage.usage import UsageTable

DAY_S = 86400.0
KEPT_S = CONFIG.keep_results_s
TABLES = ("jobs", "job_audio", "results", "webhooks", "turns")


async def rows_of(database: Database) -> int:
    async with database.reading() as connection:
        counts = [
            (await connection.execute(text(f"SELECT COUNT(*) FROM {table}"))).scalar_one()  # noqa: S608
            for table in TABLES
        ]
    return sum(counts)


async def test_a_job_goes_with_all_that_belongs_to_it_when_its_time_is_over(
    database: Database,
) -> None:
    orders, queue = Orders(database, CONFIG), JobQueue(database, CONFIG)
    job = await submitted(orders, webhook_url=HOOK)
    running = await queue.claim(0.0)
    assert running is not None
    await queue.succeed(running, "{}", 10.0)
    assert await sweep(database, CONFIG, 10.0 + KEPT_S) == 0
    assert (await orders.result(job.id, "ada"))[1] == "{}"
    assert await sweep(database, CONFIG, 11.0 + KEPT_S) == 1
    assert await rows_of(database) == 0


async def test_what_is_not_over_is_kept_however_old_it_is(database: Database) -> None:
    orders, queue = Orders(database, CONFIG), JobQueue(database, CONFIG)
    jobs = [await submitted(orders), await submitted(orders)]
    await queue.claim(0.0)
    assert await sweep(database, CONFIG, 100 * KEPT_S) == 0
    for job in jobs:
        await orders.get(job.id, "ada")


async def test_an_upload_that_broke_off_is_not_kept(database: Database) -> None:
    orders = Orders(database, CONFIG)
    job = await submitted(orders)
    async with database.writing() as connection:
        await connection.execute(text("UPDATE jobs SET status = 'receiving'"))
    with pytest.raises(JobNotFound):
        await orders.get(job.id, None)
    assert await sweep(database, CONFIG, LONGEST_UPLOAD_S - 1) == 0
    assert await sweep(database, CONFIG, LONGEST_UPLOAD_S + 1) == 1
    assert await rows_of(database) == 0


async def test_days_long_gone_are_forgotten(database: Database) -> None:
    usage = UsageTable(database)
    await usage.add("ada", "1970-01-02", 5.0)
    await sweep(database, CONFIG, KEEP_USAGE_DAYS * DAY_S)
    assert await usage.add("ada", "1970-01-02", 0.0) == 5.0
    await sweep(database, CONFIG, (KEEP_USAGE_DAYS + 2) * DAY_S)
    assert await usage.add("ada", "1970-01-02", 0.0) == 0.0
