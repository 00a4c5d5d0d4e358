from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.server
import threading
from collections.abc import Iterator

import httpx
import pytest

from benchmarks.clusters import Machine, balanced, wait_until
from benchmarks.faults import Losses, several_of
from benchmarks.nodes import COLUMNS, KINDS, Probes, show
from tests.serving.conftest import free_port

PATIENCE_S = 30.0


@contextlib.contextmanager
def proxy(name: str) -> Iterator[Machine]:
    """A machine whose proxy says that it is well, and its name to whoever asks."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(name.encode())

        def log_message(self, *_: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield Machine(name, server.server_port, 0)
    finally:
        server.shutdown()
        server.server_close()
        thread.join(PATIENCE_S)


async def asked(url: str, times: int) -> list[str]:
    """A connection for each."""
    answers: list[str] = []
    while len(answers) < times:
        async with httpx.AsyncClient(timeout=PATIENCE_S, trust_env=False) as http:
            with contextlib.suppress(httpx.TransportError):
                answers.append((await http.get(url)).text)
        await asyncio.sleep(0)
    return answers


async def test_connections_are_led_to_those_that_are_well_in_turn() -> None:
    gone = Machine("gone", free_port(), 0)
    with proxy("one") as one, proxy("two") as two:
        async with balanced(lambda: [one, gone, two]) as url:
            answers = await asyncio.wait_for(asked(url, 4), PATIENCE_S)
    assert sorted(answers) == ["one", "one", "two", "two"]


def test_what_does_not_come_about_is_not_waited_for() -> None:
    assert wait_until(lambda: True, 1.0) < 1.0
    with pytest.raises(TimeoutError, match=r"0\.1 s"):
        wait_until(lambda: False, 0.1)


def test_a_row_has_a_cell_for_each_column() -> None:
    losses = Losses("engine silent", rounds=1, streams=2, whole=2, healed_s=[20.5])
    probes = Probes(slowest_s=1.5)
    probes.failed["/readyz 503"] += 2
    cells = show(losses, probes, [15.25]).strip("| ").split(" | ")
    assert len(cells) == len(COLUMNS)
    assert cells[-4:] == ["20.5", "15.2", "2 x /readyz 503", "1.5"]


def test_kinds_are_named_and_no_others() -> None:
    kinds = several_of(KINDS)
    assert kinds("engine killed,ingress silent") == ["engine killed", "ingress silent"]
    with pytest.raises(argparse.ArgumentTypeError, match="known are engine killed"):
        kinds("engine,moon")
