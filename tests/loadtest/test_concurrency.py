from __future__ import annotations

import asyncio
import json

import pytest
from aiohttp import web

from benchmarks.figures import heading, row
from loadtest.concurrency import (
    COLUMNS,
    Crowd,
    CrowdLevel,
    crowd_level,
    rising,
    run_crowd,
    too_few_descriptors,
)
from loadtest.files import Asking
from loadtest.judging import Bounds
from loadtest.open_loop import Record
from tests.loadtest.answering import Handler, clip_of, handled

CLIP = clip_of(4)
CLIP_S = CLIP.speech.seconds
BOUNDS = Bounds(most_late_s=5.0)
SERVED = json.dumps({"success": True, "text": "w0 w1 w2 w3"})


def answered(after_s: float) -> Asking:
    asking = Asking(CLIP, due=100.0)
    asking.tries(100.0)
    asking.answered(100.0 + after_s, 200, SERVED, None)
    return asking


def level_of(crowd: Crowd, *asking: Asking) -> CrowdLevel:
    return crowd_level(crowd, Record(began_s=100.0), asking, [CLIP], BOUNDS)


def cells(level: CrowdLevel) -> dict[str, object]:
    return dict(zip(COLUMNS, level.cells(), strict=True))


async def met(handler: Handler, crowd: Crowd) -> CrowdLevel:
    """With one answer more, for the clip that goes first alone."""
    is_first = True

    async def transcribe(request: web.Request) -> web.Response:
        nonlocal is_first
        await request.read()
        if is_first:
            is_first = False
            return web.Response(text=SERVED)
        return await handler(request)

    async with handled(transcribe) as access:
        return await run_crowd(access, [CLIP], crowd, BOUNDS)


def test_a_table_is_true_to_its_samples() -> None:
    shown = cells(level_of(Crowd(4), *(answered(s) for s in (1.0, 2.0, 3.0, 6.0))))
    assert (shown["clips"], shown["served"], shown["error rate"]) == (4, 4, "0.00 %")
    assert (shown["avg, s"], shown["p50, s"], shown["max, s"]) == ("3.00", "2.50", "6.00")
    assert shown["audio s / s"] == f"{4 * CLIP_S / 6.0:.1f}"
    assert shown["last after, s"] == "6.00"


@pytest.mark.parametrize(("clients", "p95"), [(19, "-"), (20, "18.05"), (21, "19.00")])
def test_a_p95_of_too_few_samples_is_a_dash_and_not_nothing(clients: int, p95: str) -> None:
    level = level_of(Crowd(clients), *(answered(float(n)) for n in range(clients)))
    assert cells(level)["p95, s"] == p95


def test_failures_count_neither_as_served_nor_as_quick() -> None:
    failed, wrong, never = (Asking(CLIP, due=100.0) for _ in range(3))
    failed.answered(100.1, 500, "{}", None)
    wrong.answered(100.1, 200, '{"success": false, "text": ""}', None)
    level = level_of(Crowd(4), answered(2.0), failed, wrong, never)
    shown = cells(level)
    assert (shown["served"], shown["without text"], shown["error rate"]) == (1, 3, "75.00 %")
    assert shown["avg, s"] == "2.00"
    assert (level.tally.failed.total(), level.tally.unfinished) == (2, 1)
    assert level.why_failed(BOUNDS) == ["4 clients: 3 of 4 failed (allowed: 0 %)"]


def test_nothing_served_has_no_delay() -> None:
    shown = cells(level_of(Crowd(2), Asking(CLIP, 100.0)))
    assert [shown[name] for name in ("avg, s", "p50, s", "p95, s", "max, s")] == ["-"] * 4
    assert (shown["without text"], shown["audio s / s"]) == (2, "0.0")


def test_clips_that_nobody_came_to_are_missing_too() -> None:
    level = level_of(Crowd(2, each=3), answered(1.0))
    assert (level.tally.due, level.tally.served, level.tally.unfinished) == (6, 1, 5)


async def test_clients_ask_all_at_once() -> None:
    waiting, all_there = [], asyncio.Event()

    async def transcribe(request: web.Request) -> web.Response:
        waiting.append(request)
        if len(waiting) == 8:
            all_there.set()
        await all_there.wait()
        return web.Response(text=SERVED)

    level = await met(transcribe, Crowd(8, patience_s=20.0))
    assert (level.tally.served, level.tally.wer) == (8, 0.0)
    assert level.why_failed(BOUNDS) == []


async def test_who_does_not_wait_goes_away_with_a_refusal() -> None:
    async def transcribe(_: web.Request) -> web.Response:
        return web.Response(status=503, headers={"Retry-After": "1"})

    level = await met(transcribe, Crowd(3, patience_s=20.0))
    assert (level.tally.refused, level.tally.untold, level.tally.without_text) == (3, 0, 3)
    assert level.why_failed(BOUNDS) == ["3 clients: not one request was served"]


async def test_patient_clients_all_get_their_text() -> None:
    refused = 3

    async def transcribe(_: web.Request) -> web.Response:
        nonlocal refused
        if refused:
            refused -= 1
            return web.Response(status=503, headers={"Retry-After": "1"})
        return web.Response(text=SERVED)

    level = await met(transcribe, Crowd(4, each=2, patient=True, patience_s=20.0))
    assert (level.tally.served, level.tally.refusals, level.tally.without_text) == (8, 3, 0)
    # Their delays hold the waits that they were told.
    assert sum(delay >= 1.0 for delay in level.tally.delays_s) == 3
    assert level.seconds >= 1.0
    assert level.why_failed(BOUNDS) == []


async def test_a_service_that_never_has_room_does_not_hold_the_table_up() -> None:
    async def transcribe(_: web.Request) -> web.Response:
        return web.Response(status=503, headers={"Retry-After": "600"})

    level = await met(transcribe, Crowd(2, patient=True, patience_s=0.3))
    assert (level.tally.unfinished, level.tally.refusals, level.tally.served) == (2, 2, 0)


def test_a_limit_of_open_files_is_told_before_it_is_met() -> None:
    assert too_few_descriptors(512, limit=20_000) == ""
    assert too_few_descriptors(512, limit=1_024) == ""
    told = too_few_descriptors(512, limit=256)
    assert "512 connections" in told
    assert "256 are allowed" in told


def test_levels_can_be_shown() -> None:
    levels = [level_of(Crowd(2), answered(1.0), answered(2.0)), level_of(Crowd(1))]
    lines = [heading(COLUMNS).splitlines()[0], *(row(level.cells()) for level in levels)]
    assert len({line.count("|") for line in lines}) == 1
    assert json.dumps([level.facts() for level in levels])
    [delay, throughput, without] = rising(levels)
    assert delay.curves["average"] == [(2, 1.5), (1, None)]
    assert throughput.curves["served"] == [(2, CLIP_S), (1, 0.0)]
    assert [y for curve in without.curves.values() for _, y in curve] == [0.0, 1.0]
