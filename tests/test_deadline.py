"""Work is done in time, or it is cancelled; and whoever waits for it can be cancelled too."""

from __future__ import annotations

import asyncio

import pytest

from whisper_serve.deadline import within


async def at_once() -> str:
    return "done"


async def never(cancelled: asyncio.Event) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        cancelled.set()


async def test_work_that_is_done_in_time_gives_its_result() -> None:
    assert await within(10.0, at_once()) == "done"


async def test_what_the_work_raises_is_raised() -> None:
    async def fail() -> None:
        raise KeyError("why")

    with pytest.raises(KeyError, match="why"):
        await within(10.0, fail())


async def test_work_that_takes_too_long_is_cancelled() -> None:
    cancelled = asyncio.Event()
    with pytest.raises(asyncio.TimeoutError):
        await within(0.01, never(cancelled))
    assert cancelled.is_set()


async def test_work_is_cancelled_with_the_one_who_waits() -> None:
    cancelled = asyncio.Event()
    waiting = asyncio.create_task(within(10.0, never(cancelled)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert cancelled.is_set()


@pytest.mark.parametrize("turns", range(5))
async def test_a_cancellation_that_comes_when_the_work_is_done_is_not_lost(turns: int) -> None:
    async def wait() -> None:
        await within(10.0, at_once())
        await asyncio.Event().wait()

    waiting = asyncio.create_task(wait())
    for _ in range(turns):
        await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(asyncio.shield(waiting), 1.0)
