from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import pytest
from standardwebhooks import Webhook as Verifier
from standardwebhooks import WebhookVerificationError

from tests.jobs.hosts import Heard, Reply, elsewhere, serving
from tests.jobs.orders import CONFIG, submitted
from whisper_serve.client.webhooks import verify_webhook
from whisper_serve.config import JobsConfig
from whisper_serve.jobs.orders import Orders
from whisper_serve.jobs.outbox import Outbox
from whisper_serve.jobs.urls import Outside
from whisper_serve.jobs.webhooks import WebhookSender, signed
from whisper_serve.storage.database import Database

SECRET = "whsec_" + "c2VjcmV0" * 5


def config(**given: Any) -> JobsConfig:
    settings = {"webhook_hosts": ["hooks.example.com"], "webhook_secret": SECRET, **given}
    return JobsConfig.model_validate({"database": None, **settings})


async def sent(
    database: Database,
    replies: Sequence[Reply],
    jobs: JobsConfig,
    *,
    host: str = "hooks.example.com",
) -> tuple[list[Heard], dict[str, Any]]:
    """What a receiver heard of one cancelled job, and what the job's webhook came to."""
    orders = Orders(database, CONFIG)
    async with serving(replies) as (port, heard):
        job = await submitted(orders, now=time.time(), webhook_url=f"http://{host}:{port}/jobs?x=1")
        await orders.cancel(job.id, "ada", time.time())
        outside = Outside(elsewhere())
        sender = WebhookSender(Outbox(database, jobs), jobs, outside)
        while await sender.send_next(time.time()):
            pass
        await outside.close()
    return heard, (await orders.get(job.id, "ada")).shown()


async def test_a_webhook_is_signed_as_the_specification_says(database: Database) -> None:
    heard, shown = await sent(database, [Reply(204)], config())
    [message] = heard
    assert (message.method, message.target) == ("POST", "/jobs?x=1")
    assert message.headers["content-type"] == "application/json"
    body = Verifier(SECRET).verify(message.body, dict(message.headers))
    assert body["type"] == "job.cancelled"
    assert body["data"]["id"] == shown["id"]
    assert shown["webhook"]["status"] == "sent"


async def test_our_own_client_believes_it(database: Database) -> None:
    [message], shown = await sent(database, [Reply(200)], config())
    job = verify_webhook(message.body, message.headers, SECRET)
    assert (job.id, job.status) == (shown["id"], "cancelled")


async def test_nobody_else_can_sign() -> None:
    now = time.time()
    headers = dict(signed("msg_1", "{}", SECRET, now))
    Verifier(SECRET).verify("{}", headers)
    with pytest.raises(WebhookVerificationError):
        Verifier("whsec_" + "b3RoZXI=" * 5).verify("{}", headers)
    with pytest.raises(WebhookVerificationError):
        Verifier(SECRET).verify('{"a":1}', headers)
    with pytest.raises(WebhookVerificationError):
        Verifier(SECRET).verify("{}", dict(signed("msg_1", "{}", SECRET, now - 600)))


@pytest.mark.parametrize("status", [301, 404, 410, 429, 500, 503])
async def test_what_is_not_taken_is_sent_again_later(database: Database, status: int) -> None:
    reply = Reply(status, headers=(("Location", "http://127.0.0.1/"),))
    heard, shown = await sent(database, [reply], config())
    assert len(heard) == 1
    assert (shown["webhook"]["status"], shown["webhook"]["attempts"]) == ("pending", 1)


async def test_after_the_last_attempt_it_has_failed(database: Database) -> None:
    _, shown = await sent(database, [Reply(500)], config(webhook_attempts=1))
    assert (shown["webhook"]["status"], shown["webhook"]["attempts"]) == ("failed", 1)


async def test_a_receiver_that_breaks_off_is_no_receiver(database: Database) -> None:
    _, shown = await sent(database, [Reply(None)], config())
    assert shown["webhook"]["status"] == "pending"


async def test_an_inner_address_is_never_told_anything(database: Database) -> None:
    heard, shown = await sent(
        database,
        [Reply(200)],
        config(webhook_hosts=["*"], webhook_attempts=1),
        host="inner.example.com",
    )
    assert heard == []
    assert shown["webhook"]["status"] == "failed"


async def test_a_host_that_is_not_allowed_any_more_is_told_nothing(database: Database) -> None:
    heard, _ = await sent(database, [Reply(200)], config(webhook_hosts=["other.example.com"]))
    assert heard == []


async def test_two_senders_send_it_once(database: Database) -> None:
    orders = Orders(database, CONFIG)
    jobs = config()
    async with serving([Reply(200), Reply(200)]) as (port, heard):
        job = await submitted(
            orders, now=time.time(), webhook_url=f"http://hooks.example.com:{port}/"
        )
        await orders.cancel(job.id, "ada", time.time())
        outside = Outside(elsewhere())
        sender = WebhookSender(Outbox(database, jobs), jobs, outside)
        done = await asyncio.gather(*(sender.send_next(time.time()) for _ in range(5)))
        await outside.close()
    assert sum(done) == len(heard) == 1
