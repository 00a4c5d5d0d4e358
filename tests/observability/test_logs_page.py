"""The lines in `docs/logs.md` are those that are printed."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from tests.api.fakes import CLIP, HEARD, app_with, client_of
from tests.api.streams import HASTY, serving, words
from tests.observability.logged import Logged
from tests.streaming.speaker import Ears
from whisper_serve.api import live
from whisper_serve.api.routes.stream import stream_router
from whisper_serve.config import LINE_CONTEXT, LogCategory
from whisper_serve.engines.base import DecodeTask
from whisper_serve.serving.told import told
from whisper_serve.text.transcript import Hypothesis

PAGE = (Path(__file__).parents[2] / "docs" / "logs.md").read_text("utf-8")
EXAMPLES = [json.loads(line) for line in PAGE.splitlines() if line.startswith("{")]
REQUEST, STREAM, RECORDING, WINDOW = EXAMPLES


def same(line: dict[str, Any], example: dict[str, Any]) -> bool:
    kinds = [{key: type(value) for key, value in each.items()} for each in (line, example)]
    return [*line] == [*example] and kinds[0] == kinds[1]


async def test_a_request_and_a_recording_are_as_shown(log: Logged) -> None:
    log.configure(format="json")
    async with client_of(app_with()) as client:
        await client.post("/transcribe", files={"file": CLIP})
    [request], [recording] = log.objects("access"), log.objects("performance")
    assert same(request, REQUEST)
    assert same(recording, RECORDING)


async def test_a_stream_is_as_shown(log: Logged, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "SileroVad", Ears)
    log.configure(format="json")
    server = partial(serving, partial(stream_router, timing=HASTY))
    async with server() as running, running.client({}) as client:
        await client.send(words(2), {"type": "end"})
        await client.closed()
    [stream] = log.objects("access")
    assert same(stream, STREAM)


async def test_a_window_is_as_shown(log: Logged) -> None:
    async def hear() -> Hypothesis:
        return HEARD

    log.configure(format="json")
    task = DecodeTask(np.zeros(16_000, np.int16), request_id="r-1")
    await told(task, hear(), model="base", with_text=False)
    [window] = log.objects("performance")
    assert same(window, WINDOW)


async def test_text_is_as_shown(log: Logged) -> None:
    log.configure()
    async with client_of(app_with()) as client:
        await client.get("/nowhere")
    [line] = log.lines("access")
    shown = next(each for each in PAGE.splitlines() if each.startswith("2026-"))
    date, time, level, process, logger, request_id, *_ = line.split()
    assert len((date, time, level, process, logger, request_id)) == 6
    shape = [part.partition("-")[0] for part in shown.split()[2:5]]
    assert shape == [level, "ingress", logger]
    assert process.startswith("test-")
    assert request_id.startswith("[")


@pytest.mark.parametrize("name", [*get_args(LogCategory)])
def test_every_category_is_named(name: str) -> None:
    assert f"whisper_service.{name}.ingress-4711.log" in PAGE


@pytest.mark.parametrize("name", LINE_CONTEXT)
def test_what_every_line_may_have_is_named(name: str) -> None:
    assert f"`{name}`" in PAGE
