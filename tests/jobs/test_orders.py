from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator

import pytest

from tests.jobs.orders import AUDIO, CONFIG, HOOK, order, submitted
from whisper_serve.errors import (
    EngineFailed,
    IdempotencyMismatch,
    JobConflict,
    JobNotFinished,
    JobNotFound,
    Overloaded,
)
from whisper_serve.jobs.job import Job
from whisper_serve.jobs.orders import PART_BYTES, PARTS_AT_ONCE, Orders
from whisper_serve.jobs.queue import JobQueue
from whisper_serve.storage.database import Database


@pytest.fixture
def orders(database: Database) -> Orders:
    return Orders(database, CONFIG)


@pytest.fixture
def queue(database: Database) -> JobQueue:
    return JobQueue(database, CONFIG)


async def audio_of(queue: JobQueue, job: Job) -> AsyncIterator[bytes]:
    part = 0
    while (data := await queue.audio(job, part)) is not None:
        yield data
        part += 1


async def claimed(queue: JobQueue, now: float = 0.0) -> Job:
    job = await queue.claim(now)
    assert job is not None
    return job


# Giving one in


async def test_a_job_is_queued_as_it_was_ordered(orders: Orders) -> None:
    job = await submitted(
        orders, now=7.5, parameters={"language": "de"}, webhook_url=HOOK, request_id="r9"
    )
    assert await orders.get(job.id, "ada") == job
    assert (job.caller, job.status, job.request_id) == ("ada", "queued", "r9")
    assert (job.created_at, job.started_at, job.finished_at) == (7.5, None, None)
    assert job.shown() == {
        "id": job.id,
        "status": "queued",
        "progress": 0.0,
        "duration": None,
        "created_at": 7.5,
        "started_at": None,
        "finished_at": None,
        "attempts": 0,
        "error": None,
        "webhook": {"url": HOOK, "status": "pending", "attempts": 0},
        "parameters": {"language": "de"},
        "url": None,
    }


