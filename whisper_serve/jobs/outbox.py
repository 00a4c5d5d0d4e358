"""Webhooks that are to be sent, kept beside the jobs that they tell of.

A webhook is written in the transaction that ends its job, so that there is never one without
the other. Whoever sends one takes it out of sight for `HIDDEN_S`; when the sender dies, it
comes into sight again: every webhook is sent at least once, and says by its id when it is the
same one again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import datetime, timezone

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from whisper_serve.config import JobsConfig
from whisper_serve.errors import JobConflict
from whisper_serve.jobs.job import Job, WebhookState, new_id
from whisper_serve.storage.database import Database

HIDDEN_S = 60.0

WRITE = text(
    "INSERT INTO webhooks (id, job_id, url, body, status, attempts, claims, created_at, due_at) "
    "VALUES (:id, :job_id, :url, :body, 'pending', 0, 0, :now, :now)"
)
TAKE = (
    "UPDATE webhooks SET attempts = attempts + 1, claims = claims + 1, due_at = :hidden_until "
    "WHERE id = (SELECT j.id FROM webhooks j WHERE j.status = 'pending' AND j.due_at <= :now "
    "ORDER BY j.due_at, j.id LIMIT 1 {skip_locked}) "
    "RETURNING id, url, body, attempts, claims"
)
SENT = text(
    "UPDATE webhooks SET status = 'sent' WHERE id = :id AND claims = :claims AND status = 'pending'"
)
NOT_SENT = text(
    "UPDATE webhooks SET status = :status, due_at = :due_at "
    "WHERE id = :id AND claims = :claims AND status = 'pending'"
)
AGAIN = text(
    "UPDATE webhooks SET status = 'pending', attempts = 0, due_at = :now, claims = claims + 1 "
    "WHERE id = (SELECT w.id FROM webhooks w WHERE w.job_id = :job_id "
    "ORDER BY w.created_at DESC, w.id DESC LIMIT 1)"
)


@dataclass(frozen=True, slots=True)
class Webhook:
    """One that was taken to be sent, for the `attempts`th time."""

    id: str
    url: str
    body: str
    attempts: int
    claims: int


class Outbox:
    """What is to be sent, and what became of it. Everything raises `StorageUnavailable`."""

    def __init__(self, database: Database, config: JobsConfig) -> None:
        self._database, self._most = database, config.webhook_attempts
        self._take = text(TAKE.format(skip_locked=database.skip_locked))

    async def take(self, now: float) -> Webhook | None:
        """The one that has been due longest, out of sight for all others for `HIDDEN_S`."""
        times = {"now": now, "hidden_until": now + HIDDEN_S}
        async with self._database.writing() as connection:
            row = (await connection.execute(self._take, times)).first()
        return Webhook(*row) if row else None

    async def sent(self, webhook: Webhook) -> None:
        values = {"id": webhook.id, "claims": webhook.claims}
        async with self._database.writing() as connection:
            await connection.execute(SENT, values)

    async def not_sent(self, webhook: Webhook, due_at: float) -> bool:
        """To be sent again at `due_at`; False when that was the last attempt."""
        again = webhook.attempts < self._most
        status = "pending" if again else "failed"
        values = {
            "id": webhook.id,
            "claims": webhook.claims,
            "status": status,
            "due_at": due_at,
        }
        async with self._database.writing() as connection:
            await connection.execute(NOT_SENT, values)
        return again


async def announce(connection: AsyncConnection, job: Job, now: float) -> None:
    """Write the webhook of a job that has just ended, if it wants one."""
    if job.webhook is None:
        return
    url = job.webhook.url
    shown = replace(job, webhook=WebhookState(url, "pending", 0)).shown()
    body = {"type": f"job.{job.status}", "timestamp": _moment(now), "data": shown}
    values = {
        "id": f"msg_{new_id(now)}",
        "job_id": job.id,
        "url": url,
        "body": json.dumps(body, ensure_ascii=False, separators=(",", ":")),
        "now": now,
    }
    await connection.execute(WRITE, values)


async def announce_again(connection: AsyncConnection, job: Job, now: float) -> None:
    """Send a job's last webhook once more. Raises `JobConflict` when there is none."""
    if not (await connection.execute(AGAIN, {"job_id": job.id, "now": now})).rowcount:
        raise JobConflict("the job has no webhook that could be sent again")


def _moment(at: float) -> str:
    """Unix seconds as RFC 3339 in UTC."""
    told = datetime.fromtimestamp(at, timezone.utc).isoformat(timespec="milliseconds")
    return told.replace("+00:00", "Z")
