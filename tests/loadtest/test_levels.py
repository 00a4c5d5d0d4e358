from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

import pytest
from aiohttp import web

from benchmarks.figures import heading, row
from loadtest.dialects import native
from loadtest.judging import NO_TEXT, WRONG_TEXT, Bounds
from loadtest.levels import COLUMNS, Level, Offer, files_run, notes, rising, spread, streams_run
from loadtest.outcome import CUT
from tests.api.streams import Engine
from tests.loadtest.answering import Handler, clip_of, handled, served, speech_of
from whisper_serve.engines.base import DecodeTask

CLIP = clip_of(4)
BOUNDS = Bounds(most_late_s=5.0)
TEXT = "w0 w1 w2 w3"


def offer(times: Sequence[float], most_open: int = 100, patience_s: float = 20.0) -> Offer:
    return Offer(1.0, times, most_open, patience_s)


async def met(handler: Handler, given: Offer) -> Level:
    async with handled(handler) as access:
        return await files_run(access, [CLIP], BOUNDS)(given)


async def test_a_slow_service_does_not_slow_its_load_down() -> None:
    """It answers nobody until all have asked: a client that waits for one answer before it asks
    again would never come to an end."""
    asked: list[DecodeTask] = []
    all_asked = asyncio.Event()

    async def is_slow(task: DecodeTask) -> None:
        asked.append(task)
        if len(asked) == 4:
            all_asked.set()
        await all_asked.wait()

    times = [0.0, 0.1, 0.2, 0.4]
    async with served(Engine(trouble=is_slow)) as access:
        level = await files_run(access, [CLIP], BOUNDS)(offer(times))
    assert (level.tally.served, level.tally.faults, level.tally.wer) == (4, 0, 0.0)
    # Each counts from its own time to when the last had come.
    waits = [0.4 - time_s for time_s in times]
    delays = [outcome.ended_s for outcome in level.outcomes]
    assert all(d is not None and d >= wait_s for d, wait_s in zip(delays, waits, strict=True))
    assert level.record.most_open == 4


async def test_only_a_right_text_is_a_success() -> None:
    texts = [TEXT, "", "something else altogether", TEXT]

    async def transcribe(_: web.Request) -> web.Response:
        return web.json_response({"success": True, "text": texts.pop()})

    level = await met(transcribe, offer([0.0, 0.01, 0.02, 0.03]))
    assert (level.tally.due, level.tally.served) == (4, 2)
    assert level.tally.failed == {NO_TEXT: 1, WRONG_TEXT: 1}
    assert len(level.tally.delays_s) == 2
    assert [name.split(":")[0] for name in notes([level], BOUNDS)[0]] == ["at 1"]


async def test_refusals_failures_and_what_was_not_sent_are_told_apart() -> None:
    answers = [
        web.Response(status=500, text='{"code": "broken"}'),
        web.Response(status=503),
        web.Response(status=503, headers={"Retry-After": "9"}),
        web.Response(text=json.dumps({"text": TEXT})),
    ]
    held = asyncio.Event()

    async def transcribe(_: web.Request) -> web.Response:
        if answers:
            return answers.pop()
        await held.wait()
        return web.Response()

    # The last two find the one before still open.
    given = offer([0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.1], most_open=1, patience_s=0.1)
    level = await met(transcribe, given)
    tally = level.tally
    assert (tally.due, tally.served, tally.refused, tally.untold) == (7, 1, 2, 1)
    assert tally.failed == {"500 broken": 1}
    assert (tally.unfinished, tally.not_sent, tally.without_text) == (1, 2, 6)
    assert tally.due == tally.served + tally.refused + tally.faults + tally.not_sent
    failed, doubts = notes([level], BOUNDS)
    assert len(failed) == 2  # faults, and a refusal that says nothing
    assert ["were not sent" in doubt for doubt in doubts] == [True]


async def test_a_stream_waits_from_when_it_was_due() -> None:
    async with served(Engine()) as access:
        said = [(speech_of(4), native({"language": "en"}))]
        level = await streams_run(access, said, BOUNDS)(offer([0.0, 0.1]))
    assert (level.tally.served, level.tally.wer, level.tally.deletions) == (2, 0.0, 0)
    assert len(level.tally.delays_s) == 8
    for outcome in level.outcomes:
        assert outcome.waited_s is not None
        mine = [word.s + outcome.waited_s for word in outcome.word_finals]
        assert set(mine) <= set(level.tally.delays_s)


async def test_a_stream_that_is_refused_goes_away() -> None:
    limits = {"streaming": {"max_answer_s": None, "max_sessions": 1}}
    async with served(Engine(), limits) as access:
        said = [(speech_of(4), native({}))]
        level = await streams_run(access, said, BOUNDS)(offer([0.0, 0.3]))
    assert (level.tally.served, level.tally.refused, level.tally.untold) == (1, 1, 0)
    assert notes([level], BOUNDS)[0] == []


async def test_a_stream_without_an_end_is_cut_off() -> None:
    never = asyncio.Event()

    async def waits(_: DecodeTask) -> None:
        await never.wait()

    async with served(Engine(trouble=waits)) as access:
        said = [(speech_of(4), native({}))]
        level = await streams_run(access, said, BOUNDS)(offer([0.0], patience_s=3.0))
        never.set()
    assert [outcome.fault for outcome in level.outcomes] == [CUT]
    assert (level.tally.unfinished, level.tally.served) == (1, 0)


async def test_nobody_listening_is_a_failure() -> None:
    async with served(Engine()) as access:
        pass
    said = [(speech_of(1), native({}))]
    level = await streams_run(access, said, BOUNDS)(offer([0.0]))
    assert level.tally.failed == {"ConnectionRefusedError": 1}


@pytest.mark.parametrize("count", [1, 3])
async def test_levels_can_be_shown(count: int) -> None:
    async def transcribe(_: web.Request) -> web.Response:
        return web.json_response({"text": TEXT})

    levels = [await met(transcribe, offer([0.0] * count)) for _ in range(2)]
    lines = [heading(COLUMNS).splitlines()[0], *(row(level.cells()) for level in levels)]
    assert len({line.count("|") for line in lines}) == 1
    assert json.dumps([level.facts() for level in levels])
    [delay, shares, errors] = rising(levels, "rate")
    assert [y for _, y in shares.curves["served"]] == [1.0, 1.0]
    assert [y for _, y in errors.curves["of all words"]] == [0.0, 0.0]
    # Too few for a quantile are no quantile.
    assert all(y is None for _, y in delay.curves["p95"])
    [spread_out] = spread(levels[0])
    assert set(spread_out.curves) == {"final", "first shown"}
