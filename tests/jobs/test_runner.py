from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.api.fakes import ALL_IS_SPEECH, CLIP, HEARD, TEXT, FakePort
from tests.audio.clips import tone, wav
from tests.jobs.hosts import Reply, elsewhere, serving
from tests.jobs.orders import order, submitted
from whisper_serve.config import Config
from whisper_serve.engines.base import DecodeTask
from whisper_serve.errors import (
    EngineFailed,
    EngineUnavailable,
    ModelNotFound,
    Overloaded,
    QuotaExceeded,
    WhisperServeError,
)
from whisper_serve.jobs.job import Job
from whisper_serve.jobs.orders import Orders
from whisper_serve.jobs.queue import JobQueue
from whisper_serve.jobs.runner import Pace, Runner
from whisper_serve.jobs.transcripts import from_json
from whisper_serve.jobs.urls import Outside
from whisper_serve.pipeline import TranscribeOptions, Transcriber
from whisper_serve.storage.database import Database
from whisper_serve.text.transcript import Hypothesis

WAIT_S = 20.0
QUICK = Pace(poll_s=0.02, beat_s=0.02, again_s=0.02, fetch_s=10.0, last_words_s=5.0)
SECRET = "whsec_" + "c2VjcmV0" * 5


@dataclass
class Charged:
    """Who was charged what; refuses when told to."""

    seconds: list[tuple[str, float]] = field(default_factory=list)
    refusal: WhisperServeError | None = None

    async def charge(self, caller: str, seconds: float) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.seconds.append((caller, seconds))


@dataclass
class Office:
    """Orders, and a runner that works on them with a port of the test's."""

    database: Database
    port: FakePort = field(default_factory=FakePort)
    charged: Charged = field(default_factory=Charged)
    jobs: dict[str, Any] = field(default_factory=dict)
    refusal: WhisperServeError | None = None
    # Seconds that the clock is ahead.
    ahead_s: float = 0.0

    def __post_init__(self) -> None:
        jobs = {"database": None, "lease_s": 30.0, **self.jobs}
        chunking = {"chunk_duration": 5.0, "overlap": 1.0}
        self.config = Config.model_validate(
            {"vad": ALL_IS_SPEECH, "jobs": jobs, "chunking": chunking}
        )
        self.orders = Orders(self.database, self.config.jobs)
        self.queue = JobQueue(self.database, self.config.jobs)

    def now(self) -> float:
        return time.time() + self.ahead_s

    def options_of(self, job: Job) -> TranscribeOptions:
        if self.refusal is not None:
            raise self.refusal
        return TranscribeOptions(request_id=job.request_id, **job.parameters)

    def runner(self) -> Runner:
        return Runner(
            self.database,
            self.config,
            Transcriber(self.port, self.config),
            self.options_of,
            charge=self.charged.charge,
            outside=Outside(elsewhere()),
            pace=QUICK,
            clock=self.now,
        )

    @asynccontextmanager
    async def working(self) -> AsyncIterator[Runner]:
        runner = self.runner()
        task = asyncio.create_task(runner.run())
        try:
            yield runner
            assert not task.done(), task
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def submit(self, audio: bytes = CLIP, **given: Any) -> Job:
        return await submitted(self.orders, now=self.now(), audio=audio, **given)

    async def until(self, job: Job, condition: Callable[[Job], bool]) -> Job:
        deadline = time.monotonic() + WAIT_S
        while not condition(now := await self.orders.get(job.id, None)):
            assert time.monotonic() < deadline, now
            await asyncio.sleep(0.01)
        return now

    async def ended(self, job: Job) -> Job:
        return await self.until(job, lambda now: now.finished_at is not None)


Open = Callable[..., Office]


@pytest.fixture
def office(database: Database) -> Office:
    return Office(database)


