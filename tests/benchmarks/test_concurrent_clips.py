from __future__ import annotations

import asyncio
import io
import wave
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from benchmarks.concurrent_clips import Clients, Level, Limits, form_with, retry_after_s, wav

Handler = Callable[[web.Request], Awaitable[web.Response]]
SOON = Limits(requests=6, seconds=20.0, patience_s=20.0)


@asynccontextmanager
async def service(handler: Handler) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/transcribe", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def asked(handler: Handler, limits: Limits = SOON, clients: int = 2) -> Level:
    level = Level(clients)
    async with service(handler) as url:
        await Clients(url, [form_with(wav(bytes(320)))], level, limits).run()
    return level


@pytest.mark.parametrize(
    ("header", "wait_s"),
    [("1", 1.0), ("17", 17.0), (None, None), ("0", None), ("-1", None), ("soon", None)],
)
def test_a_refusal_has_to_say_when_to_come_back(header: str | None, wait_s: float | None) -> None:
    assert retry_after_s(header) == wait_s


async def test_a_clip_is_a_wav_file_in_the_field_file() -> None:
    async def transcribe(request: web.Request) -> web.Response:
        upload = (await request.post())["file"]
        assert isinstance(upload, web.FileField)
        with wave.open(io.BytesIO(upload.file.read())) as clip:
            assert (clip.getnframes(), clip.getframerate(), clip.getnchannels()) == (160, 16_000, 1)
        return web.json_response({"text": ""})

    level = await asked(transcribe)
    assert (level.asked, len(level.latencies_s)) == (6, 6)


async def test_refusals_and_faults_are_told_apart() -> None:
    answers = [
        web.Response(),
        web.Response(status=503, headers={"Retry-After": "1"}),
        web.Response(status=503),
        web.Response(status=500, text="broken"),
    ]

    async def transcribe(_: web.Request) -> web.Response:
        return answers.pop()

    level = await asked(transcribe, Limits(requests=4, seconds=20.0, patience_s=20.0), clients=4)
    assert (len(level.latencies_s), level.refused, level.untold) == (1, 2, 1)
    assert level.other == {"500 broken": 1}


async def test_clients_ask_at_the_same_time() -> None:
    waiting, together = [], asyncio.Event()

    async def transcribe(request: web.Request) -> web.Response:
        waiting.append(request)
        if len(waiting) == 3:
            together.set()
        await asyncio.wait_for(together.wait(), 10)
        return web.Response()

    level = await asked(transcribe, clients=3)
    assert (len(level.latencies_s), level.other) == (6, {})


async def test_what_is_not_answered_in_time_is_counted() -> None:
    async def transcribe(_: web.Request) -> web.Response:
        await asyncio.sleep(60)
        return web.Response()

    level = await asked(transcribe, Limits(requests=9, seconds=0.1, patience_s=0.2))
    assert (level.asked, level.latencies_s, level.unfinished) == (2, [], 2)
