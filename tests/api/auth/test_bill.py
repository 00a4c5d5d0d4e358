"""A day's audio is charged before it is worked on, and given back when we fail."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import nullcontext, suppress
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.api.auth.ledgers import NOON, Clock, Ledger, bill
from tests.api.fakes import Lines
from whisper_serve.api.auth.bill import seconds_to_midnight
from whisper_serve.api.auth.usage import AudioInMemory
from whisper_serve.errors import EmptyAudio, EngineFailed, Overloaded, QuotaExceeded


async def test_what_fits_is_charged_up_to_the_last_second() -> None:
    ledger = Ledger()
    await bill(ledger).charge(60.0)
    await bill(ledger).charge(40.0)
    assert ledger.totals == {("radio", "2026-03-01"): 100.0}


async def test_what_does_not_fit_is_refused_and_not_charged() -> None:
    ledger = Ledger()
    await bill(ledger).charge(60.0)
    with pytest.raises(QuotaExceeded) as refused:
        await bill(ledger).charge(41.0)
    assert (refused.value.limit_s, refused.value.retry_after_s) == (100.0, 12 * 3600.0)
    assert ledger.total == 60.0
    await bill(ledger).charge(40.0)


async def test_the_next_day_begins_anew() -> None:
    ledger, clock = Ledger(), Clock()
    await bill(ledger, clock=clock).charge(100.0)
    clock.now += timedelta(hours=12)
    await bill(ledger, clock=clock).charge(100.0)
    assert ledger.totals == {("radio", "2026-03-01"): 100.0, ("radio", "2026-03-02"): 100.0}


async def test_for_who_has_no_limit_nothing_is_counted() -> None:
    ledger = Ledger()
    ledger.is_away = True
    free = bill(ledger, None)
    await free.charge(1e9)
    await free.meter(1e9)
    await free.require_rest()
    await free.give_back()
    assert not ledger.totals


async def test_all_that_was_charged_can_be_given_back_once() -> None:
    ledger = Ledger()
    mine, other = bill(ledger), bill(ledger)
    await other.charge(10.0)
    await mine.charge(30.0)
    await mine.meter(20.0)
    await mine.give_back()
    await mine.give_back()
    assert ledger.total == 10.0


async def test_a_refused_request_has_nothing_to_be_given_back() -> None:
    ledger = Ledger()
    mine = bill(ledger)
    with pytest.raises(QuotaExceeded):
        await mine.charge(101.0)
    await mine.give_back()
    assert ledger.total == 0.0


async def test_it_is_given_back_to_the_days_that_it_was_charged_to() -> None:
    ledger, clock = Ledger(), Clock()
    mine = bill(ledger, clock=clock)
    await mine.meter(30.0)
    clock.now += timedelta(hours=12)
    await mine.meter(20.0)
    await mine.give_back(25.0)
    assert ledger.totals == {("radio", "2026-03-01"): 25.0, ("radio", "2026-03-02"): 0.0}


async def test_who_has_nothing_left_is_told_before_beginning() -> None:
    ledger = Ledger()
    await bill(ledger).require_rest()
    await bill(ledger).charge(100.0)
    with pytest.raises(QuotaExceeded):
        await bill(ledger).require_rest()


@pytest.mark.parametrize(
    ("failure", "left"),
    [
        (EngineFailed("broken"), 0.0),
        (Overloaded(1.0), 0.0),
        (RuntimeError("unforeseen"), 0.0),
        (EmptyAudio("the file is empty"), 40.0),
        (None, 40.0),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_items_that_fail_for_our_fault_cost_nothing(
    failure: Exception | None, left: float
) -> None:
    ledger = Ledger()
    mine = bill(ledger)

    async def items() -> AsyncGenerator[int, None]:
        await mine.charge(40.0)
        yield 1
        if failure is not None:
            raise failure

    given_out: list[int] = []
    with suppress(type(failure)) if failure else nullcontext():
        given_out += [item async for item in mine.unless_failed(items())]
    assert ledger.total == left


async def test_items_that_nobody_wants_any_more_stay_charged() -> None:
    """Or else who hangs up before the last word would pay nothing."""
    ledger = Ledger()
    mine = bill(ledger)

    async def items() -> AsyncGenerator[int, None]:
        await mine.charge(40.0)
        yield 1
        yield 2

    wanted = mine.unless_failed(items())
    assert await anext(wanted) == 1
    await wanted.aclose()
    assert ledger.total == 40.0


async def test_a_database_that_is_away_is_told_in_the_log(lines: Lines) -> None:
    ledger = Ledger()
    mine = bill(ledger)
    await mine.charge(40.0)
    ledger.is_away = True
    await mine.void()
    assert "audio of radio" in lines.messages[-1]


@given(st.datetimes(timezones=st.just(timezone.utc), max_value=datetime(9999, 1, 1)))  # noqa: DTZ001
def test_the_day_ends_at_midnight(now: datetime) -> None:
    left_s = seconds_to_midnight(now)
    assert 0 < left_s <= 86_400
    ends = now + timedelta(seconds=left_s)
    assert (ends.date() - now.date()).days == 1
    assert (ends.hour, ends.minute, ends.second) == (0, 0, 0)


# In memory


async def test_memory_counts_by_name_and_forgets_days_that_are_over() -> None:
    usage = AudioInMemory()
    assert await usage.add("radio", "2026-03-01", 10.0) == 10.0
    assert await usage.add("radio", "2026-03-01", 5.0) == 15.0
    assert await usage.add("other", "2026-03-01", 1.0) == 1.0
    assert await usage.add("radio", "2026-03-01", -15.0) == 0.0
    assert await usage.add("radio", "2026-03-02", 7.0) == 7.0
    assert await usage.add("radio", "2026-03-01", -5.0) == 0.0
    assert await usage.add("radio", "2026-03-02", 0.0) == 7.0
    assert NOON.date().isoformat() == "2026-03-01"
