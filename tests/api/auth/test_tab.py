"""A stream is charged as it goes on, and in the end for what became final of it."""

from __future__ import annotations

import pytest

from tests.api.auth.ledgers import Ledger, bill
from whisper_serve.api.auth.tab import Tab
from whisper_serve.errors import QuotaExceeded


async def test_it_is_charged_every_ten_seconds() -> None:
    ledger = Ledger()
    tab = Tab(bill(ledger))
    for received_s, charged_s in ((0.0, 0.0), (9.9, 0.0), (10.5, 10.5), (20.0, 10.5), (25.0, 25.0)):
        await tab.charge(received_s)
        assert ledger.total == charged_s


async def test_the_end_charges_the_rest() -> None:
    ledger = Ledger()
    tab = Tab(bill(ledger))
    await tab.charge(12.0)
    await tab.settle(15.5)
    assert ledger.total == 15.5


async def test_what_is_heard_elsewhere_is_charged_there() -> None:
    ledger = Ledger()
    tab = Tab(bill(ledger))
    await tab.charge(40.0)
    await tab.settle(31.0)
    assert ledger.total == 31.0


async def test_a_stream_that_says_nothing_costs_nothing() -> None:
    ledger = Ledger()
    await Tab(bill(ledger)).settle(0.0)
    assert ledger.total == 0.0


async def test_more_than_is_left_ends_it_and_is_charged_once() -> None:
    ledger = Ledger()
    tab = Tab(bill(ledger, 30.0))
    await tab.charge(20.0)
    with pytest.raises(QuotaExceeded):
        await tab.charge(35.0)
    await tab.settle(35.0)
    assert ledger.total == 35.0


async def test_the_end_refuses_nothing() -> None:
    ledger = Ledger()
    tab = Tab(bill(ledger, 5.0))
    await tab.settle(9.0)
    assert ledger.total == 9.0


async def test_a_database_that_is_away_is_asked_again() -> None:
    ledger = Ledger()
    tab = Tab(bill(ledger))
    ledger.is_away = True
    await tab.charge(12.0)
    ledger.is_away = False
    await tab.charge(13.0)
    assert ledger.total == 13.0
