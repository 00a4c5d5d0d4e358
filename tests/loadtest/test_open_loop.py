from __future__ import annotations

import asyncio
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.open_loop import Attempt, Ledger, Record, offered

SOON_S = 10.0


@given(st.integers(1, 5), st.lists(st.booleans(), max_size=60))
def test_every_request_is_sent_or_counted_as_not_sent(most_open: int, ends: list[bool]) -> None:
    """`ends`: whether a request ends next, or another one is due."""
    ledger, due = Ledger(most_open), 0
    is_open: list[int] = []
    for now, is_end in enumerate(ends):
        if is_end and is_open:
            ledger.end(is_open.pop(0), float(now))
        elif not is_end:
            if ledger.begin(due, float(now), float(now)):
                is_open.append(due)
            due += 1
        assert len(is_open) <= most_open
    record = ledger.record
    assert record.due == due
    assert record.most_open <= most_open
    assert record.unfinished == len(is_open)


def test_what_has_ended_leaves_its_place_to_others() -> None:
    ledger = Ledger(1)
    assert ledger.begin(0, 0.0, 0.0)
    assert not ledger.begin(1, 1.0, 1.0)
    ledger.end(0, 2.0)
    assert ledger.begin(2, 3.0, 3.0)
    assert (ledger.record.due, ledger.record.not_sent, ledger.record.most_open) == (3, 1, 1)


def test_a_record_says_whether_this_program_was_late() -> None:
    prompt = Record([Attempt(0, 1.0, 1.01, 2.0)], ticks_s=[0.002] * 99)
    assert prompt.doubts(0.1) == []
    late_start = Record([Attempt(0, 1.0, 1.3, 2.0)], ticks_s=[0.002] * 99)
    assert ["0.300 s" in doubt for doubt in late_start.doubts(0.1)] == [True]
    late_wake_up = Record([Attempt(0, 1.0, 1.01, 2.0)], ticks_s=[0.002, 0.25])
    assert ["0.250 s" in doubt for doubt in late_wake_up.doubts(0.1)] == [True]


def test_a_record_says_when_not_all_was_sent() -> None:
    record = Record([Attempt(0, 1.0, 1.0, 2.0)], not_sent=3, most_open=1)
    assert record.doubts(0.1) == [
        "3 of 4 requests were not sent, because 1 were open already",
    ]
    assert Record().doubts(0.1) == ["no request was due in this time"]


async def test_requests_start_whether_or_not_earlier_ones_have_ended() -> None:
    began, all_began = [], asyncio.Event()

    async def send(number: int, _due: float) -> None:
        began.append(number)
        if len(began) == 5:
            all_began.set()
        # None ends before the last has begun: whoever waits for answers waits for ever.
        await all_began.wait()

    times = [0.0, 0.01, 0.02, 0.02, 0.03]
    record = await offered(send, times, most_open=5, patience_s=SOON_S)
    assert began == [0, 1, 2, 3, 4]
    assert (record.most_open, record.unfinished, record.not_sent) == (5, 0, 0)


async def test_requests_know_when_they_were_due() -> None:
    dues: list[float] = []

    async def send(_number: int, due: float) -> None:
        dues.append(due)
        assert due <= time.monotonic()

    times = [0.0, 0.01, 0.02]
    record = await offered(send, times, most_open=9, patience_s=SOON_S)
    assert dues == [record.began_s + time_s for time_s in times]
    assert [each.due_s for each in record.attempts] == dues


async def test_requests_beyond_the_most_that_may_be_open_are_counted() -> None:
    async def send(_number: int, _due: float) -> None:
        await asyncio.sleep(0.2)

    record = await offered(send, [0.0] * 7, most_open=3, patience_s=SOON_S)
    assert (record.due, len(record.attempts), record.not_sent) == (7, 3, 4)


async def test_what_does_not_end_in_time_is_ended_and_counted() -> None:
    given_up = []

    async def send(number: int, _due: float) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            given_up.append(number)
            raise

    record = await offered(send, [0.0, 0.01], most_open=9, patience_s=0.02)
    assert record.unfinished == 2
    assert given_up == [0, 1]


async def test_a_fault_of_ours_ends_the_load() -> None:
    cancelled = []

    async def send(number: int, _due: float) -> None:
        if number:
            raise ZeroDivisionError
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.append(number)

    with pytest.raises(ZeroDivisionError):
        await offered(send, [0.0, 0.0], most_open=9, patience_s=SOON_S)
    assert cancelled == [0]


async def test_a_program_that_is_busy_with_itself_notices() -> None:
    async def send(number: int, _due: float) -> None:
        if number == 0:
            time.sleep(0.3)  # noqa: ASYNC251 - which is the fault to be found

    record = await offered(send, [0.0, 0.1], most_open=9, patience_s=SOON_S)
    assert record.attempts[1].late_s >= 0.1
    assert record.doubts(0.1) != []


async def test_nothing_to_send_is_nothing_sent() -> None:
    async def send(_number: int, _due: float) -> None:
        raise AssertionError

    record = await offered(send, [], most_open=9, patience_s=SOON_S)
    assert (record.due, record.late_s(0.99)) == (0, 0.0)
