from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import pytest
from ray.exceptions import ActorDiedError, RayTaskError, TaskCancelledError
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle

from whisper_serve.engines.base import DecodeTask
from whisper_serve.errors import (
    DeadlineExceeded,
    EngineFailed,
    EngineUnavailable,
    InvalidParameter,
    Overloaded,
    Superseded,
    WhisperServeError,
)
from whisper_serve.serving.breaker import Breaker
from whisper_serve.serving.client import BACKOFF_S, MAX_ATTEMPTS, ReplicaClient
from whisper_serve.text.transcript import Hypothesis

TASK = DecodeTask(np.zeros(16_000, np.int16), timeout_s=5.0)
HEARD = Hypothesis((), "en", 1.0)
DEAD = ActorDiedError()
FAILURES, PAUSE_S = 3, 0.2

Outcome = Hypothesis | BaseException | None


def raised(cause: WhisperServeError) -> RayTaskError:
    """What an engine replica raised, as it comes out here."""
    return cast("RayTaskError", RayTaskError("transcribe", "", cause).as_instanceof_cause())


@dataclass
class Response:
    """What a call gives; for None it gives nothing, ever."""

    outcome: Outcome
    cancelled: bool = False

    def __await__(self) -> Generator[Any, None, Hypothesis]:
        return self._give().__await__()

    async def _give(self) -> Hypothesis:
        if self.outcome is None:
            await asyncio.Event().wait()
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        assert self.outcome is not None
        return self.outcome

    def cancel(self) -> None:
        self.cancelled = True


@dataclass
class Replicas:
    """Call number 0, 1, ... has one of the outcomes, and the last one repeats."""

    outcomes: list[Outcome]
    responses: list[Response] = field(default_factory=list)
    models: list[str] = field(default_factory=list)

    @property
    def transcribe(self) -> Replicas:
        return self

    def options(self, *, multiplexed_model_id: str) -> Replicas:
        self.models.append(multiplexed_model_id)
        return self

    def remote(self, _task: DecodeTask) -> Response:
        number = min(len(self.responses), len(self.outcomes) - 1)
        self.responses.append(Response(self.outcomes[number]))
        return self.responses[-1]

    @property
    def calls(self) -> int:
        return len(self.responses)

    def client(self, make_breaker: Callable[[], Breaker] = Breaker) -> ReplicaClient:
        handle = cast("DeploymentHandle", self)
        return ReplicaClient(handle, make_breaker=make_breaker, chance=lambda: 0.0)


def hasty() -> Breaker:
    return Breaker(FAILURES, PAUSE_S)


async def outcome_of(client: ReplicaClient, task: DecodeTask = TASK) -> object:
    try:
        return await client.transcribe(task)
    except WhisperServeError as exc:
        return exc


def is_heard(outcome: object) -> bool:
    return isinstance(outcome, Hypothesis) and outcome.language == HEARD.language


async def failing(client: ReplicaClient, times: int) -> None:
    """Requests that fail one after the other, not all at once."""
    for _ in range(times):
        assert isinstance(await outcome_of(client), EngineFailed)
        await asyncio.sleep(0.06)


@pytest.fixture(autouse=True)
def _fails_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("whisper_serve.serving.breaker.TOGETHER_S", 0.05)


async def test_an_answer_is_passed_on() -> None:
    assert is_heard(await outcome_of(Replicas([HEARD]).client()))


async def test_a_window_is_asked_for_again_when_its_replica_dies() -> None:
    replicas = Replicas([DEAD, DEAD, HEARD])
    began = time.monotonic()
    assert is_heard(await outcome_of(replicas.client()))
    assert replicas.calls == 3
    assert time.monotonic() - began >= (BACKOFF_S + 2 * BACKOFF_S) / 2


async def test_one_that_kills_every_replica_does_not_kill_them_all() -> None:
    replicas = Replicas([DEAD])
    assert isinstance(await outcome_of(replicas.client()), EngineUnavailable)
    assert replicas.calls == MAX_ATTEMPTS


async def test_it_is_not_asked_for_again_when_there_is_no_time() -> None:
    replicas = Replicas([DEAD])
    task = DecodeTask(TASK.samples, timeout_s=BACKOFF_S / 4)
    assert isinstance(await outcome_of(replicas.client(), task), DeadlineExceeded)
    assert replicas.calls == 1


