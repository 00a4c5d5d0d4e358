"""The jobs as those see them who work on them: claim, stay alive, finish.

A claim is a lease: whoever holds it says again and again that it lives (`renew`), and when it
does not for `jobs.lease_s`, the job is anybody's again. Each claim has a number, `Job.claims`;
all that is written about a job names it, so that a process which was away for too long and
comes back finds that the job is no longer its own, and writes nothing.

Callers come in turn: the next job is that of the caller who has waited longest since a job of
theirs was begun, and of their jobs the oldest. So nobody's thousand jobs stand before somebody
else's one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from whisper_serve.config import JobsConfig
from whisper_serve.errors import JobAbandoned, WhisperServeError
from whisper_serve.jobs.job import Job, Status, jobs_where
from whisper_serve.jobs.outbox import announce
from whisper_serve.storage.database import Database


def _ours(update: str) -> TextClause:
    """Of a job as long as it is the claim's."""
    return text(f"{update} WHERE id = :id AND claims = :claims AND status = 'running'")


CLAIM = (
    "UPDATE jobs SET status = 'running', attempts = attempts + 1, claims = claims + 1, "
    "started_at = :now, lease_until = :lease_until, progress = 0 "
    "WHERE id = (SELECT j.id FROM jobs j LEFT JOIN turns t ON t.caller = j.caller "
    "WHERE j.status = 'queued' AND j.due_at <= :now "
    "ORDER BY COALESCE(t.served_at, 0), j.queued_at, j.id LIMIT 1 {skip_locked}) "
    "RETURNING id, caller"
)
SERVED = text(
    "INSERT INTO turns (caller, served_at) VALUES (:caller, :now) "
    "ON CONFLICT (caller) DO UPDATE SET served_at = excluded.served_at"
)
OVERDUE = "j.status = 'running' AND j.lease_until < :now {lock}"
RENEW = _ours(
    "UPDATE jobs SET lease_until = :lease_until, progress = :progress, "
    "duration = COALESCE(:duration, duration)"
)
CHARGED = _ours("UPDATE jobs SET charged_s = :seconds")
REQUEUE = _ours(
    "UPDATE jobs SET status = 'queued', attempts = attempts - :uncounted, due_at = :due_at, "
    "lease_until = NULL, progress = 0"
)
END = _ours(
    "UPDATE jobs SET status = :status, progress = COALESCE(:progress, progress), "
    "duration = COALESCE(:duration, duration), "
    "finished_at = :now, lease_until = NULL, error_code = :code, error_message = :message"
)
RESULT = text("INSERT INTO results (job_id, transcript) VALUES (:id, :transcript)")
DROP_AUDIO = text("DELETE FROM job_audio WHERE job_id = :id")
DROP_SIZE = text("UPDATE jobs SET audio_bytes = 0 WHERE id = :id")
ONE = text(jobs_where("j.id = :id"))
PART = text("SELECT data FROM job_audio WHERE job_id = :id AND part = :part")


@dataclass(frozen=True, slots=True)
class Ending:
    """What became of a job, at which time."""

    status: Status
    at: float
    error: WhisperServeError | None = None
    duration: float | None = None


class JobQueue:
    """Everything raises `StorageUnavailable`. Times are Unix seconds of the process that calls;
    clocks of several machines must agree to a small part of `jobs.lease_s`."""

    def __init__(self, database: Database, config: JobsConfig) -> None:
        self._database, self._config = database, config
        self._claim = text(CLAIM.format(skip_locked=database.skip_locked))
        self._overdue = text(jobs_where(OVERDUE.format(lock=database.skip_locked)))

    async def claim(self, now: float) -> Job | None:
        """The job whose turn it is, if any; the caller then must `renew` it until it ends it."""
        times = {"now": now, "lease_until": now + self._config.lease_s}
        async with self._database.writing() as connection:
            await self._take_back(connection, now)
            row = (await connection.execute(self._claim, times)).first()
            if row is None:
                return None
            await connection.execute(SERVED, {"caller": row.caller, "now": now})
            return await _job(connection, row.id)

    async def renew(self, job: Job, progress: float, duration: float | None, now: float) -> bool:
        """Say that the work goes on. False when the job is no longer this claim's: it was
        cancelled, deleted or given to somebody else."""
        lease_until = now + self._config.lease_s
        values = {"lease_until": lease_until, "progress": progress, "duration": duration}
        return await self._write(RENEW, job, **values)

    async def charged(self, job: Job, seconds: float) -> bool:
        """Remember what was charged for it, so that it is charged once."""
        return await self._write(CHARGED, job, seconds=seconds)

    async def put_back(self, job: Job, due_at: float, *, counts: bool) -> bool:
        """Give it to the queue again, from `due_at` on. `counts`: whether this was one of its
        `jobs.max_attempts`."""
        return await self._write(REQUEUE, job, due_at=due_at, uncounted=0 if counts else 1)

    async def succeed(
        self, job: Job, transcript: str, now: float, *, duration: float | None = None
    ) -> bool:
        """Write the result (JSON) and let the audio go. False when it is no longer this
        claim's; then nothing is written."""
        async with self._database.writing() as connection:
            if not await _end(connection, job, Ending("succeeded", now, duration=duration)):
                return False
            await connection.execute(RESULT, {"id": job.id, "transcript": transcript})
            await drop_audio(connection, job.id)
        return True

    async def fail(self, job: Job, error: WhisperServeError, now: float) -> bool:
        """A dead letter: the audio stays for another try."""
        async with self._database.writing() as connection:
            return await _end(connection, job, Ending("failed", now, error))

    async def audio(self, job: Job, part: int) -> bytes | None:
        """A part of what was uploaded, counted from 0; None behind the last."""
        async with self._database.reading() as connection:
            data = (await connection.execute(PART, {"id": job.id, "part": part})).scalar()
        return None if data is None else bytes(data)

    async def _take_back(self, connection: AsyncConnection, now: float) -> None:
        """Jobs whose lease is over go to the queue again, or end."""
        for row in (await connection.execute(self._overdue, {"now": now})).all():
            job = Job.of(row)
            if job.attempts < self._config.max_attempts:
                values = {"id": job.id, "claims": job.claims, "due_at": now, "uncounted": 0}
                await connection.execute(REQUEUE, values)
            else:
                await _end(connection, job, Ending("failed", now, JobAbandoned(job.attempts)))

    async def _write(self, statement: Any, job: Job, **values: Any) -> bool:
        values |= {"id": job.id, "claims": job.claims}
        async with self._database.writing() as connection:
            return (await connection.execute(statement, values)).rowcount == 1


async def drop_audio(connection: AsyncConnection, job_id: str) -> None:
    await connection.execute(DROP_AUDIO, {"id": job_id})
    await connection.execute(DROP_SIZE, {"id": job_id})


async def _end(connection: AsyncConnection, job: Job, ending: Ending) -> bool:
    error = ending.error
    values = {
        "id": job.id,
        "claims": job.claims,
        "status": ending.status,
        "progress": 1.0 if ending.status == "succeeded" else None,
        "duration": ending.duration,
        "now": ending.at,
        "code": error.code if error else None,
        "message": str(error) if error else None,
    }
    if (await connection.execute(END, values)).rowcount != 1:
        return False
    await announce(connection, await _job(connection, job.id), ending.at)
    return True


async def _job(connection: AsyncConnection, job_id: str) -> Job:
    return Job.of((await connection.execute(ONE, {"id": job_id})).one())
