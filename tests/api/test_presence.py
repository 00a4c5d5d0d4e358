from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest
from starlette.types import Message

from whisper_serve.api.presence import in_time, while_there
from whisper_serve.errors import ClientGone, DeadlineExceeded, Overloaded

PATIENCE_S = 10.0


class Client:
    """Is there until it `leaves`."""

    def __init__(self) -> None:
        self.left = asyncio.Event()
        self.stopped_listening = False

    async def receive(self) -> Message:
        try:
            await self.left.wait()
        except asyncio.CancelledError:
            self.stopped_listening = True
            raise
        return {"type": "http.disconnect"}


class Work:
    """Takes until it `ends`."""

    def __init__(self) -> None:
        self.end = asyncio.Event()
        self.given_up = False

    async def do(self) -> str:
        try:
            await self.end.wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            self.given_up = True
            raise
        return "done"


async def test_the_result_comes_while_the_client_is_there() -> None:
    client, work = Client(), Work()
    work.end.set()
    assert await while_there(client.receive, work.do()) == "done"
    assert client.stopped_listening


async def test_a_result_counts_though_the_client_just_left() -> None:
    client, work = Client(), Work()
    client.left.set()
    work.end.set()
    assert await while_there(client.receive, work.do()) == "done"


async def test_work_for_a_client_that_left_is_given_up() -> None:
    client, work = Client(), Work()
    waiting = asyncio.ensure_future(while_there(client.receive, work.do()))
    await asyncio.sleep(0)
    client.left.set()
    with pytest.raises(ClientGone):
        await asyncio.wait_for(waiting, PATIENCE_S)
    assert work.given_up


async def test_giving_up_the_call_gives_up_the_work() -> None:
    client, work = Client(), Work()
    waiting = asyncio.ensure_future(while_there(client.receive, work.do()))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting], timeout=PATIENCE_S)
    assert waiting.cancelled()
    assert (work.given_up, client.stopped_listening) == (True, True)


async def test_a_failure_is_raised() -> None:
    async def fail() -> None:
        raise Overloaded(1.0)

    with pytest.raises(Overloaded):
        await while_there(Client().receive, fail())


class Numbers:
    """Counts up to `last` and then waits for ever, unless it `ends`."""

    def __init__(self, last: int, *, ends: bool) -> None:
        self._last, self._ends = last, ends
        self.closed = False

    async def count(self) -> AsyncGenerator[int, None]:
        try:
            for number in range(self._last):
                yield number
            if not self._ends:
                await asyncio.Event().wait()
        finally:
            self.closed = True


async def test_items_in_time_come_through() -> None:
    numbers = Numbers(3, ends=True)
    assert [n async for n in in_time(PATIENCE_S, numbers.count())] == [0, 1, 2]
    assert numbers.closed


async def test_an_item_that_is_late_is_not_waited_for() -> None:
    numbers, seen = Numbers(2, ends=False), []
    with pytest.raises(DeadlineExceeded) as raised:  # noqa: PT012 - what came before it counts
        async for number in in_time(0.1, numbers.count()):
            seen.append(number)  # noqa: PERF401
    assert (seen, raised.value.timeout_s, numbers.closed) == ([0, 1], 0.1, True)


async def test_the_time_is_that_of_all_items_together() -> None:
    async def slowly() -> AsyncGenerator[int, None]:
        for number in range(1_000):
            await asyncio.sleep(0.02)
            yield number

    with pytest.raises(DeadlineExceeded):
        assert [n async for n in in_time(0.2, slowly())] == []


async def test_closing_closes_what_it_waits_for() -> None:
    numbers = Numbers(3, ends=False)
    items = in_time(PATIENCE_S, numbers.count())
    assert await anext(items) == 0
    await items.aclose()
    assert numbers.closed