async def test_what_takes_too_long_is_given_up_there_too() -> None:
    replicas = Replicas([None])
    task = DecodeTask(TASK.samples, timeout_s=0.05)
    assert isinstance(await outcome_of(replicas.client(), task), DeadlineExceeded)
    assert replicas.responses[0].cancelled


@pytest.mark.parametrize(
    "cause", [InvalidParameter("language", "no"), Overloaded(3.0), Superseded(), EngineFailed("x")]
)
async def test_what_the_engine_says_is_passed_on(cause: WhisperServeError) -> None:
    found = await outcome_of(Replicas([raised(cause)]).client())
    assert (type(found), str(found)) == (type(cause), str(cause))


async def test_engines_that_break_again_and_again_are_left_alone() -> None:
    replicas = Replicas([raised(EngineFailed("x"))])
    client = replicas.client(hasty)
    await failing(client, FAILURES)
    began = time.monotonic()
    refusals = [await outcome_of(client) for _ in range(20)]
    assert time.monotonic() - began < PAUSE_S / 2
    assert replicas.calls == FAILURES
    for refusal in refusals:
        assert isinstance(refusal, EngineUnavailable)
        assert 0 < refusal.retry_after_s <= PAUSE_S


async def test_they_are_asked_again_after_a_pause_by_one_request_at_a_time() -> None:
    replicas = Replicas([raised(EngineFailed("x"))] * FAILURES + [None])
    client = replicas.client(hasty)
    await failing(client, FAILURES)
    await asyncio.sleep(PAUSE_S)
    probe = asyncio.create_task(client.transcribe(TASK))
    await asyncio.sleep(0)
    assert isinstance(await outcome_of(client), EngineUnavailable)
    assert replicas.calls == FAILURES + 1
    probe.cancel()
    await asyncio.wait([probe])
    replicas.outcomes.append(HEARD)
    assert is_heard(await outcome_of(client))
    assert is_heard(await outcome_of(client))


@pytest.mark.parametrize(
    "cause", [Overloaded(1.0), Superseded(), DeadlineExceeded(1.0), InvalidParameter("a", "b")]
)
async def test_a_queue_that_is_full_is_no_fault_of_the_engines(cause: WhisperServeError) -> None:
    replicas = Replicas([raised(cause)])
    client = replicas.client(hasty)
    for _ in range(3 * FAILURES):
        assert type(await outcome_of(client)) is type(cause)
        await asyncio.sleep(0.06)
    assert replicas.calls == 3 * FAILURES


async def test_nor_is_a_call_that_was_given_up() -> None:
    replicas = Replicas([TaskCancelledError()])
    client = replicas.client(hasty)
    for _ in range(2 * FAILURES):
        await outcome_of(client)
        await asyncio.sleep(0.06)
    assert replicas.calls == 2 * FAILURES


async def test_no_replicas_at_all_are() -> None:
    replicas = Replicas([RayServeException("there is no deployment")])
    client = replicas.client(hasty)
    for _ in range(FAILURES):
        assert isinstance(await outcome_of(client), EngineUnavailable)
        await asyncio.sleep(0.06)
    await outcome_of(client)
    assert replicas.calls == FAILURES


async def test_many_windows_that_one_replica_takes_with_it_leave_the_others_alone() -> None:
    """They all die at once, and all are asked for again."""
    replicas = Replicas([DEAD] * 50 + [HEARD])
    client = replicas.client(hasty)
    answers = await asyncio.gather(*(outcome_of(client) for _ in range(50)))
    assert all(map(is_heard, answers))


async def test_each_model_is_judged_by_itself() -> None:
    replicas = Replicas([raised(EngineFailed("x"))] * FAILURES + [HEARD])
    client = replicas.client(hasty)
    await failing(client, FAILURES)
    assert isinstance(await outcome_of(client), EngineUnavailable)
    tuned = DecodeTask(TASK.samples, model="tuned", timeout_s=5.0)
    assert is_heard(await outcome_of(client, tuned))
    assert replicas.models == ["tuned"]


async def test_serve_s_own_limit_is_one_of_room() -> None:
    error = BackPressureError(num_queued_requests=9, max_queued_requests=9)
    assert isinstance(await outcome_of(Replicas([error]).client()), Overloaded)
