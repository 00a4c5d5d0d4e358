"""The service is told to stop and is started again while clients stream; they notice a pause."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from websockets.asyncio.client import ClientConnection, connect

from tests.e2e.service import command, free_port, started, wait_for, write_config
from whisper_serve.audio.decode import decode
from whisper_serve.audio.pcm import SAMPLE_RATE, Samples
from whisper_serve.client import AsyncClient, Done, Event, Final, Reconnecting, Warned

pytestmark = [pytest.mark.server, pytest.mark.weights]

CLIENTS = 3
SPEECH_S = 24.0
PIECE = SAMPLE_RATE // 10
PATIENCE_S = 120.0


@pytest.fixture
def speech(corpus: Path) -> Samples:
    """Speech that does not repeat itself: what does is decoded again, and not always alike."""
    with (corpus / "long/669-129074.flac").open("rb") as file:
        recording = decode(file, accepted=(".flac",), max_duration_s=600.0)
    return recording[: round(SPEECH_S * SAMPLE_RATE)]


@pytest.fixture
def config(tmp_path: Path, model_dir: Path, tiny_ctranslate2: Path) -> Path:
    # However long an answer takes: what is heard must not depend on what else there is to do.
    streaming = {"target_answer_s": None, "max_answer_s": None}
    return write_config(
        tmp_path,
        server={"port": free_port(), "drain_timeout_s": 4.0},
        model={"size": str(tiny_ctranslate2), "beam_size": 1},
        streaming={**streaming, "beam_size": 1},
        jobs={"database": None},
    )


def address(config: Path) -> str:
    return f"http://127.0.0.1:{json.loads(config.read_text())['server']['port']}"


async def microphone(speech: Samples, spoken: asyncio.Event | None = None) -> AsyncIterator[bytes]:
    """In real time; `spoken` is set when half of it was said."""
    began = time.monotonic()
    for first in range(0, len(speech), PIECE):
        await asyncio.sleep(max(0.0, began + first / SAMPLE_RATE - time.monotonic()))
        yield speech[first : first + PIECE].tobytes()
        if spoken is not None and first > len(speech) / 2:
            spoken.set()


async def streamed(url: str, source: Any) -> list[Event]:
    async with (
        AsyncClient(url, give_up_after_s=PATIENCE_S) as client,
        client.stream(source, interim=False) as events,
    ):
        return [event async for event in events]


def text_of(events: Sequence[Event]) -> str:
    done = events[-1]
    assert isinstance(done, Done)
    finals = [event.text for event in events if isinstance(event, Final)]
    assert "".join(finals).strip() == done.text
    return done.text


async def gone(process: subprocess.Popen[bytes]) -> None:
    assert await asyncio.to_thread(process.wait, 60) == 0


async def test_streams_outlive_a_restart_of_the_service(
    config: Path, speech: Samples, tmp_path: Path
) -> None:
    url = address(config)
    halfway = [asyncio.Event() for _ in range(CLIENTS)]
    log = tmp_path / "first"
    with started(command(config), log) as process:
        await asyncio.to_thread(wait_for, log, "ready at", process)
        undisturbed = text_of(await streamed(url, speech))
        streams = [
            asyncio.create_task(streamed(url, microphone(speech, event))) for event in halfway
        ]
        await asyncio.wait_for(asyncio.gather(*(event.wait() for event in halfway)), PATIENCE_S)
        process.send_signal(signal.SIGTERM)
        await gone(process)
        assert "draining for 4 s at most" in log.read_text()
    # Serve's proxy has one on the console when a client leaves in the middle of a message.
    assert not [path for path in (tmp_path / "logs").iterdir() if "Traceback" in path.read_text()]
    log = tmp_path / "second"
    with started(command(config), log) as process:
        heard = await asyncio.wait_for(asyncio.gather(*streams), PATIENCE_S)
        process.send_signal(signal.SIGTERM)
        await gone(process)
    assert len(undisturbed.split()) > 20
    assert [text_of(events) for events in heard] == [undisturbed] * CLIENTS
    for events in heard:
        assert any(isinstance(event, Warned) and event.code == "draining" for event in events)
        assert any(isinstance(event, Reconnecting) for event in events)


async def test_what_is_under_way_ends_and_what_is_new_is_refused(
    config: Path, speech: Samples, tmp_path: Path
) -> None:
    """One signal: a client that stays gets the text of all that it sent, and 1001."""
    url, log = address(config), tmp_path / "output"
    with started(command(config), log) as process:
        await asyncio.to_thread(wait_for, log, "ready at", process)
        socket = url.replace("http", "ws") + "/stream"
        async with connect(socket, proxy=None, ping_interval=None) as connection:
            await connection.send('{"interim": false}')
            await connection.send(speech[: 8 * SAMPLE_RATE].tobytes())
            messages = await until(connection, "ack")
            os.killpg(process.pid, signal.SIGINT)  # as from a terminal: all of them get it
            messages += await until(connection, "warning")
            assert messages[-1]["code"] == "draining"
            async with httpx.AsyncClient(base_url=url) as client:
                await refusals(client)
            messages += await until(connection, None)
        assert connection.close_code == 1001
        assert messages[-1]["type"] == "ack"
        assert messages[-1]["committed_until"] == messages[-1]["received_until"] == 8.0
        assert messages[-1]["resume"]["committed_until"] == 8.0
        text = "".join(message["text"] for message in messages if message["type"] == "final")
        assert len(text.split()) >= 5
        family = psutil.Process(process.pid).children(recursive=True)
        await gone(process)
        _, alive = psutil.wait_procs(family, timeout=10)
        assert alive == []


async def until(connection: ClientConnection, kind: str | None) -> list[dict[str, Any]]:
    """What comes up to a message of this kind, or to the close."""

    async def read() -> list[dict[str, Any]]:
        messages: list[dict[str, Any]] = []
        async for frame in connection:
            messages.append(json.loads(frame))
            if messages[-1]["type"] == kind:
                return messages
        assert kind is None
        return messages

    return await asyncio.wait_for(read(), 30)


async def refusals(client: httpx.AsyncClient) -> None:
    health = await client.get("/readyz")
    assert (health.status_code, health.json()["status"]) == (503, "draining")
    assert (await client.get("/livez")).status_code == 200
    refused = await client.post("/transcribe", files={"audio_file": b"x" * 100})
    assert (refused.status_code, refused.json()["code"]) == (503, "draining")
    assert int(refused.headers["retry-after"]) >= 1


async def test_a_second_signal_ends_it_at_once(
    config: Path, speech: Samples, tmp_path: Path
) -> None:
    url, log = address(config), tmp_path / "output"
    with started(command(config), log) as process:
        await asyncio.to_thread(wait_for, log, "ready at", process)
        async with connect(url.replace("http", "ws") + "/stream", proxy=None) as connection:
            await connection.send(speech[:SAMPLE_RATE].tobytes())
            await until(connection, "ack")
            process.send_signal(signal.SIGTERM)
            await until(connection, "warning")
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            await gone(process)
        assert time.monotonic() - began < 10.0
        assert log.read_text().rstrip().endswith("whisper_serve: stopped")
