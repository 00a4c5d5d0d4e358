from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import pytest
from ray.exceptions import ActorDiedError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from whisper_serve.serving.broadcast import asked_of_all, first_answer

PATIENCE_S = 5.0
HASTE_S = 0.05


@dataclass
class Result:
    """What one replica says; None: nothing, ever."""

    outcome: str | BaseException | None

    async def get_async(self) -> str:
        if self.outcome is None:
            await asyncio.Event().wait()
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        assert self.outcome is not None
        return self.outcome


@dataclass
class Replicas:
    """A handle to them. Without any Serve says so; None: it never says which there are."""

    outcomes: Sequence[str | BaseException | None] | None

    def broadcast(self, method: str) -> Replicas:
        assert method == "status"
        return self

    async def _fetch_replica_results_async(self) -> list[Result]:
        if self.outcomes is None:
            await asyncio.Event().wait()
        if not self.outcomes:
            raise RayServeException("no replicas")
        return [Result(outcome) for outcome in self.outcomes]


def handle(*outcomes: str | BaseException | None) -> DeploymentHandle:
    return cast("DeploymentHandle", Replicas(outcomes))


async def outcome(answer: Awaitable[Any]) -> object:
    try:
        return await asyncio.wait_for(asyncio.ensure_future(answer), HASTE_S)
    except (asyncio.TimeoutError, ActorDiedError) as exc:
        return type(exc)


async def test_every_replica_is_asked_and_each_answers_for_itself() -> None:
    answers = await asked_of_all(handle("a", ActorDiedError(), None, "b"), "status", PATIENCE_S)
    assert [await outcome(answer) for answer in answers] == [
        "a", ActorDiedError, asyncio.TimeoutError, "b",
    ]  # fmt: skip


async def test_the_first_answer_counts_whoever_else_is_dead_or_silent() -> None:
    assert await first_answer(handle(None, "here"), "status", PATIENCE_S) == "here"
    assert await first_answer(handle(ActorDiedError(), "here"), "status", PATIENCE_S) == "here"


@pytest.mark.parametrize("others", [(None,), (ActorDiedError(),), (None, ActorDiedError())])
async def test_when_nobody_answers_it_does_not_take_long(
    others: Sequence[BaseException | None],
) -> None:
    began = asyncio.get_running_loop().time()
    with pytest.raises(asyncio.TimeoutError):
        await first_answer(handle(*others), "status", HASTE_S)
    assert asyncio.get_running_loop().time() - began < PATIENCE_S


async def test_without_replicas_there_is_nobody_to_ask() -> None:
    with pytest.raises(RayServeException):
        await first_answer(handle(), "status", PATIENCE_S)


async def test_a_serve_that_does_not_say_whom_to_ask_is_not_waited_for() -> None:
    with pytest.raises(asyncio.TimeoutError):
        await asked_of_all(cast("DeploymentHandle", Replicas(None)), "status", HASTE_S)


async def test_nobody_is_waited_for_any_more_once_there_is_an_answer() -> None:
    await first_answer(handle(None, "here", None), "status", PATIENCE_S)
    others = asyncio.all_tasks() - {asyncio.current_task()}
    assert not others
