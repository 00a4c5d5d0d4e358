"""Services over real sockets for the load generator: one that is answered for by a handler, and
the real application with an engine that understands test speech."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from benchmarks.concurrent_clips import wav
from benchmarks.corpus import Passage, Recording
from loadtest.files import Access, Clip
from loadtest.recordings import clips
from loadtest.speech import Speech
from tests.api.fakes import Settings, app_with
from tests.api.streams import Engine, running, said, words
from whisper_serve.audio.pcm import seconds

Handler = Callable[[web.Request], Awaitable[web.Response]]
# However slowly a test's engine answers, nobody is refused for it.
PATIENT = {"max_answer_s": None}


def speech_of(count: int) -> Speech:
    """Says `said(count)`."""
    samples = words(count)
    passage = Passage(0.0, seconds(len(samples)), said(count))
    recording = Recording(Path(f"said-{count}.wav"), passage.text, passage.end, (passage,))
    return Speech(recording, samples, "en")


def clip_of(count: int) -> Clip:
    return clips([speech_of(count)], "wav", "en", {})[0]


def write_corpus(folder: Path, count: int) -> Path:
    """Recordings with their transcripts, as anybody may have them."""
    for number in range(2):
        (folder / f"{number}.wav").write_bytes(wav(words(count).tobytes()))
        (folder / f"{number}.txt").write_text(said(count))
    return folder


@asynccontextmanager
async def handled(handler: Handler) -> AsyncIterator[Access]:
    """`handler` answers what is posted."""
    app = web.Application()
    app.router.add_post("/transcribe", handler)
    app.router.add_get("/health", _healthy)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield Access(f"http://127.0.0.1:{runner.addresses[0][1]}", {})
    finally:
        await runner.cleanup()


async def _healthy(_: web.Request) -> web.Response:
    return web.json_response({"model": "none"})


@asynccontextmanager
async def served(engine: Engine, settings: Settings | None = None) -> AsyncIterator[Access]:
    """The real application."""
    app = app_with(engine, settings={"streaming": PATIENT, **(settings or {})})  # type: ignore[arg-type]
    async with running(app) as port:
        yield Access(f"http://127.0.0.1:{port}", {})