def held(begun: asyncio.Event, go: asyncio.Event) -> Callable[[DecodeTask], Awaitable[Hypothesis]]:
    """Hears nothing until it may."""

    async def hear(_task: DecodeTask) -> Hypothesis:
        begun.set()
        await go.wait()
        return HEARD

    return hear


# When all goes well


async def test_a_job_is_heard_and_written_down(office: Office) -> None:
    job = await office.submit(parameters={"language": "de"}, request_id="r42")
    async with office.working():
        done = await office.ended(job)
    assert (done.status, done.progress, done.duration, done.attempts) == ("succeeded", 1.0, 2.0, 1)
    assert done.started_at is not None
    assert done.finished_at is not None
    assert job.created_at <= done.started_at <= done.finished_at
    assert from_json((await office.orders.result(job.id, None))[1]).text == TEXT
    [task] = office.port.tasks
    assert (task.language, task.request_id) == ("de", "r42")


async def test_a_nudge_is_enough(database: Database) -> None:
    office = Office(database)
    runner = Runner(
        database,
        office.config,
        Transcriber(office.port, office.config),
        office.options_of,
        outside=Outside(elsewhere()),
        pace=Pace(poll_s=3600.0),
    )
    task = asyncio.create_task(runner.run())
    job = await office.submit()
    while not task.done() and (await office.orders.get(job.id, None)).finished_at is None:
        runner.nudge()
        await asyncio.sleep(0.02)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert (await office.orders.get(job.id, None)).status == "succeeded"


async def test_several_jobs_are_worked_on_at_once_and_no_more(database: Database) -> None:
    office = Office(database, jobs={"at_once": 2})
    begun, go = asyncio.Event(), asyncio.Event()
    office.port.answer = held(begun, go)
    jobs = [await office.submit() for _ in range(3)]
    async with office.working():
        for job in jobs[:2]:
            await office.until(job, lambda now: now.status == "running")
        await asyncio.wait_for(begun.wait(), WAIT_S)
        assert (await office.orders.get(jobs[2].id, None)).status == "queued"
        go.set()
        for job in jobs:
            assert (await office.ended(job)).status == "succeeded"


async def test_progress_is_told_while_a_job_is_heard(office: Office) -> None:
    second, go = asyncio.Event(), asyncio.Event()

    async def hear(_task: DecodeTask) -> Hypothesis:
        if len(office.port.tasks) > 1:
            second.set()
            await go.wait()
        return HEARD

    office.port.answer = hear
    job = await office.submit(wav(tone(12.0)))
    async with office.working():
        await asyncio.wait_for(second.wait(), WAIT_S)
        half = await office.until(job, lambda now: now.progress > 0)
        assert 0.0 < half.progress < 1.0
        assert half.duration == 12.0
        go.set()
        assert (await office.ended(job)).progress == 1.0


# When it does not


async def test_what_is_no_audio_fails_at_once(office: Office) -> None:
    job = await office.submit(b"a letter to my aunt")
    async with office.working():
        failed = await office.ended(job)
    assert (failed.status, failed.attempts) == ("failed", 1)
    assert failed.error_code == "unreadable_audio"
    assert office.port.tasks == []


async def test_a_model_that_is_not_served_any_more_fails_the_job(office: Office) -> None:
    office.refusal = ModelNotFound("huge", ["base"])
    job = await office.submit()
    async with office.working():
        failed = await office.ended(job)
    assert (failed.status, failed.error_code) == ("failed", "model_not_found")


async def test_an_engine_that_breaks_is_asked_again_later(office: Office) -> None:
    office.port.answer = EngineFailed("CUDA error")
    job = await office.submit()
    async with office.working():
        put_back = await office.until(job, lambda now: now.claims == 1 and now.status == "queued")
        assert put_back.attempts == 1
        office.port.answer = HEARD
        office.ahead_s += 10
        done = await office.ended(job)
    assert (done.status, done.attempts) == ("succeeded", 2)


