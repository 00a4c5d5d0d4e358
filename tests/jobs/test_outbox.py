from __future__ import annotations

import json

import pytest

from tests.jobs.orders import CONFIG, HOOK, submitted
from whisper_serve.errors import EngineFailed, JobConflict
from whisper_serve.jobs.job import Job
from whisper_serve.jobs.orders import Orders
from whisper_serve.jobs.outbox import HIDDEN_S, Outbox, Webhook
from whisper_serve.jobs.queue import JobQueue
from whisper_serve.storage.database import Database


@pytest.fixture
def orders(database: Database) -> Orders:
    return Orders(database, CONFIG)


@pytest.fixture
def queue(database: Database) -> JobQueue:
    return JobQueue(database, CONFIG)


@pytest.fixture
def outbox(database: Database) -> Outbox:
    return Outbox(database, CONFIG.model_copy(update={"webhook_attempts": 3}))


async def running(orders: Orders, queue: JobQueue) -> Job:
    await submitted(orders, webhook_url=HOOK)
    job = await queue.claim(0.0)
    assert job is not None
    return job


async def taken(outbox: Outbox, now: float) -> Webhook:
    webhook = await outbox.take(now)
    assert webhook is not None
    return webhook


async def test_the_end_of_a_job_is_told_as_it_is_shown(
    orders: Orders, queue: JobQueue, outbox: Outbox
) -> None:
    job = await running(orders, queue)
    assert await outbox.take(1.0) is None
    await queue.succeed(job, "{}", 2.5, duration=60.0)
    webhook = await taken(outbox, 2.5)
    told = json.loads(webhook.body)
    assert (webhook.url, webhook.attempts) == (HOOK, 1)
    assert (told["type"], told["timestamp"]) == ("job.succeeded", "1970-01-01T00:00:02.500Z")
    shown = (await orders.get(job.id, "ada")).shown()
    assert told["data"] == {**shown, "webhook": {**shown["webhook"], "attempts": 0}}


async def test_every_end_has_its_name(orders: Orders, queue: JobQueue, outbox: Outbox) -> None:
    await queue.fail(await running(orders, queue), EngineFailed("x"), 1.0)
    assert json.loads((await taken(outbox, 1.0)).body)["type"] == "job.failed"
    await orders.cancel((await running(orders, queue)).id, "ada", 2.0)
    assert json.loads((await taken(outbox, 2.0)).body)["type"] == "job.cancelled"


async def test_who_asked_for_no_webhook_gets_none(
    orders: Orders, queue: JobQueue, outbox: Outbox
) -> None:
    job = await submitted(orders)
    await orders.cancel(job.id, "ada", 1.0)
    assert await outbox.take(1.0) is None
    with pytest.raises(JobConflict):
        await orders.send_webhook(job.id, "ada", 1.0)


async def test_while_one_sends_it_nobody_else_does_unless_the_sender_dies(
    orders: Orders, queue: JobQueue, outbox: Outbox
) -> None:
    await queue.succeed(await running(orders, queue), "{}", 1.0)
    first = await taken(outbox, 1.0)
    assert await outbox.take(HIDDEN_S) is None
    second = await taken(outbox, 1.0 + HIDDEN_S)
    assert (second.id, second.body, second.attempts) == (first.id, first.body, 2)
    # The first was only slow. What it says late changes nothing.
    await outbox.not_sent(first, 0.0)
    assert await outbox.take(2.0 + HIDDEN_S) is None
    await outbox.sent(second)
    assert await outbox.take(1e9) is None


async def test_what_arrived_is_not_sent_again(
    orders: Orders, queue: JobQueue, outbox: Outbox
) -> None:
    job = await running(orders, queue)
    await queue.succeed(job, "{}", 1.0)
    await outbox.sent(await taken(outbox, 1.0))
    assert await outbox.take(1e9) is None
    assert (await orders.get(job.id, "ada")).shown()["webhook"] == {
        "url": HOOK,
        "status": "sent",
        "attempts": 1,
    }


async def test_after_the_last_attempt_it_waits_for_somebody_to_ask(
    orders: Orders, queue: JobQueue, outbox: Outbox
) -> None:
    job = await running(orders, queue)
    await queue.succeed(job, "{}", 1.0)
    for attempt in (1, 2, 3):
        webhook = await taken(outbox, 1.0)
        assert webhook.attempts == attempt
        assert await outbox.not_sent(webhook, 1.0) is (attempt < 3)
    assert await outbox.take(1e9) is None
    shown = (await orders.get(job.id, "ada")).shown()["webhook"]
    assert (shown["status"], shown["attempts"]) == ("failed", 3)
    again = (await orders.send_webhook(job.id, "ada", 2.0)).shown()["webhook"]
    assert (again["status"], again["attempts"]) == ("pending", 0)
    assert (await taken(outbox, 2.0)).id == webhook.id


async def test_each_end_of_a_job_is_told_also_when_it_failed_before(
    orders: Orders, queue: JobQueue, outbox: Outbox
) -> None:
    job = await running(orders, queue)
    await queue.fail(job, EngineFailed("x"), 1.0)
    await orders.redrive(job.id, "ada", 2.0)
    again = await queue.claim(2.0)
    assert again is not None
    await queue.succeed(again, "{}", 3.0)
    webhooks = [await taken(outbox, 4.0), await taken(outbox, 4.0)]
    assert [json.loads(webhook.body)["type"] for webhook in webhooks] == [
        "job.failed",
        "job.succeeded",
    ]
    assert webhooks[0].id != webhooks[1].id


async def test_one_that_is_not_ours_any_more_tells_nothing(
    orders: Orders, queue: JobQueue, outbox: Outbox
) -> None:
    dead = await running(orders, queue)
    assert await queue.claim(CONFIG.lease_s + 1) is not None
    await queue.succeed(dead, "{}", CONFIG.lease_s + 2)
    assert await outbox.take(1e9) is None
