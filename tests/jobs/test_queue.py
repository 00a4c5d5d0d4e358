from __future__ import annotations

import asyncio

import pytest

from tests.jobs.orders import CONFIG, submitted
from whisper_serve.errors import EngineFailed
from whisper_serve.jobs.job import Job
from whisper_serve.jobs.orders import Orders
from whisper_serve.jobs.queue import JobQueue
from whisper_serve.storage.database import Database

LEASE_S = CONFIG.lease_s


@pytest.fixture
def orders(database: Database) -> Orders:
    return Orders(database, CONFIG)


@pytest.fixture
def queue(database: Database) -> JobQueue:
    return JobQueue(database, CONFIG)


async def claimed(queue: JobQueue, now: float = 0.0) -> Job:
    job = await queue.claim(now)
    assert job is not None
    return job


async def test_there_is_nothing_to_do_in_an_empty_queue(queue: JobQueue) -> None:
    assert await queue.claim(0.0) is None


async def test_a_claimed_job_is_nobody_else_s(orders: Orders, queue: JobQueue) -> None:
    job = await submitted(orders)
    running = await claimed(queue, 5.0)
    assert (running.id, running.status, running.attempts) == (job.id, "running", 1)
    assert running.started_at == 5.0
    assert await queue.claim(5.0) is None


async def test_many_who_claim_at_once_get_different_jobs(place: str, orders: Orders) -> None:
    for _ in range(12):
        await submitted(orders)
    databases = [Database(place) for _ in range(3)]
    queues = [JobQueue(database, CONFIG) for database in databases]
    jobs = await asyncio.gather(*(queues[n % 3].claim(0.0) for n in range(15)))
    ids = [job.id for job in jobs if job]
    # Those who look at the same row at the same time may pass by it; nobody gets it twice.
    while (late := await queues[0].claim(0.0)) is not None:
        ids.append(late.id)
    assert len(ids) == len(set(ids)) == 12
    for database in databases:
        await database.close()


async def test_callers_come_in_turn_and_each_one_s_oldest_first(
    orders: Orders, queue: JobQueue
) -> None:
    first = [await submitted(orders, "ada", now=float(n)) for n in range(4)]
    others = [await submitted(orders, "bob", now=10.0), await submitted(orders, "cyd", now=11.0)]
    begun = [await claimed(queue, 20.0 + n) for n in range(6)]
    expected = [first[0], others[0], others[1], first[1], first[2], first[3]]
    assert [job.id for job in begun] == [job.id for job in expected]


async def test_a_lease_that_is_renewed_does_not_end(orders: Orders, queue: JobQueue) -> None:
    await submitted(orders)
    running = await claimed(queue)
    assert await queue.renew(running, 0.25, 80.0, LEASE_S - 1)
    assert await queue.claim(LEASE_S + 1) is None
    shown = await orders.get(running.id, "ada")
    assert (shown.progress, shown.duration) == (0.25, 80.0)
    assert await queue.renew(running, 0.5, None, LEASE_S + 2)
    assert (await orders.get(running.id, "ada")).duration == 80.0


async def test_when_a_lease_ends_the_job_is_somebody_else_s_and_the_first_writes_nothing(
    orders: Orders, queue: JobQueue
) -> None:
    await submitted(orders)
    dead = await claimed(queue)
    alive = await claimed(queue, LEASE_S + 1)
    assert (alive.id, alive.attempts) == (dead.id, 2)
    assert not await queue.renew(dead, 0.9, None, LEASE_S + 2)
    assert not await queue.succeed(dead, '"first"', LEASE_S + 2)
    assert await queue.succeed(alive, '"second"', LEASE_S + 3)
    assert (await orders.result(dead.id, "ada"))[1] == '"second"'


async def test_one_that_was_away_too_long_is_fenced_though_the_attempt_has_the_same_number(
    orders: Orders, queue: JobQueue
) -> None:
    await submitted(orders)
    dead = await claimed(queue)
    between = await claimed(queue, LEASE_S + 1)
    await queue.put_back(between, LEASE_S + 2, counts=False)
    await queue.claim(LEASE_S + 3)
    for late in (dead, between):
        assert not await queue.succeed(late, "{}", LEASE_S + 4)


async def test_a_job_that_always_takes_its_process_with_it_becomes_a_dead_letter(
    orders: Orders, queue: JobQueue
) -> None:
    job = await submitted(orders)
    now = 0.0
    for attempt in range(1, CONFIG.max_attempts + 1):
        assert (await claimed(queue, now)).attempts == attempt
        now += LEASE_S + 1
    assert await queue.claim(now) is None
    dead = await orders.get(job.id, "ada")
    assert (dead.status, dead.error_code, dead.finished_at) == ("failed", "job_abandoned", now)
    assert await queue.audio(dead, 0) is not None


async def test_what_is_put_back_comes_when_it_is_due(orders: Orders, queue: JobQueue) -> None:
    await submitted(orders)
    await queue.put_back(await claimed(queue), 60.0, counts=True)
    assert await queue.claim(59.0) is None
    assert (await claimed(queue, 60.0)).attempts == 2


async def test_what_was_no_fault_of_the_job_s_does_not_count(
    orders: Orders, queue: JobQueue
) -> None:
    await submitted(orders)
    for _ in range(10):
        job = await claimed(queue)
        assert job.attempts == 1
        await queue.put_back(job, 0.0, counts=False)
    assert (await claimed(queue)).claims == 11


async def test_progress_begins_anew_with_each_attempt(orders: Orders, queue: JobQueue) -> None:
    await submitted(orders)
    running = await claimed(queue)
    await queue.renew(running, 0.7, 10.0, 1.0)
    await queue.put_back(running, 2.0, counts=True)
    assert (await orders.get(running.id, "ada")).progress == 0.0
    assert (await claimed(queue, 2.0)).progress == 0.0


async def test_what_was_charged_is_remembered(orders: Orders, queue: JobQueue) -> None:
    await submitted(orders)
    running = await claimed(queue)
    assert await queue.charged(running, 33.5)
    await queue.put_back(running, 2.0, counts=True)
    assert (await claimed(queue, 2.0)).charged_s == 33.5


async def test_a_failure_is_told_without_our_internals(orders: Orders, queue: JobQueue) -> None:
    await submitted(orders)
    running = await claimed(queue)
    assert await queue.fail(running, EngineFailed("CUDA error at 0x7f"), 1.0)
    assert "CUDA" not in str((await orders.get(running.id, "ada")).shown())
