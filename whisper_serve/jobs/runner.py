"""Working on jobs: claim one, fetch its audio, have it heard, write down what came of it.

Several loops do the same side by side and know of each other through the database only. Beside
each job a heartbeat renews its lease and finds out when it is no longer ours. What happens when
the process stops: a clean stop gives its jobs back to the queue at once; after any other end
their leases run out.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from tempfile import SpooledTemporaryFile
from typing import Any, BinaryIO, TypeVar, cast

from whisper_serve.config import NOT_NAMES, Config
from whisper_serve.errors import StorageUnavailable, WhisperServeError
from whisper_serve.jobs.job import Job
from whisper_serve.jobs.outbox import Outbox
from whisper_serve.jobs.queue import JobQueue
from whisper_serve.jobs.retention import sweep
from whisper_serve.jobs.retries import next_try
from whisper_serve.jobs.standing import Standing
from whisper_serve.jobs.transcripts import to_json
from whisper_serve.jobs.urls import Outside
from whisper_serve.jobs.webhooks import WebhookSender
from whisper_serve.observability.context import bound
from whisper_serve.observability.metrics import Metrics
from whisper_serve.observability.tracing import span
from whisper_serve.pipeline import TranscribeOptions, Transcriber, joined
from whisper_serve.storage.database import Database
from whisper_serve.text.transcript import Transcript

logger = logging.getLogger(__name__)

IN_MEMORY_BYTES = 1 << 20
SENDERS = 4
Result = TypeVar("Result")
# What a job's audio takes of its caller's quota, in seconds; negative ones are given back.
Charge = Callable[[str, float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Pace:
    """How often the runner looks for what to do, in seconds. `poll_s`: for new jobs and webhooks,
    also when nobody says that there are any; `beat_s`: between two heartbeats, at most;
    `again_s`: until the next attempt when the database does not answer; `fetch_s`: for audio to
    come from a URL; `look_s`: between two counts of all jobs; `last_words_s`: to give jobs back
    at the end."""

    poll_s: float = 2.0
    beat_s: float = 5.0
    again_s: float = 2.0
    sweep_s: float = 600.0
    look_s: float = 15.0
    fetch_s: float = 3600.0
    last_words_s: float = 3.0


@dataclass(slots=True)
class Progress:
    """How far a job is: from 0 to 1, the seconds of its audio once they are known, and those
    that its caller was charged."""

    charged_s: float
    done: float = 0.0
    duration: float | None = None

    def heard(self, piece: Transcript) -> None:
        if piece.segments and piece.duration:
            self.done = min(1.0, max(self.done, piece.segments[-1].end / piece.duration))


class NotOurs(Exception):
    """The job was cancelled, deleted, or given to somebody else."""


async def free_of_charge(_caller: str, _seconds: float) -> None:
    pass


class Runner:
    """Works on the jobs in `database`. `options_of` says how a job is to be transcribed, and may
    raise what is wrong with its parameters. `charge` may refuse with an error of its own."""

    def __init__(
        self,
        database: Database,
        config: Config,
        transcriber: Transcriber,
        options_of: Callable[[Job], TranscribeOptions],
        *,
        charge: Charge = free_of_charge,
        outside: Outside | None = None,
        pace: Pace | None = None,
        clock: Callable[[], float] = time.time,
        metrics: Metrics | None = None,
    ) -> None:
        self._database, self._config = database, config
        self._queue = JobQueue(database, config.jobs)
        self._transcriber, self._options_of, self._charge = transcriber, options_of, charge
        self._outside = outside or Outside()
        outbox = Outbox(database, config.jobs)
        self._metrics = metrics or Metrics()
        self._standing = Standing(database)
        self._metrics.read(self._standing.read)
        self._sender = WebhookSender(outbox, config.jobs, self._outside, self._metrics)
        self._pace, self._clock = pace or Pace(), clock
        self._nudged = asyncio.Event()

    def nudge(self) -> None:
        """There is something to do."""
        self._nudged.set()

    async def run(self) -> None:
        """Work until cancelled; jobs that are not done by then are given back."""
        loops = [self._work_on_next] * self._config.jobs.at_once
        loops += [self._send_next] * SENDERS
        tasks = [asyncio.create_task(self._forever(step)) for step in loops]
        tasks += [asyncio.create_task(self._sweep()), asyncio.create_task(self._look())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            await self._outside.close()
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome

    async def _forever(self, step: Callable[[], Awaitable[bool]]) -> None:
        """`step` says whether there was something to do."""
        while True:
            if not await self._answered(step):
                await self._rest()

    async def _answered(self, ask: Callable[[], Awaitable[bool]]) -> bool:
        """What the database says, however long it takes to come back."""
        while True:
            answer = await _unless_away(ask)
            if answer is not None:
                return answer
            await asyncio.sleep(self._pace.again_s)

    async def _rest(self) -> None:
        # The timer is cancelled rather than the wait, which would lose a cancellation of ours.
        timer = asyncio.get_running_loop().call_later(self._pace.poll_s, self._nudged.set)
        try:
            await self._nudged.wait()
        finally:
            timer.cancel()
            self._nudged.clear()

    async def _sweep(self) -> None:
        while True:
            await self._answered(self._swept)
            await asyncio.sleep(self._pace.sweep_s)

    async def _swept(self) -> bool:
        return await sweep(self._database, self._config.jobs, self._clock()) > 0

    async def _look(self) -> None:
        while True:
            await self._answered(self._standing.look)
            await asyncio.sleep(self._pace.look_s)

    async def _send_next(self) -> bool:
        return await self._sender.send_next(self._clock())

    async def _work_on_next(self) -> bool:
        job = await self._queue.claim(self._clock())
        if job is None:
            return False
        caller = "" if job.caller in NOT_NAMES else job.caller
        with bound(request_id=job.request_id, caller=caller), span("job", headers={}):
            try:
                await self._work_on(job)
            except asyncio.CancelledError:
                await self._give_back(job)
                raise
        return True

    async def _work_on(self, job: Job) -> None:
        progress = Progress(job.charged_s)
        try:
            await self._while_ours(job, progress, self._carry_out(job, progress))
        except NotOurs:
            logger.info("job %s is not ours any more", job.id)

    async def _carry_out(self, job: Job, progress: Progress) -> None:
        logger.info("job %s begins, attempt %d", job.id, job.attempts)
        try:
            transcript = await self._transcribe(job, progress)
        except WhisperServeError as exc:
            await self._failed(job, progress, exc)
        except Exception:
            logger.exception("job %s failed unexpectedly", job.id)
            await self._failed(job, progress, WhisperServeError("the service failed unexpectedly"))
        else:
            await self._insist(lambda: self._succeeded(job, progress, transcript))
            self._metrics.job_ended("succeeded", self._age_s(job))
            logger.info("job %s succeeded", job.id)
            self.nudge()

    async def _succeeded(self, job: Job, progress: Progress, transcript: str) -> bool:
        return await self._queue.succeed(job, transcript, self._clock(), duration=progress.duration)

    async def _transcribe(self, job: Job, progress: Progress) -> str:
        options = self._options_of(job)
        with SpooledTemporaryFile(max_size=IN_MEMORY_BYTES) as spool:
            file = cast("BinaryIO", spool)
            await self._fetch(job, file)
            pieces = []
            admit = partial(self._admit, job, progress)
            async with aclosing(self._transcriber.stream(file, options, admit)) as stream:
                async for piece in stream:
                    progress.heard(piece)
                    pieces.append(piece)
        return await asyncio.to_thread(to_json, joined(pieces))

    async def _fetch(self, job: Job, file: BinaryIO) -> None:
        """Everything that a job needs to be heard, rewound."""
        limits = self._config.limits
        if job.url is not None:
            await self._outside.fetch(
                job.url,
                self._config.jobs.url_hosts,
                file,
                max_bytes=limits.max_upload_bytes,
                timeout_s=self._pace.fetch_s,
            )
        else:
            part = 0
            while (data := await self._queue.audio(job, part)) is not None:
                await asyncio.to_thread(file.write, data)
                part += 1
        await asyncio.to_thread(file.seek, 0)

    async def _admit(self, job: Job, progress: Progress, duration: float) -> None:
        """Charge for it before engines hear it, and not again when it is begun again."""
        progress.duration = duration
        if not progress.charged_s:
            await self._charge(job.caller, duration)
            progress.charged_s = duration
            await self._insist(lambda: self._queue.charged(job, duration))

    async def _failed(self, job: Job, progress: Progress, error: WhisperServeError) -> None:
        now = self._clock()
        again = next_try(
            error,
            attempts=job.attempts,
            max_attempts=self._config.jobs.max_attempts,
            claims=job.claims,
            waited_s=now - job.queued_at,
        )
        detail = getattr(error, "detail", error)
        if again is None:
            logger.warning("job %s failed for good: %s", job.id, detail)
            if error.http_status >= 500:
                await self._refund(job, progress)
            await self._insist(lambda: self._queue.fail(job, error, now))
            self._metrics.job_ended("failed", self._age_s(job))
            self.nudge()
            return
        logger.info("job %s is put off for %.0f s: %s", job.id, again.delay_s, detail)
        due_at = now + again.delay_s
        await self._insist(lambda: self._queue.put_back(job, due_at, counts=again.counts))

    def _age_s(self, job: Job) -> float:
        """Since it was begun first."""
        return max(0.0, self._clock() - (job.started_at or job.created_at))

    async def _refund(self, job: Job, progress: Progress) -> None:
        """Nobody pays for a fault of ours."""
        if progress.charged_s:
            await self._insist(lambda: self._queue.charged(job, 0.0))
            await self._charge(job.caller, -progress.charged_s)

    async def _give_back(self, job: Job) -> None:
        """At the end of the process. What is not written now, the lease does later."""
        giving = self._queue.put_back(job, self._clock(), counts=False)
        try:
            await _bounded(self._pace.last_words_s, giving)
        except (StorageUnavailable, asyncio.TimeoutError):
            logger.warning("job %s could not be given back; its lease will run out", job.id)

    async def _while_ours(
        self, job: Job, progress: Progress, work: Coroutine[Any, Any, None]
    ) -> None:
        """Do the work with a heartbeat beside it. Raises `NotOurs`; the work is over then."""
        working = asyncio.ensure_future(work)
        beating = asyncio.ensure_future(self._beat(job, progress))
        try:
            await asyncio.wait([working, beating], return_when=asyncio.FIRST_COMPLETED)
            (working if working.done() else beating).result()
        finally:
            working.cancel()
            beating.cancel()
            await asyncio.wait([working, beating])

    async def _beat(self, job: Job, progress: Progress) -> None:
        """Renew the lease. Raises `NotOurs`, also when it ran out because nobody answered."""
        lease_s = self._config.jobs.lease_s
        renewed_at = time.monotonic()
        while time.monotonic() - renewed_at < lease_s:
            await asyncio.sleep(min(self._pace.beat_s, lease_s / 3))
            ours = await _unless_away(lambda: self._renew(job, progress))
            if ours:
                renewed_at = time.monotonic()
            elif ours is False:
                break
        raise NotOurs

    async def _renew(self, job: Job, progress: Progress) -> bool:
        return await self._queue.renew(job, progress.done, progress.duration, self._clock())

    async def _insist(self, write: Callable[[], Awaitable[bool]]) -> None:
        """Raises `NotOurs` when it cannot be written any more."""
        if not await self._answered(write):
            raise NotOurs


async def _unless_away(ask: Callable[[], Awaitable[bool]]) -> bool | None:
    """None when the database is."""
    try:
        return await ask()
    except StorageUnavailable as exc:
        logger.warning("the database does not answer: %s", exc.detail)
        return None


async def _bounded(timeout_s: float, work: Coroutine[Any, Any, Result]) -> Result:
    """Not given up when this task is cancelled once more."""
    return await asyncio.shield(asyncio.wait_for(work, timeout_s))