async def test_after_the_last_attempt_it_is_a_dead_letter_that_can_be_sent_off_again(
    database: Database,
) -> None:
    office = Office(database, jobs={"max_attempts": 2})
    office.port.answer = ZeroDivisionError("a fault of ours")
    job = await office.submit()
    async with office.working():
        await office.until(job, lambda now: now.claims == 1 and now.status == "queued")
        office.ahead_s += 60
        failed = await office.ended(job)
        assert (failed.status, failed.attempts) == ("failed", 2)
        assert (failed.error_code, failed.error_message) == (
            "internal_error",
            "the service failed unexpectedly",
        )
        office.port.answer = HEARD
        await office.orders.redrive(job.id, None, office.now())
        assert (await office.ended(job)).status == "succeeded"


@pytest.mark.parametrize("error", [Overloaded(1.0), EngineUnavailable(1.0)])
async def test_a_busy_service_costs_no_attempt(office: Office, error: WhisperServeError) -> None:
    office.port.answer = error
    job = await office.submit()
    async with office.working():
        for claims in (1, 2, 3, 4):
            waiting = await office.until(
                job,
                lambda now, n=claims: now.claims == n and now.status == "queued",  # type: ignore[misc]
            )
            assert waiting.attempts == 0
            office.ahead_s += 100
        office.port.answer = HEARD
        office.ahead_s += 100
        done = await office.ended(job)
    assert (done.status, done.attempts) == ("succeeded", 1)


async def test_a_cancelled_job_is_left_at_once(office: Office) -> None:
    begun, gone = asyncio.Event(), asyncio.Event()

    async def never(_task: DecodeTask) -> Hypothesis:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            gone.set()
        return HEARD

    office.port.answer = never
    job = await office.submit()
    async with office.working():
        await asyncio.wait_for(begun.wait(), WAIT_S)
        await office.orders.cancel(job.id, None, office.now())
        await asyncio.wait_for(gone.wait(), WAIT_S)
        office.port.answer = HEARD
        assert (await office.ended(await office.submit())).status == "succeeded"
    assert (await office.orders.get(job.id, None)).status == "cancelled"


async def test_a_deleted_job_is_left_too(office: Office) -> None:
    begun, go = asyncio.Event(), asyncio.Event()
    office.port.answer = held(begun, go)
    job = await office.submit()
    async with office.working():
        await asyncio.wait_for(begun.wait(), WAIT_S)
        await office.orders.delete(job.id, None)
        go.set()
        assert (await office.ended(await office.submit())).status == "succeeded"


# When the process ends


async def test_a_runner_that_stops_gives_its_jobs_back_and_another_goes_on(
    office: Office,
) -> None:
    begun, go = asyncio.Event(), asyncio.Event()
    office.port.answer = held(begun, go)
    job = await office.submit()
    async with office.working():
        await asyncio.wait_for(begun.wait(), WAIT_S)
    waiting = await office.orders.get(job.id, None)
    assert (waiting.status, waiting.attempts) == ("queued", 0)
    office.port.answer = HEARD
    async with office.working():
        done = await office.ended(job)
    assert (done.status, done.attempts) == ("succeeded", 1)


async def test_a_lease_that_is_kept_up_is_not_taken_by_another_runner(database: Database) -> None:
    office = Office(database, jobs={"lease_s": 1.0, "at_once": 1})
    begun, go = asyncio.Event(), asyncio.Event()
    office.port.answer = held(begun, go)
    job = await office.submit()
    async with office.working(), office.working():
        await asyncio.wait_for(begun.wait(), WAIT_S)
        await asyncio.sleep(1.5)  # longer than a lease
        go.set()
        done = await office.ended(job)
    assert (done.claims, len(office.port.tasks)) == (1, 1)


# Audio from elsewhere


