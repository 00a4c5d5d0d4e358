"""The native routes have a version in their path, and keep the one without."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from websockets.asyncio.client import connect

from tests.api.fakes import CLIP, TEXT, app_with, client_of, is_failure
from tests.api.streams import running
from whisper_serve.api.deepgram.failures import deepgram_failure
from whisper_serve.api.failures import native_failure

PATHS = ["/transcribe", "/v1/transcribe"]
TOLD_OF_ALL = ("responses", "parameters", "requestBody", "summary", "description")


@pytest.mark.parametrize("path", PATHS)
async def test_a_recording_is_transcribed_under_both_paths(path: str) -> None:
    async with client_of(app_with()) as client:
        answer = await client.post(path, files={"file": CLIP})
    assert answer.json()["text"] == TEXT


@pytest.mark.parametrize("path", PATHS)
async def test_failures_have_the_same_shape_under_both(path: str) -> None:
    async with client_of(app_with()) as client:
        refused = await client.post(path, files={"file": b"no sound"})
        wrong = await client.get(path)
    assert is_failure(refused, 400, "unreadable_audio")
    assert is_failure(wrong, 405, "method_not_allowed")


@pytest.mark.parametrize("path", ["/stream", "/v1/stream"])
async def test_a_stream_is_served_under_both_paths(path: str) -> None:
    async with running(app_with()) as port, connect(f"ws://127.0.0.1:{port}{path}") as socket:
        await socket.send("{}")
        assert json.loads(await socket.recv())["type"] == "ready"
        await socket.send('{"type": "end"}')
        assert json.loads(await socket.recv())["type"] == "done"


def test_the_description_knows_both_and_tells_them_apart() -> None:
    paths: dict[str, dict[str, Any]] = app_with().openapi()["paths"]
    ids = Counter(
        operation["operationId"]
        for operations in paths.values()
        for operation in operations.values()
    )
    assert set(ids.values()) == {1}
    old, new = (paths[path]["post"] for path in PATHS)
    assert [old[key] for key in TOLD_OF_ALL] == [new[key] for key in TOLD_OF_ALL]


def test_what_stands_beside_them_under_v1_keeps_its_own_shape() -> None:
    shapes = app_with().state.failure_shapes
    first = next(shapes[start] for start in shapes if "/v1/transcribe".startswith(start))
    assert first is native_failure
    assert shapes["/v1/listen"] is deepgram_failure
