"""A process that is killed in the middle of a job, and the next one that goes on."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path

from tests.api.fakes import CLIP
from tests.jobs.orders import submitted
from whisper_serve.config import JobsConfig
from whisper_serve.jobs.job import Job
from whisper_serve.jobs.orders import Orders
from whisper_serve.storage.database import Database

PROJECT = Path(__file__).parents[2]
WAIT_S = 60.0
# Works on jobs; hears nothing while there is a file `wait`, and writes `begun` when it is asked.
PROGRAM = """
import asyncio, sys
from pathlib import Path
from tests.api.fakes import ALL_IS_SPEECH, HEARD, FakePort
from whisper_serve.config import Config
from whisper_serve.jobs.runner import Pace, Runner
from whisper_serve.pipeline import TranscribeOptions, Transcriber
from whisper_serve.storage.database import Database

place, folder = sys.argv[1], Path(sys.argv[2])

async def hear(task):
    (folder / "begun").touch()
    while (folder / "wait").exists():
        await asyncio.sleep(0.01)
    return HEARD

async def main():
    jobs = {"database": place, "lease_s": 1.0}
    config = Config.model_validate({"vad": ALL_IS_SPEECH, "jobs": jobs})
    transcriber = Transcriber(FakePort(hear), config)
    pace = Pace(poll_s=0.05, beat_s=0.1)
    database = Database(place)
    await Runner(database, config, transcriber, lambda job: TranscribeOptions(), pace=pace).run()

asyncio.run(main())
"""


def started(place: str, folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", PROGRAM, place, str(folder)]
    return subprocess.Popen(command, cwd=PROJECT, stderr=subprocess.DEVNULL)


async def wait_for_file(path: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not await asyncio.to_thread(path.exists):
        assert process.poll() is None, "the process has ended"
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def ended(orders: Orders, job: Job) -> Job:
    deadline = time.monotonic() + WAIT_S
    while (now := await orders.get(job.id, None)).finished_at is None:
        assert time.monotonic() < deadline, now
        await asyncio.sleep(0.02)
    return now


async def test_the_next_process_goes_on_with_the_job(place: str, tmp_path: Path) -> None:
    database = Database(place)
    orders = Orders(database, JobsConfig(database=place))
    (tmp_path / "wait").touch()
    jobs = [await submitted(orders, audio=CLIP, now=time.time()) for _ in range(3)]
    first = started(place, tmp_path)
    try:
        await wait_for_file(tmp_path / "begun", first)
    finally:
        first.kill()
        first.wait(WAIT_S)
    assert [job.status for job in await orders.list(None)].count("succeeded") == 0
    (tmp_path / "wait").unlink()
    second = started(place, tmp_path)
    try:
        done = [await ended(orders, job) for job in jobs]
    finally:
        second.kill()
        second.wait(WAIT_S)
    assert [job.status for job in done] == ["succeeded"] * 3
    # At most two were at work when the process ended.
    assert min(job.attempts for job in done) == 1
    assert max(job.attempts for job in done) == 2
    for job in jobs:
        assert (await orders.result(job.id, None))[1]
    await database.close()
