"""Whatever happens to jobs in whatever order: none is lost, and none has two results.

What callers and processes do is one transaction each, so any order of these is what any number of
processes side by side can come to. It is held against the obvious way: a few lists in memory.
"""

from __future__ import annotations

import asyncio
import io
import tempfile
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule

from tests.jobs.orders import order
from whisper_serve.config import JobsConfig
from whisper_serve.errors import EngineFailed, JobConflict, JobNotFound
from whisper_serve.jobs.job import WAITING, Job
from whisper_serve.jobs.orders import Orders
from whisper_serve.jobs.queue import JobQueue
from whisper_serve.storage.database import Database

LEASE_S = 10.0
CONFIG = JobsConfig(database=None, lease_s=LEASE_S, max_attempts=3)
Result = TypeVar("Result")


@dataclass
class Expected:
    """A job as it should be."""

    id: str
    caller: str
    queued_at: float
    due_at: float
    status: str = "queued"
    attempts: int = 0
    claims: int = 0
    lease_until: float = 0.0
    result: str | None = None
    has_audio: bool = True


@dataclass
class Office:
    """All jobs as they should be, and whose turn it is."""

    jobs: dict[str, Expected] = field(default_factory=dict)
    served: dict[str, float] = field(default_factory=dict)

    def claim(self, now: float) -> Expected | None:
        for job in self.jobs.values():
            if job.status == "running" and job.lease_until < now:
                is_last = job.attempts >= CONFIG.max_attempts
                job.status = "failed" if is_last else "queued"
                job.due_at = now
        waiting = [j for j in self.jobs.values() if j.status == "queued" and j.due_at <= now]
        if not waiting:
            return None
        job = min(waiting, key=lambda j: (self.served.get(j.caller, 0.0), j.queued_at, j.id))
        self.served[job.caller] = now
        job.status, job.lease_until = "running", now + LEASE_S
        job.attempts, job.claims = job.attempts + 1, job.claims + 1
        return job

    def held(self, claim: Job) -> Expected | None:
        """The job of a claim, as long as it is the claim's."""
        job = self.jobs.get(claim.id)
        ours = job is not None and job.status == "running" and job.claims == claim.claims
        return job if ours else None


class AnyOrder(RuleBasedStateMachine):
    ids = Bundle("ids")
    claimed = Bundle("claimed")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.loop = asyncio.new_event_loop()
        self.database = Database(str(Path(self.folder.name) / "jobs.sqlite3"))
        self.orders = Orders(self.database, CONFIG)
        self.queue = JobQueue(self.database, CONFIG)
        self.office = Office()
        self.now = 1_000_000.0
        self.serial = 0

    def run_(self, work: Coroutine[Any, Any, Result]) -> Result:
        return self.loop.run_until_complete(work)

    def teardown(self) -> None:
        """Whatever there is left is done in the end by somebody who keeps at it."""
        try:
            self.finish_all()
        finally:
            self.run_(self.database.close())
            self.loop.close()
            self.folder.cleanup()

    def finish_all(self) -> None:
        for _ in range(4 * len(self.office.jobs) + 4):
            self.now += 1000.0
            job = self.office.claim(self.now)
            claim = self.run_(self.queue.claim(self.now))
            assert (claim.id if claim else None) == (job.id if job else None)
            if claim is not None:
                self.succeed(claim)
        assert all(job.status not in WAITING for job in self.office.jobs.values())
        self.everything_is_as_it_should_be()

    @rule(target=ids, caller=st.sampled_from(["ada", "bob"]))
    def submit(self, caller: str) -> str:
        audio = io.BytesIO(b"audio")
        job = self.run_(self.orders.submit(order(caller), audio, 5, self.now))
        self.office.jobs[job.id] = Expected(job.id, caller, self.now, self.now)
        return job.id

    @rule(seconds=st.sampled_from([0.5, 3.0, LEASE_S / 2, LEASE_S + 1]))
    def time_goes_by(self, seconds: float) -> None:
        self.now += seconds

    @rule(target=claimed)
    def claim(self) -> Any:
        expected = self.office.claim(self.now)
        claim = self.run_(self.queue.claim(self.now))
        assert (claim.id if claim else None) == (expected.id if expected else None)
        return multiple() if claim is None else claim

    @rule(claim=claimed)
    def renew(self, claim: Job) -> None:
        job = self.office.held(claim)
        assert self.run_(self.queue.renew(claim, 0.5, None, self.now)) is (job is not None)
        if job is not None:
            job.lease_until = self.now + LEASE_S

    @rule(claim=claimed)
    def succeed(self, claim: Job) -> None:
        job = self.office.held(claim)
        self.serial += 1
        text = f'"{self.serial}"'
        assert self.run_(self.queue.succeed(claim, text, self.now)) is (job is not None)
        if job is not None:
            assert job.result is None
            job.status, job.result, job.has_audio = "succeeded", text, False

    @rule(claim=claimed)
    def fail(self, claim: Job) -> None:
        job = self.office.held(claim)
        written = self.run_(self.queue.fail(claim, EngineFailed("x"), self.now))
        assert written is (job is not None)
        if job is not None:
            job.status = "failed"

    @rule(claim=claimed, counts=st.booleans(), later_s=st.sampled_from([0.0, 5.0]))
    def put_back(self, claim: Job, counts: bool, later_s: float) -> None:
        job = self.office.held(claim)
        due_at = self.now + later_s
        written = self.run_(self.queue.put_back(claim, due_at, counts=counts))
        assert written is (job is not None)
        if job is not None:
            job.status, job.due_at = "queued", due_at
            job.attempts -= 0 if counts else 1

    @rule(job_id=ids)
    def cancel(self, job_id: str) -> None:
        job = self.office.jobs.get(job_id)
        cancelling = self.orders.cancel(job_id, None, self.now)
        if job is None:
            self.refused(JobNotFound, cancelling)
        elif job.status in {"succeeded", "failed"}:
            self.refused(JobConflict, cancelling)
        else:
            self.run_(cancelling)
            job.status, job.has_audio = "cancelled", False

    @rule(job_id=ids)
    def redrive(self, job_id: str) -> None:
        job = self.office.jobs.get(job_id)
        redriving = self.orders.redrive(job_id, None, self.now)
        if job is None:
            self.refused(JobNotFound, redriving)
        elif job.status != "failed":
            self.refused(JobConflict, redriving)
        else:
            self.run_(redriving)
            job.status, job.attempts = "queued", 0
            job.queued_at = job.due_at = self.now

    @rule(job_id=ids)
    def delete(self, job_id: str) -> None:
        if self.office.jobs.pop(job_id, None) is None:
            self.refused(JobNotFound, self.orders.delete(job_id, None))
        else:
            self.run_(self.orders.delete(job_id, None))

    def refused(self, error: type[Exception], work: Coroutine[Any, Any, Any]) -> None:
        with pytest.raises(error):
            self.run_(work)

    @invariant()
    def everything_is_as_it_should_be(self) -> None:
        found = {job.id: job for job in self.run_(self.orders.list(None, limit=1000))}
        assert set(found) == set(self.office.jobs)
        for job_id, expected in self.office.jobs.items():
            job = found[job_id]
            assert (job.status, job.attempts, job.claims) == (
                expected.status,
                expected.attempts,
                expected.claims,
            )
            if expected.result is not None:
                assert self.run_(self.orders.result(job_id, None))[1] == expected.result
            if expected.has_audio:
                assert self.run_(self.queue.audio(job, 0)) == b"audio"


AnyOrder.TestCase.settings = settings(
    max_examples=20,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestAnyOrder = AnyOrder.TestCase
