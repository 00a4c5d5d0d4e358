"""So many in a minute pass, for each name."""

from __future__ import annotations

import asyncio

from limits.aio.storage import MemoryStorage

from whisper_serve.api.auth.rates import Rates


async def test_so_many_pass_and_others_wait() -> None:
    rates = Rates("requests")
    waits = [await rates.hit("radio", 5) for _ in range(8)]
    assert waits[:5] == [0.0] * 5
    # Where a minute of the clock begins meanwhile, one more passes.
    assert all(1.0 <= wait_s <= 60.0 for wait_s in waits[6:])


async def test_one_name_does_not_wait_for_another() -> None:
    rates = Rates("requests")
    assert [await rates.hit(str(number), 1) for number in range(50)] == [0.0] * 50


async def test_two_kinds_are_counted_apart() -> None:
    requests, wrong_keys = Rates("requests"), Rates("wrong keys")
    for _ in range(3):
        await requests.hit("radio", 1)
    assert await wrong_keys.hit("radio", 1) == 0.0


async def test_those_who_come_at_once_do_not_all_pass() -> None:
    rates = Rates("requests")
    waits = await asyncio.gather(*(rates.hit("radio", 3) for _ in range(20)))
    assert waits.count(0.0) in {3, 4}


async def test_no_task_is_left() -> None:
    await Rates("requests").hit("radio", 1)
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_names_without_end_take_a_bounded_room() -> None:
    rates = Rates("wrong keys", most_names=8)
    for number in range(200):
        await rates.hit(f"10.0.0.{number}", 1_000)
    storage = rates._limiter.storage
    assert isinstance(storage, MemoryStorage)
    assert 0 < len(storage.storage) <= 2 * 8
