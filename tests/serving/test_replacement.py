"""Replicas that Serve replaces while they have work: nobody loses anything."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
from websockets.asyncio.client import connect

from tests.api.streams import said, words
from tests.audio.clips import wav
from tests.serving.conftest import Deploy, Service
from tests.serving.scripted import MOST_GROWTH_BYTES, build_growing, notes
from tests.streaming.speaker import SOUND
from whisper_serve.client import AsyncClient, Done

pytestmark = pytest.mark.server

PATIENCE_S = 90.0
RATE = 16_000
ALL_IS_SPEECH = {"threshold": 1e-6}
CLIP = wav(words(8))


def resident_gib(name: str, deployment: str) -> float:
    """Of the largest replica."""
    wanted = f"ray::ServeReplica:{name}:{deployment}"
    sizes = [
        process.info["memory_info"].rss
        for process in psutil.process_iter(["cmdline", "memory_info"])
        if any(part.startswith(wanted) for part in process.info["cmdline"] or [])
    ]
    return max(sizes, default=0) / 2**30


class Microphone:
    """Says one word after the other in real time, until it is stopped."""

    def __init__(self) -> None:
        self.count = 0
        self.is_on = True

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while self.is_on:
            pause, word = np.zeros(RATE // 10, np.int16), np.full(RATE * 2 // 5, SOUND + self.count)
            self.count += 1
            yield np.concatenate([pause, word]).astype(np.int16).tobytes()
            await asyncio.sleep(0.5)


async def streaming(service: Service, microphone: Microphone) -> str:
    config: Any = {"vad": False, "chunk_duration": 1.0, "interim": False}
    async with (
        AsyncClient(service.url) as client,
        client.stream(aiter(microphone), **config) as events,
    ):
        *_, done = [event async for event in events]
    assert isinstance(done, Done)
    return done.text


async def test_an_engine_that_grows_is_replaced_and_no_request_fails(
    deploy: Deploy, tmp_path: Path
) -> None:
    limit_gib = 1.0
    settings: dict[str, Any] = {
        "model": {"model_dir": str(tmp_path)},
        "vad": ALL_IS_SPEECH,
        "deployment": {
            "num_replicas": 1,
            "health_check_period_s": 0.5,
            "max_replica_memory_gib": limit_gib,
        },
    }
    service = await asyncio.to_thread(deploy, "growing", settings, build_growing)
    assert resident_gib("growing", "WhisperASR") < limit_gib
    assert limit_gib < MOST_GROWTH_BYTES / 2**30
    microphone = Microphone()
    stream = asyncio.create_task(streaming(service, microphone))
    deadline = time.monotonic() + PATIENCE_S
    answers = []
    async with httpx.AsyncClient(base_url=service.url, timeout=PATIENCE_S) as client:
        while len(set(notes(tmp_path, "built"))) < 2 and time.monotonic() < deadline:
            answers.append(await client.post("/transcribe", files={"audio_file": CLIP}))
        answers.append(await client.post("/transcribe", files={"audio_file": CLIP}))
    microphone.is_on = False
    text = await asyncio.wait_for(stream, PATIENCE_S)
    assert len(set(notes(tmp_path, "built"))) >= 2
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.json()["text"] for answer in answers} == {said(8)}
    assert text == said(microphone.count)


async def test_a_stream_is_warned_when_serve_stops_its_ingress(
    deploy: Deploy, tmp_path: Path
) -> None:
    """A new version is deployed; of the old one nobody else knows that it has a client."""
    settings: dict[str, Any] = {
        "model": {"model_dir": str(tmp_path)},
        "server": {"handover_timeout_s": 2.0},
        "deployment": {"health_check_period_s": 0.5},
    }
    service = await asyncio.to_thread(deploy, "moving", settings, build_growing)
    socket = service.url.replace("http", "ws") + "/stream"
    async with connect(socket, proxy=None, ping_interval=None) as connection:
        await connection.send(json.dumps({"vad": False, "interim": False, "chunk_duration": 20.0}))
        await connection.send(words(6).tobytes())
        await until(connection, "ack")
        changed = {**settings, "streaming": {"max_backlog_s": 90.0}}
        deploying = asyncio.create_task(asyncio.to_thread(deploy, "moving", changed, build_growing))
        warning = (await until(connection, "warning"))[-1]
        assert warning["code"] == "draining"
        messages = await until(connection, None)
    assert connection.close_code == 1001
    assert messages[-1]["type"] == "ack"
    assert messages[-1]["committed_until"] == messages[-1]["received_until"] == 3.0
    texts = [message["text"] for message in messages if message["type"] == "final"]
    assert "".join(texts) == said(6)
    await deploying
    health = await asyncio.to_thread(service.client.get, "/readyz")
    assert health.status_code == 200


async def until(connection: Any, kind: str | None) -> list[dict[str, Any]]:
    """What comes up to a message of this kind, or to the close."""

    async def read() -> list[dict[str, Any]]:
        messages: list[dict[str, Any]] = []
        async for frame in connection:
            messages.append(json.loads(frame))
            if messages[-1]["type"] == kind:
                return messages
        assert kind is None
        return messages

    return await asyncio.wait_for(read(), PATIENCE_S)
