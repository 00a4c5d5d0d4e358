from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from aiohttp import web

from loadtest.__main__ import main
from loadtest.concurrency import Crowd
from loadtest.programs import compared
from tests.api.streams import Engine
from tests.loadtest.answering import handled, served, write_corpus
from tests.loadtest.test_concurrency import answered, level_of

# Whatever else this machine does at the time, it is not what these tests are about.
NEVER_LATE = ("--most-late", "60")
QUICK = ("--duration", "0.3", "--rate", "10", "--arrivals", "uniform")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"), 40)


async def ran(*arguments: object) -> int:
    """In a thread: it has an event loop of its own."""
    return await asyncio.to_thread(main, [*map(str, arguments), *NEVER_LATE])


async def test_files_that_are_all_served_pass(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept, page, picture = (tmp_path / name for name in ("kept.json", "page.html", "picture.svg"))
    async with served(Engine()) as access:
        code = await ran(
            *("rest", "--url", access.url, "--corpus", folder, *QUICK, "--longest", "3"),
            *("--as", "flac", "--json", kept, "--html", page, "--plot", picture),
        )
    assert code == 0
    [level] = json.loads(kept.read_text())["levels"]
    assert [outcome["fault"] for outcome in level["outcomes"]] == ["", "", ""]
    assert "<table>" in page.read_text()
    assert "<svg" in picture.read_text()
    assert len(capsys.readouterr().out.strip().splitlines()) == 5


async def test_streams_are_swept_level_by_level(folder: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept.json"
    async with served(Engine()) as access:
        code = await ran(
            *("sweep", "stream", "--url", access.url, "--corpus", folder, "--users", "1,3"),
            *("--spread", "0.2", "--pause", "0", "--seconds", "1", "--json", kept),
        )
    assert code == 0
    levels = json.loads(kept.read_text())["levels"]
    assert [(level["name"], len(level["outcomes"])) for level in levels] == [(1, 1), (3, 3)]
    assert {outcome["kind"] for level in levels for outcome in level["outcomes"]} == {"LiveStream"}


async def test_failures_fail(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def transcribe(_: web.Request) -> web.Response:
        return web.Response(status=500)

    async with handled(transcribe) as access:
        given = ("rest", "--url", access.url, "--corpus", folder, *QUICK)
        assert await ran(*given) == 1
        assert "3 of 3 failed" in capsys.readouterr().err


async def test_what_was_not_sent_is_no_result(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def transcribe(request: web.Request) -> web.Response:
        await request.read()
        await asyncio.sleep(0.5)
        return web.json_response({"text": "w0"})

    async with handled(transcribe) as access:
        given = ("rest", "--url", access.url, "--corpus", folder, *QUICK)
        assert await ran(*given, "--max-open", "1", "--most-wer", "9") == 3
        assert "INVALID at 10: 2 of 3 requests were not sent" in capsys.readouterr().err


async def test_two_services_are_compared(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with served(Engine()) as ours, served(Engine()) as other:
        code = await ran(
            *("concurrency", "--url", ours.url, "--beside", other.url, "--corpus", folder),
            *("--levels", "1,2", "--longest", "2", "--patient"),
        )
    assert code == 0
    told = capsys.readouterr()
    assert len(told.out.strip().splitlines()) == 8
    assert told.err.count("times better") == 2


async def test_a_key_is_shown_to_its_own_service_only(folder: Path) -> None:
    shown: list[str | None] = []

    async def transcribe(request: web.Request) -> web.Response:
        await request.read()
        shown.append(request.headers.get("Authorization"))
        return web.json_response({"text": "w0"})

    async with handled(transcribe) as ours, handled(transcribe) as other:
        await ran(
            *("concurrency", "--url", ours.url, "--beside", other.url, "--corpus", folder),
            *("--levels", "1", "--key", "secret"),
        )
    assert shown == ["Bearer secret"] * 2 + [None] * 2


def test_ratios_are_of_quantiles_and_throughput() -> None:
    ours = level_of(Crowd(2), answered(1.0), answered(1.0))
    other = level_of(Crowd(2), answered(4.0), answered(4.0))
    assert compared(ours, other) == (
        "2 clients, times better: p50 4.0, p95 -, p99 -, throughput 4.0"
    )


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["rest", "--rate", "0"], "more than 0 is wanted"),
        (["rest", "--rate", "nan"], "more than 0 is wanted"),
        (["rest", "--longest", "2", "--shortest", "3"], "--shortest"),
        (["rest", "--seconds", "2"], "unrecognized"),
        (["stream", "--as", "mp3"], "unrecognized"),
        (["sweep", "files"], "invalid choice"),
        (["sweep", "rest", "--rates", "1", "--users", "2"], "not allowed with"),
        (["concurrency", "--levels", "4,0"], "numbers from 1"),
        (["concurrency", "--most-failed", "2"], "share from 0 to 1"),
        ([], "required"),
    ],
)
def test_wrong_options_are_told(
    arguments: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert why in capsys.readouterr().err


async def test_nobody_listening_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with served(Engine()) as access:
        pass
    assert await ran("rest", "--url", access.url, "--corpus", folder, *QUICK) == 2
    assert "does not answer" in capsys.readouterr().err


async def test_no_speech_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with served(Engine()) as access:
        assert await ran("rest", "--url", access.url, "--corpus", tmp_path, *QUICK) == 2
    assert "corpus" in capsys.readouterr().err