async def test_long_audio_is_kept_in_parts_and_comes_out_as_it_went_in(
    orders: Orders, queue: JobQueue
) -> None:
    audio = bytes(range(251)) * (PART_BYTES * (PARTS_AT_ONCE + 2) // 251)
    job = await submitted(orders, audio=audio)
    parts = [part async for part in audio_of(queue, job)]
    assert b"".join(parts) == audio
    assert {len(part) for part in parts[:-1]} == {PART_BYTES}


async def test_a_job_by_url_has_no_audio_yet(orders: Orders, queue: JobQueue) -> None:
    url = "https://media.example.com/a.mp3"
    job = await orders.submit(order(url=url), None, 0, 0.0)
    assert job.url == url
    assert await queue.audio(job, 0) is None


async def test_an_order_that_is_given_up_leaves_nothing(database: Database) -> None:
    class Endless(io.BytesIO):
        """Its second reading, the one that is stored, breaks off."""

        def seek(self, *args: int) -> int:
            self.readings = getattr(self, "readings", 0) + 1
            return super().seek(*args)

        def read(self, size: int | None = -1) -> bytes:
            if getattr(self, "readings", 0) > 1:
                raise OSError("the disk is full")
            return super().read(size)

    orders = Orders(database, CONFIG)
    with pytest.raises(OSError, match="disk"):
        await orders.submit(order(), Endless(AUDIO), len(AUDIO), 0.0)
    assert await orders.list("ada") == []
    await Orders(database, CONFIG.model_copy(update={"max_queued": 1})).require_room()


async def test_a_full_queue_takes_no_more(database: Database) -> None:
    orders = Orders(database, CONFIG.model_copy(update={"max_queued": 2}))
    for _ in range(2):
        await orders.require_room()
        await submitted(orders)
    with pytest.raises(Overloaded):
        await orders.require_room()
    await claimed(JobQueue(database, CONFIG))
    await orders.require_room()


async def test_a_full_store_takes_no_more(database: Database) -> None:
    orders = Orders(database, CONFIG.model_copy(update={"max_stored_bytes": len(AUDIO)}))
    await orders.require_room()
    job = await submitted(orders)
    with pytest.raises(Overloaded):
        await orders.require_room()
    await orders.delete(job.id, "ada")
    await orders.require_room()


# The same again


async def test_the_same_key_gives_the_same_job(orders: Orders) -> None:
    first = await submitted(orders, idempotency_key="k1")
    assert await submitted(orders, idempotency_key="k1", now=5.0) == first
    assert await submitted(orders, idempotency_key="k2") != first
    assert await submitted(orders, caller="bob", idempotency_key="k1") != first
    assert len(await orders.list("ada")) == 2


async def test_the_same_key_for_something_else_is_refused(orders: Orders) -> None:
    await submitted(orders, idempotency_key="k1")
    with pytest.raises(IdempotencyMismatch):
        await submitted(orders, idempotency_key="k1", audio=b"else")
    with pytest.raises(IdempotencyMismatch):
        await submitted(orders, idempotency_key="k1", parameters={"language": "de"})
    with pytest.raises(IdempotencyMismatch):
        await submitted(orders, idempotency_key="k1", webhook_url=HOOK)


async def test_the_same_key_at_the_same_time_makes_one_job(orders: Orders) -> None:
    jobs = await asyncio.gather(*(submitted(orders, idempotency_key="k1") for _ in range(6)))
    assert len({job.id for job in jobs}) == 1
    assert len(await orders.list(None)) == 1


async def test_a_key_ends_with_its_job(orders: Orders) -> None:
    first = await submitted(orders, idempotency_key="k1")
    await orders.delete(first.id, "ada")
    assert (await submitted(orders, idempotency_key="k1", audio=b"else")).id != first.id


# Looking


async def test_nobody_finds_the_jobs_of_others(orders: Orders) -> None:
    job = await submitted(orders, caller="ada")
    assert await orders.get(job.id, None) == job
    for ask in (orders.get, orders.result, orders.delete):
        with pytest.raises(JobNotFound):
            await ask(job.id, "bob")
    for act in (orders.cancel, orders.redrive, orders.send_webhook):
        with pytest.raises(JobNotFound):
            await act(job.id, "bob", 0.0)
    assert await orders.list("bob") == []
    assert await orders.get(job.id, "ada") == job


async def test_jobs_are_listed_by_page_and_the_newest_first(
    orders: Orders, queue: JobQueue
) -> None:
    ids = [(await submitted(orders, now=float(n))).id for n in range(5)]
    await submitted(orders, caller="bob", now=9.0)
    page = await orders.list("ada", limit=2)
    assert [job.id for job in page] == ids[:2:-1]
    assert [job.id for job in await orders.list("ada", limit=9, after=page[-1].id)] == ids[2::-1]
    assert len(await orders.list(None)) == 6
    running = await claimed(queue, 10.0)
    assert await orders.list(None, status="running") == [running]
    assert len(await orders.list("ada", status="queued")) == 4


async def test_a_page_goes_on_behind_a_job_that_was_deleted_meanwhile(orders: Orders) -> None:
    ids = [(await submitted(orders, now=float(n))).id for n in range(3)]
    await orders.delete(ids[1], "ada")
    assert [job.id for job in await orders.list("ada", after=ids[1])] == [ids[0]]


# The result


async def test_the_result_is_there_when_the_job_succeeded(orders: Orders, queue: JobQueue) -> None:
    job = await submitted(orders)
    with pytest.raises(JobNotFinished):
        await orders.result(job.id, "ada")
    running = await claimed(queue)
    with pytest.raises(JobNotFinished):
        await orders.result(job.id, "ada")
    assert await queue.succeed(running, '{"text": "grüße"}', 3.0)
    done, transcript = await orders.result(job.id, "ada")
    assert transcript == '{"text": "grüße"}'
    assert (done.status, done.progress, done.finished_at) == ("succeeded", 1.0, 3.0)
    assert await queue.audio(done, 0) is None


async def test_a_job_that_failed_has_no_result(orders: Orders, queue: JobQueue) -> None:
    job = await submitted(orders)
    await queue.fail(await claimed(queue), EngineFailed("broken"), 3.0)
    with pytest.raises(JobConflict, match="has failed"):
        await orders.result(job.id, "ada")
    shown = (await orders.get(job.id, "ada")).shown()
    assert shown["error"] == {
        "code": "engine_failed",
        "message": "the transcription failed inside the engine",
    }


# Changing one's mind


async def test_a_job_that_waits_can_be_cancelled(orders: Orders, queue: JobQueue) -> None:
    job = await submitted(orders)
    cancelled = await orders.cancel(job.id, "ada", 2.0)
    assert (cancelled.status, cancelled.finished_at) == ("cancelled", 2.0)
    assert await orders.cancel(job.id, "ada", 5.0) == cancelled
    assert await queue.claim(9.0) is None
    assert await queue.audio(job, 0) is None


async def test_who_works_on_a_cancelled_job_finds_out_and_writes_nothing(
    orders: Orders, queue: JobQueue
) -> None:
    job = await submitted(orders)
    running = await claimed(queue)
    await orders.cancel(job.id, "ada", 2.0)
    assert not await queue.renew(running, 0.5, 60.0, 3.0)
    assert not await queue.succeed(running, "{}", 3.0)
    assert not await queue.fail(running, EngineFailed("x"), 3.0)
    assert not await queue.put_back(running, 3.0, counts=True)
    assert (await orders.get(job.id, "ada")).status == "cancelled"


async def test_what_is_over_cannot_be_cancelled(orders: Orders, queue: JobQueue) -> None:
    job = await submitted(orders)
    await queue.succeed(await claimed(queue), "{}", 1.0)
    with pytest.raises(JobConflict, match="has succeeded"):
        await orders.cancel(job.id, "ada", 2.0)


async def test_a_deleted_job_is_gone_whatever_it_was_at(orders: Orders, queue: JobQueue) -> None:
    waiting, running = await submitted(orders), await submitted(orders)
    claim = await claimed(queue)
    for job in (waiting, running):
        await orders.delete(job.id, "ada")
        with pytest.raises(JobNotFound):
            await orders.get(job.id, "ada")
        assert await queue.audio(job, 0) is None
    assert not await queue.renew(claim, 0.5, None, 1.0)
    assert not await queue.succeed(claim, "{}", 1.0)


async def test_a_dead_letter_is_queued_again_with_its_audio(
    orders: Orders, queue: JobQueue
) -> None:
    job = await submitted(orders)
    await queue.fail(await claimed(queue), EngineFailed("x"), 1.0)
    again = await orders.redrive(job.id, "ada", 50.0)
    assert (again.status, again.attempts, again.error_code) == ("queued", 0, None)
    assert (again.started_at, again.finished_at, again.queued_at) == (None, None, 50.0)
    running = await claimed(queue, 51.0)
    assert b"".join([part async for part in audio_of(queue, running)]) == AUDIO
    assert await queue.succeed(running, "{}", 52.0)


@pytest.mark.parametrize("how", ["queued", "running", "succeeded", "cancelled"])
async def test_nothing_but_a_dead_letter_is_queued_again(
    orders: Orders, queue: JobQueue, how: str
) -> None:
    job = await submitted(orders)
    if how in {"running", "succeeded"}:
        running = await claimed(queue)
        if how == "succeeded":
            await queue.succeed(running, "{}", 1.0)
    elif how == "cancelled":
        await orders.cancel(job.id, "ada", 1.0)
    with pytest.raises(JobConflict):
        await orders.redrive(job.id, "ada", 2.0)
    assert (await orders.get(job.id, "ada")).status == how
