"""Locust as people call it: `locust --headless -f loadtest/locustfile.py`, in a process of its own
against a server on a real socket."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from benchmarks.processes import free_port
from loadtest.files import NO_SUCCESS
from tests.api.streams import Engine
from tests.loadtest.answering import handled, served
from tests.loadtest.corpora import write_speech
from tests.loadtest.html_pages import parsed

# Importing Locust would change how this whole process waits.
pytestmark = pytest.mark.skipif(
    find_spec("locust") is None, reason="needs what the extra `loadtest` brings"
)

PROJECT = Path(__file__).parent.parent.parent
LIMIT_S = 90.0
WORDS, SECONDS = 6, 3.0
# The speech of these tests is no sound that a voice makes.
AS_IT_IS = ("--stream-config", '{"vad": false}')


@dataclass(frozen=True)
class Run:
    """A load test that has ended. `report` is empty when it wrote none."""

    code: int
    output: str
    report: dict[str, Any]


async def locust(folder: Path, url: str, *options: str) -> Run:
    report = folder / "report.json"
    corpus = write_speech(folder / "speech", WORDS)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "locust", "-f", "loadtest/locustfile.py", "--headless"),
        *("-H", url, "--corpus", str(corpus), "--seconds", str(SECONDS), "-r", "10"),
        *("--report-json", str(report), "--most-late", "30", "--skip-log", *options),
        cwd=PROJECT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), LIMIT_S)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)  # its workers too
        await process.communicate()
        raise
    assert process.returncode is not None
    kept = json.loads(report.read_text()) if report.exists() else {}
    return Run(process.returncode, output.decode(), kept)


async def test_live_streams_are_counted_and_heard_word_by_word_whoever_holds_them(
    tmp_path: Path,
) -> None:
    """Two workers and their master, who has every sample of both."""
    page, port = tmp_path / "report.html", str(free_port())
    async with served(Engine()) as access:
        run = await locust(
            *(tmp_path, access.url, *AS_IT_IS, "-u", "4", "--recordings", "2", "--processes", "2"),
            *("--master-bind-port", port, "--master-port", port, "--report-html", str(page)),
        )
    assert run.code == 0, run.output
    streams = run.report["clients"]["LiveStream"]
    assert streams["counts"] | {"refused attempts": 0} == {
        "begun": 8,
        "served": 8,
        "failed": 0,
        "cut off": 0,
        "refused attempts": 0,
        "without Retry-After": 0,
    }
    # OpenAI's normalizer takes "w0" for two words.
    assert streams["words"]["spoken"] == 2 * 8 * WORDS
    assert streams["words"]["wer"] == 0.0
    assert streams["measures"]["word final"]["n"] == 8 * WORDS
    assert streams["measures"]["word final"]["p95"] is not None
    assert streams["generator_late_s"]["n"] == 8 * SECONDS * 10
    assert all(outcome["took_s"] >= SECONDS for outcome in run.report["outcomes"])
    assert parsed(page).tables[0][1][:3] == ["LiveStream", "8", "8"]


async def test_who_is_refused_comes_back_and_a_200_that_says_it_failed_is_a_failure(
    tmp_path: Path,
) -> None:
    asked: list[web.Request] = []

    async def answer(request: web.Request) -> web.Response:
        await request.post()
        asked.append(request)
        if len(asked) == 1:
            return web.json_response({}, status=503, headers={"Retry-After": "1"})
        return web.json_response({"success": False, "text": "", "error": "no"})

    async with handled(answer) as access:
        run = await locust(tmp_path, access.url, "-u", "2", "FileUpload")
    assert run.code == 1, run.output
    clients = run.report["clients"]["FileUpload"]
    counts = clients["counts"]
    assert (counts["begun"], counts["failed"], counts["refused attempts"]) == (2, 2, 1)
    assert clients["faults"] == {NO_SUCCESS: 2}
    assert len(asked) == 3
    assert "Not passed: nothing was served" in run.output
