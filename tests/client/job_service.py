"""The real service with jobs and keys, in a thread of its own, with an engine that is told when to
answer."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.api.fakes import ALL_IS_SPEECH, HEARD, FakeEngines, FakePort
from tests.api.streams import running
from whisper_serve.api.app import create_app
from whisper_serve.api.routes.transcribe import options_of
from whisper_serve.api.schemas import TranscribeParameters
from whisper_serve.api.services import Services
from whisper_serve.config import Config
from whisper_serve.engines.base import DecodeTask
from whisper_serve.jobs.job import Job
from whisper_serve.jobs.orders import Orders
from whisper_serve.jobs.runner import Pace, Runner
from whisper_serve.pipeline import TranscribeOptions, Transcriber
from whisper_serve.storage.database import Database
from whisper_serve.text.transcript import Hypothesis

WAIT_S = 10.0
KEYS = {"ada": "wsk_ada", "bob": "wsk_bob"}
SETTINGS: dict[str, dict[str, Any]] = {
    "vad": ALL_IS_SPEECH,
    "auth": {
        "keys": [
            {"name": name, "sha256": hashlib.sha256(key.encode()).hexdigest()}
            for name, key in KEYS.items()
        ]
    },
}


@dataclass
class JobService:
    """`release` lets the engine answer, `hold` makes it wait."""

    url: str
    loop: asyncio.AbstractEventLoop
    gate: asyncio.Event

    def release(self) -> None:
        self.loop.call_soon_threadsafe(self.gate.set)

    def hold(self) -> None:
        self.loop.call_soon_threadsafe(self.gate.clear)


def _options_of(job: Job) -> TranscribeOptions:
    return options_of(TranscribeParameters.model_validate(job.parameters), "base", job.request_id)


async def _serve(folder: Path, started: Future[tuple[JobService, asyncio.Event]]) -> None:
    gate, over = asyncio.Event(), asyncio.Event()
    gate.set()

    async def answer(task: DecodeTask) -> Hypothesis:
        await gate.wait()
        return HEARD

    config, database = Config.model_validate(SETTINGS), Database(str(folder / "jobs.sqlite3"))
    port = FakePort(answer)
    transcriber, orders = Transcriber(port, config), Orders(database, config.jobs)
    runner = Runner(database, config, transcriber, _options_of, pace=Pace(poll_s=0.05, beat_s=0.1))
    services = Services(
        *(config, transcriber, port, FakeEngines(), "key"), jobs=orders, nudge_runners=runner.nudge
    )
    async with running(create_app(services)) as number:
        working = asyncio.create_task(runner.run())
        url = f"http://127.0.0.1:{number}"
        started.set_result((JobService(url, asyncio.get_running_loop(), gate), over))
        await over.wait()
        working.cancel()
        with suppress(asyncio.CancelledError):
            await working
        await database.close()


@contextmanager
def serving_jobs(folder: Path) -> Iterator[JobService]:
    started: Future[tuple[JobService, asyncio.Event]] = Future()

    def live() -> None:
        try:
            asyncio.run(_serve(folder, started))
        except BaseException as exc:
            if started.done():
                raise
            started.set_exception(exc)

    thread = threading.Thread(target=live)
    thread.start()
    service, over = started.result(WAIT_S)
    try:
        yield service
    finally:
        service.loop.call_soon_threadsafe(over.set)
        thread.join(WAIT_S)
