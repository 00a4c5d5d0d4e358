"""The jobs as their callers see them: give one in, look, cancel, delete, fetch the result."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from whisper_serve.config import JobsConfig
from whisper_serve.errors import (
    IdempotencyMismatch,
    JobConflict,
    JobNotFinished,
    JobNotFound,
    Overloaded,
)
from whisper_serve.jobs.job import WAITING, Job, Status, jobs_where, new_id
from whisper_serve.jobs.outbox import announce, announce_again
from whisper_serve.jobs.queue import drop_audio
from whisper_serve.storage.database import Database

# Audio goes into the database in parts of this size, of which a few are written at once, so
# that neither memory nor the database's lock is held for long.
PART_BYTES = 1 << 20
PARTS_AT_ONCE = 8
RETRY_AFTER_S = 30.0

TOTALS = text(
    "SELECT COALESCE(SUM(CASE WHEN status IN ('queued', 'receiving') THEN 1 ELSE 0 END), 0), "
    "COALESCE(SUM(audio_bytes), 0) FROM jobs"
)
RECEIVE = text(
    "INSERT INTO jobs (id, caller, status, parameters, url, webhook_url, request_id, fingerprint, "
    "audio_bytes, created_at, queued_at, due_at, attempts, claims, progress, charged_s) "
    "VALUES (:id, :caller, 'receiving', :parameters, :url, :webhook_url, :request_id, "
    ":fingerprint, :audio_bytes, :now, :now, :now, 0, 0, 0, 0)"
)
ADD_PART = text("INSERT INTO job_audio (job_id, part, data) VALUES (:id, :part, :data)")
QUEUE = text(
    "UPDATE jobs SET status = 'queued', idempotency_key = :key WHERE id = :id "
    "AND status = 'receiving'"
)
BY_KEY = text("SELECT id, fingerprint FROM jobs WHERE caller = :caller AND idempotency_key = :key")
FORGET = text("DELETE FROM jobs WHERE id = :id")
FIND = jobs_where(
    "j.id = :id AND j.status != 'receiving' AND (:everyone = 1 OR j.caller = :caller) {lock}"
)
LIST = jobs_where(
    "j.status != 'receiving' {and_caller} {and_status} {and_before} ORDER BY j.id DESC LIMIT :limit"
)
RESULT = text("SELECT transcript FROM results WHERE job_id = :id")
CANCEL = text(
    "UPDATE jobs SET status = 'cancelled', finished_at = :now, lease_until = NULL WHERE id = :id"
)
REDRIVE = text(
    "UPDATE jobs SET status = 'queued', attempts = 0, queued_at = :now, due_at = :now, "
    "started_at = NULL, finished_at = NULL, progress = 0, error_code = NULL, "
    "error_message = NULL WHERE id = :id"
)


@dataclass(frozen=True, slots=True)
class Order:
    """What a caller wants done. `parameters` can be written as JSON."""

    caller: str
    parameters: Mapping[str, Any]
    request_id: str
    url: str | None = None
    webhook_url: str | None = None
    idempotency_key: str | None = None


class Orders:
    """Jobs by their callers' wishes. `caller` None sees the jobs of all; anybody else finds
    only their own, and `JobNotFound` for the others. Everything raises `StorageUnavailable`."""

    def __init__(self, database: Database, config: JobsConfig) -> None:
        self._database, self._config = database, config
        lock = "" if database.is_sqlite else "FOR UPDATE OF j"
        self._find, self._find_locked = (text(FIND.format(lock=how)) for how in ("", lock))

    async def require_room(self) -> None:
        """Raises `Overloaded` when no further job is taken now."""
        async with self._database.reading() as connection:
            waiting, stored_bytes = (await connection.execute(TOTALS)).one()
        is_full = stored_bytes >= self._config.max_stored_bytes
        if is_full or waiting >= self._config.max_queued:
            raise Overloaded(RETRY_AFTER_S)

    async def submit(self, order: Order, audio: BinaryIO | None, size: int, now: float) -> Job:
        """The job, which is safely kept when this returns; the one that was made before for the
        same `idempotency_key`. `audio` has `size` bytes. Raises `IdempotencyMismatch`."""
        fingerprint = await asyncio.to_thread(_fingerprint, order, audio)
        if (known := await self._known(order, fingerprint)) is not None:
            return known
        job_id = new_id(now)
        await self._receive(job_id, order, fingerprint, size, now)
        try:
            if audio is not None:
                await self._store(job_id, audio)
            return await self._queue(job_id, order)
        except IntegrityError:  # the same key was used at the same time
            await self._forget(job_id)
            known = await self._known(order, fingerprint)
            if known is None:
                raise
            return known
        except BaseException:
            await asyncio.shield(self._forget(job_id))
            raise

    async def get(self, job_id: str, caller: str | None) -> Job:
        async with self._database.reading() as connection:
            return await self._found(connection, self._find, job_id, caller)

    async def list(
        self,
        caller: str | None,
        *,
        status: Status | None = None,
        limit: int = 20,
        after: str | None = None,
    ) -> list[Job]:
        """The newest first, those older than the job `after`."""
        statement = text(
            LIST.format(
                and_caller="" if caller is None else "AND j.caller = :caller",
                and_status="" if status is None else "AND j.status = :status",
                and_before="" if after is None else "AND j.id < :after",
            )
        )
        given = {"caller": caller, "status": status, "after": after, "limit": limit}
        values = {name: value for name, value in given.items() if value is not None}
        async with self._database.reading() as connection:
            return [Job.of(row) for row in await connection.execute(statement, values)]

    async def result(self, job_id: str, caller: str | None) -> tuple[Job, str]:
        """The job and its transcript as JSON. Raises `JobNotFinished`, or `JobConflict` for one
        that ended without."""
        async with self._database.reading() as connection:
            job = await self._found(connection, self._find, job_id, caller)
            transcript = (await connection.execute(RESULT, {"id": job_id})).scalar()
        if job.status in WAITING:
            raise JobNotFinished(job.status)
        if transcript is None:
            raise JobConflict(f"the job has no result, it {_has_ended(job)}")
        return job, str(transcript)

    async def cancel(self, job_id: str, caller: str | None, now: float) -> Job:
        """Raises `JobConflict` for one that has succeeded or failed."""
        async with self._database.writing() as connection:
            job = await self._found(connection, self._find_locked, job_id, caller)
            if job.status == "cancelled":
                return job
            if job.status not in WAITING:
                raise JobConflict(f"the job cannot be cancelled, it {_has_ended(job)}")
            await connection.execute(CANCEL, {"id": job_id, "now": now})
            await drop_audio(connection, job_id)
            job = await self._found(connection, self._find, job_id, caller)
            await announce(connection, job, now)
            return job

    async def redrive(self, job_id: str, caller: str | None, now: float) -> Job:
        """Queue a job that failed once more. Raises `JobConflict` for any other."""
        async with self._database.writing() as connection:
            job = await self._found(connection, self._find_locked, job_id, caller)
            if job.status != "failed":
                state = f"is {job.status}" if job.status in WAITING else _has_ended(job)
                raise JobConflict(f"only a job that failed can be queued again, this one {state}")
            await connection.execute(REDRIVE, {"id": job_id, "now": now})
            return await self._found(connection, self._find, job_id, caller)

    async def send_webhook(self, job_id: str, caller: str | None, now: float) -> Job:
        """Send its last webhook again. Raises `JobConflict` when there was none yet."""
        async with self._database.writing() as connection:
            job = await self._found(connection, self._find_locked, job_id, caller)
            await announce_again(connection, job, now)
            return await self._found(connection, self._find, job_id, caller)

    async def delete(self, job_id: str, caller: str | None) -> None:
        """Whatever it is at; all that belongs to it goes too."""
        async with self._database.writing() as connection:
            await self._found(connection, self._find_locked, job_id, caller)
            await connection.execute(FORGET, {"id": job_id})

    async def _found(
        self, connection: AsyncConnection, statement: Any, job_id: str, caller: str | None
    ) -> Job:
        values = {"id": job_id, "everyone": int(caller is None), "caller": caller or ""}
        row = (await connection.execute(statement, values)).first()
        if row is None:
            raise JobNotFound(job_id)
        return Job.of(row)

    async def _known(self, order: Order, fingerprint: str) -> Job | None:
        if order.idempotency_key is None:
            return None
        values = {"caller": order.caller, "key": order.idempotency_key}
        async with self._database.reading() as connection:
            row = (await connection.execute(BY_KEY, values)).first()
        if row is None:
            return None
        if row.fingerprint != fingerprint:
            raise IdempotencyMismatch(order.idempotency_key)
        return await self.get(row.id, order.caller)

    async def _receive(
        self, job_id: str, order: Order, fingerprint: str, size: int, now: float
    ) -> None:
        values = {
            "id": job_id,
            "caller": order.caller,
            "parameters": json.dumps(order.parameters, ensure_ascii=False),
            "url": order.url,
            "webhook_url": order.webhook_url,
            "request_id": order.request_id,
            "fingerprint": fingerprint,
            "audio_bytes": size,
            "now": now,
        }
        async with self._database.writing() as connection:
            await connection.execute(RECEIVE, values)

    async def _store(self, job_id: str, audio: BinaryIO) -> None:
        part = 0
        await asyncio.to_thread(audio.seek, 0)
        while parts := await asyncio.to_thread(_some_parts, audio):
            rows = [{"id": job_id, "part": part + i, "data": data} for i, data in enumerate(parts)]
            async with self._database.writing() as connection:
                await connection.execute(ADD_PART, rows)
            part += len(parts)

    async def _queue(self, job_id: str, order: Order) -> Job:
        async with self._database.writing() as connection:
            await connection.execute(QUEUE, {"id": job_id, "key": order.idempotency_key})
            return await self._found(connection, self._find, job_id, order.caller)

    async def _forget(self, job_id: str) -> None:
        async with self._database.writing() as connection:
            await connection.execute(FORGET, {"id": job_id})


def _has_ended(job: Job) -> str:
    return "was cancelled" if job.status == "cancelled" else f"has {job.status}"


def _fingerprint(order: Order, audio: BinaryIO | None) -> str:
    """What two requests with one `Idempotency-Key` have in common."""
    asked = [order.parameters, order.url, order.webhook_url]
    digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode())
    if audio is not None:
        audio.seek(0)
        while data := audio.read(PART_BYTES):
            digest.update(data)
    return digest.hexdigest()


def _some_parts(audio: BinaryIO) -> list[bytes]:
    parts = (audio.read(PART_BYTES) for _ in range(PARTS_AT_ONCE))
    return [part for part in parts if part]