async def test_audio_is_fetched_from_its_url(database: Database) -> None:
    office = Office(database, jobs={"url_hosts": ["media.example.com"]})
    async with serving([Reply(503), Reply(body=CLIP)]) as (port, heard), office.working():
        url = f"http://media.example.com:{port}/a.wav"
        job = await office.orders.submit(order(url=url), None, 0, office.now())
        put_back = await office.until(job, lambda now: now.claims == 1 and now.status == "queued")
        assert put_back.attempts == 1
        office.ahead_s += 10
        done = await office.ended(job)
    assert (done.status, done.duration, len(heard)) == ("succeeded", 2.0, 2)


@pytest.mark.parametrize(
    ("reply", "code"), [(Reply(404), "url_refused"), (Reply(body=b"no audio"), "unreadable_audio")]
)
async def test_a_url_that_gives_nothing_of_use_fails_the_job(
    database: Database, reply: Reply, code: str
) -> None:
    office = Office(database, jobs={"url_hosts": ["*"]})
    async with serving([reply]) as (port, _), office.working():
        url = f"http://media.example.com:{port}/a.wav"
        failed = await office.ended(
            await office.orders.submit(order(url=url), None, 0, office.now())
        )
    assert (failed.status, failed.error_code, failed.attempts) == ("failed", code, 1)


async def test_an_inner_url_fails_the_job(database: Database) -> None:
    office = Office(database, jobs={"url_hosts": ["*"]})
    async with office.working():
        failed = await office.ended(
            await office.orders.submit(
                order(url="http://metadata.example.com/latest/"), None, 0, office.now()
            )
        )
    assert (failed.status, failed.error_code) == ("failed", "url_not_allowed")


# What it costs


async def test_a_job_is_charged_once_however_often_it_is_begun(office: Office) -> None:
    office.port.answer = EngineUnavailable(1.0)
    job = await office.submit()
    async with office.working():
        await office.until(job, lambda now: now.claims == 1 and now.status == "queued")
        office.port.answer = HEARD
        office.ahead_s += 60
        assert (await office.ended(job)).status == "succeeded"
    assert office.charged.seconds == [("ada", 2.0)]


async def test_nobody_pays_for_a_fault_of_ours(database: Database) -> None:
    office = Office(database, jobs={"max_attempts": 1})
    office.port.answer = EngineFailed("broken")
    job = await office.submit()
    async with office.working():
        assert (await office.ended(job)).status == "failed"
        office.port.answer = HEARD
        await office.orders.redrive(job.id, None, office.now())
        assert (await office.ended(job)).status == "succeeded"
    assert office.charged.seconds == [("ada", 2.0), ("ada", -2.0), ("ada", 2.0)]


async def test_who_has_used_up_the_day_waits_for_the_next(office: Office) -> None:
    office.charged.refusal = QuotaExceeded(60.0, 3600.0)
    job = await office.submit()
    async with office.working():
        await office.until(job, lambda now: now.claims == 1 and now.status == "queued")
        office.charged.refusal = None
        office.ahead_s += 3601
        done = await office.ended(job)
    assert (done.status, done.attempts) == ("succeeded", 1)
    assert len(office.port.tasks) == 1


# Telling of it


async def test_the_end_is_told_by_webhook(database: Database) -> None:
    hooks = {"webhook_hosts": ["hooks.example.com"], "webhook_secret": SECRET}
    office = Office(database, jobs=hooks)
    async with serving([Reply(500), Reply(204)]) as (port, heard), office.working():
        job = await office.submit(webhook_url=f"http://hooks.example.com:{port}/")
        await office.ended(job)
        await office.until(job, lambda now: now.webhook is not None and now.webhook.attempts == 1)
        deadline = time.monotonic() + WAIT_S
        while len(heard) < 1:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        office.ahead_s += 10
        done = await office.until(
            job, lambda now: now.webhook is not None and now.webhook.status == "sent"
        )
    assert done.webhook is not None
    assert done.webhook.attempts == 2
    assert [message.headers["webhook-id"] for message in heard] == [
        heard[0].headers["webhook-id"]
    ] * 2
