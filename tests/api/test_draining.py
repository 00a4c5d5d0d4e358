"""A process that is about to stop loses nothing that it was given."""

from __future__ import annotations

import asyncio
import json
import time
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect

from tests.api.fakes import (
    ALL_IS_SPEECH,
    CLIP,
    HEARD,
    OPEN,
    TEXT,
    FakeEngines,
    FakePort,
    Wire,
    client_of,
    is_failure,
)
from tests.api.streams import (
    HASTY,
    PATIENCE_S,
    Engine,
    ScriptedPeer,
    for_ever,
    quiet,
    running,
    said,
    words,
)
from tests.audio.clips import tone
from whisper_serve.api.app import create_app
from whisper_serve.api.door import Door
from whisper_serve.api.draining import Drain
from whisper_serve.api.live import Timing, converse
from whisper_serve.api.services import Services
from whisper_serve.config import Config
from whisper_serve.engines.base import DecodeTask
from whisper_serve.errors import Draining, EngineUnavailable
from whisper_serve.pipeline import Transcriber
from whisper_serve.streaming.messages import Ack, Done, End, Failed, Final, Warned
from whisper_serve.text.transcript import Hypothesis

PLAIN = {"chunk_duration": 1.0, "overlap": 0.1, "interim": False}
# All that came is settled at once.
SETTLES = Timing(config_s=0.2, ack_every_s=0.02, longest_wait_s=0.05, settle_s=5.0)
HASTY_SETTLING = replace(SETTLES, settle_s=0.2, last_words_s=0.3)


# The drain itself


async def test_it_is_over_after_its_time() -> None:
    drain = Drain()
    drain.require_open()
    began = time.monotonic()
    drain.begin(0.05)
    with pytest.raises(Draining):
        drain.require_open()
    await asyncio.wait_for(drain.over(), PATIENCE_S)
    assert time.monotonic() - began >= 0.04


async def test_said_twice_the_shorter_time_counts() -> None:
    drain = Drain()
    drain.begin(0.05)
    drain.begin(60.0)
    await asyncio.wait_for(drain.over(), PATIENCE_S)
    drain = Drain()
    drain.begin(60.0)
    drain.begin(0.05)
    await asyncio.wait_for(drain.over(), PATIENCE_S)


async def test_it_says_how_long_it_takes_yet() -> None:
    assert Drain().left_s is None
    drain = Drain()
    drain.begin(60.0)
    assert drain.left_s == pytest.approx(60.0, abs=PATIENCE_S)
    drain.begin(0.0)
    await asyncio.wait_for(drain.over(), PATIENCE_S)
    assert drain.left_s == 0.0


async def test_work_goes_on_until_it_is_over() -> None:
    drain = Drain()
    drain.begin(0.05)
    assert await drain.unless_over(asyncio.sleep(0, "done")) == "done"
    with pytest.raises(Draining):
        await asyncio.wait_for(drain.unless_over(asyncio.sleep(60)), PATIENCE_S)


# Requests


class Held:
    """A service whose engine answers when it is told to, and how much it has under way."""

    def __init__(self) -> None:
        self.go_on, self.began = asyncio.Event(), asyncio.Event()
        config = Config.model_validate({"vad": ALL_IS_SPEECH, "auth": OPEN})
        port = FakePort(self._hear)
        services = Services(config, Transcriber(port, config), port, FakeEngines(), "key")
        self.app = create_app(services)
        self.drain = services.door.drain

    async def _hear(self, _task: DecodeTask) -> Hypothesis:
        self.began.set()
        await self.go_on.wait()
        return HEARD

    @asynccontextmanager
    async def asked(self, path: str = "/transcribe") -> AsyncIterator[asyncio.Task[httpx.Response]]:
        """A request whose window is with the engine."""
        async with client_of(self.app) as client:
            form: dict[str, Any] = {"files": {"file": CLIP}, "data": {"model": "whisper-1"}}
            if path == "/transcribe":
                form = {"files": {"file": CLIP}}
            task = asyncio.create_task(client.post(path, **form))
            await asyncio.wait_for(self.began.wait(), PATIENCE_S)
            yield task


async def test_a_request_that_is_under_way_goes_on() -> None:
    held = Held()
    async with held.asked() as request:
        assert held.drain.under_way == 1
        held.drain.begin(PATIENCE_S)
        held.go_on.set()
        assert (await request).status_code == 200
    assert held.drain.under_way == 0


@pytest.mark.parametrize("path", ["/transcribe", "/v1/audio/transcriptions"])
async def test_one_that_takes_too_long_is_told_so(path: str) -> None:
    held = Held()
    async with held.asked(path) as request:
        held.drain.begin(0.05)
        answer = await asyncio.wait_for(request, PATIENCE_S)
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1
    assert "draining" in answer.text
    assert held.drain.under_way == 0


async def test_a_new_file_is_refused_before_it_is_read() -> None:
    held = Held()
    held.drain.begin(60.0)
    wire = Wire([b"x" * 1000] * 1000)
    await wire.post(held.app, {"Content-Type": "audio/wav"})
    assert (wire.status, wire.taken) == (503, 0)
    assert "retry-after" in wire.headers


@pytest.mark.parametrize("path", ["/v1/audio/transcriptions", "/v1/listen"])
async def test_so_it_is_in_the_words_of_other_apis(path: str) -> None:
    held = Held()
    held.drain.begin(60.0)
    async with client_of(held.app) as client:
        answer = await client.post(path, content=b"x")
    assert answer.status_code == 503
    assert "Retry-After" in answer.headers


async def test_probes_tell_it() -> None:
    held = Held()
    async with client_of(held.app) as client:
        assert (await client.get("/readyz")).status_code == 200
        held.drain.begin(60.0)
        for path in ("/readyz", "/health"):
            answer = await client.get(path)
            assert (answer.status_code, answer.json()["status"]) == (503, "draining")
        assert (await client.get("/livez")).status_code == 200


async def test_the_failure_has_the_shape_of_all_others() -> None:
    held = Held()
    held.drain.begin(60.0)
    async with client_of(held.app) as client:
        answer = await client.post("/transcribe", files={"file": CLIP})
    assert is_failure(answer, 503, "draining")


# Streams


@asynccontextmanager
async def stream(
    peer: ScriptedPeer, engine: Engine | None = None, *, timing: Timing = SETTLES
) -> AsyncIterator[tuple[Door, asyncio.Task[int | None]]]:
    config = Config()
    door = Door(config)
    port = engine or Engine()
    serving = asyncio.create_task(
        converse(peer, config=config, port=port, session_id="s", timing=timing, door=door)
    )
    try:
        yield door, serving
    finally:
        peer.leaves()
        await asyncio.wait_for(serving, PATIENCE_S)


def text_of(peer: ScriptedPeer) -> str:
    return "".join(message.text for message in peer.all(Final))


async def received(peer: ScriptedPeer, audio_s: float) -> None:
    while not any(ack.received_until >= audio_s for ack in peer.all(Ack)):
        await peer.hears(Ack, len(peer.all(Ack)) + 1)


async def test_a_client_is_warned_and_goes_on() -> None:
    peer = ScriptedPeer(PLAIN)
    async with stream(peer) as (door, serving):
        peer.says(words(4))
        await received(peer, 2.0)
        door.drain.begin(60.0)
        warning = await peer.hears(Warned)
        assert warning.code == "draining"
        peer.says(words(4), End())
        assert await asyncio.wait_for(serving, PATIENCE_S) == 1000
    assert peer.all(Done)


async def test_one_that_stays_gets_the_text_of_all_that_it_sent() -> None:
    peer = ScriptedPeer({"chunk_duration": 20.0, "interim": False})
    async with stream(peer) as (door, serving):
        peer.says(words(6))
        await received(peer, 3.0)
        assert peer.all(Final) == []
        door.drain.begin(0.0)
        assert await asyncio.wait_for(serving, PATIENCE_S) == 1001
    assert text_of(peer) == said(6)
    assert not peer.all(Done)
    last = peer.sent[-1]
    assert isinstance(last, Ack)
    assert last.resume.committed_until == last.received_until == 3.0


async def test_what_comes_too_late_is_not_taken_and_the_client_knows() -> None:
    asked = asyncio.Event()

    async def never(task: DecodeTask) -> None:
        asked.set()
        await for_ever(task)

    peer = ScriptedPeer({"chunk_duration": 20.0, "interim": False})
    async with stream(peer, Engine(trouble=never), timing=HASTY_SETTLING) as (door, serving):
        peer.says(words(4))
        await received(peer, 2.0)
        door.drain.begin(0.0)
        await asyncio.wait_for(asked.wait(), PATIENCE_S)
        peer.says(words(4))
        assert await asyncio.wait_for(serving, PATIENCE_S) == 1001
    last = peer.sent[-1]
    assert isinstance(last, Ack)
    assert last.received_until == 2.0
    assert last.resume.committed_until < 2.0
    assert peer.all(Final) == []


async def test_engines_that_fail_meanwhile_lose_nothing_either() -> None:
    peer = ScriptedPeer({"chunk_duration": 20.0, "interim": False})
    async with stream(peer, Engine(trouble=EngineUnavailable(0.01))) as (door, serving):
        peer.says(words(4))
        await received(peer, 2.0)
        door.drain.begin(0.0)
        assert await asyncio.wait_for(serving, PATIENCE_S) == 1001
    assert not [message for message in peer.all(Failed) if message.fatal]
    assert peer.all(Ack)[-1].resume.committed_until < 2.0


async def test_silence_is_settled_too() -> None:
    peer = ScriptedPeer({"vad": True})
    async with stream(peer) as (door, serving):
        peer.says(quiet(3.0))
        await received(peer, 3.0)
        door.drain.begin(0.0)
        assert await asyncio.wait_for(serving, PATIENCE_S) == 1001
    assert peer.all(Ack)[-1].resume.committed_until == 3.0


async def test_a_stream_that_has_not_begun_is_closed() -> None:
    peer = Silent()
    async with stream(peer) as (door, serving):
        await asyncio.sleep(0)
        door.drain.begin(0.05)
        assert await asyncio.wait_for(serving, PATIENCE_S) == 1001
    assert [message.code for message in peer.all(Failed)] == ["draining"]


class Silent(ScriptedPeer):
    """Connects and says nothing."""

    async def configuration(self) -> Any:
        await asyncio.Event().wait()


async def test_a_stream_whose_client_does_not_read_ends_all_the_same() -> None:
    peer = ScriptedPeer(PLAIN)
    async with stream(peer, timing=HASTY) as (door, serving):
        peer.reads.clear()
        peer.says(words(4))
        door.drain.begin(0.05)
        assert await asyncio.wait_for(serving, PATIENCE_S) == 1001


# Streams of other APIs


@asynccontextmanager
async def answering(path: str) -> AsyncIterator[tuple[Held, ClientConnection]]:
    """A client of the whole service, on a real socket."""
    held = Held()
    async with (
        running(held.app) as port,
        connect(f"ws://127.0.0.1:{port}{path}", proxy=None, ping_interval=None) as connection,
    ):
        yield held, connection


async def all_of(connection: ClientConnection) -> list[dict[str, Any]]:
    """What comes up to the close."""

    async def read() -> list[dict[str, Any]]:
        return [json.loads(frame) async for frame in connection]

    return await asyncio.wait_for(read(), PATIENCE_S)


async def test_a_client_of_deepgram_s_gets_the_text_of_all_that_it_sent() -> None:
    async with answering("/v1/listen?encoding=linear16&sample_rate=16000") as (held, connection):
        await connection.send(tone(2.0).tobytes())
        # Frames are read in order: the answer to this comes when the audio is there.
        await connection.send("What is this?")
        await asyncio.wait_for(connection.recv(), PATIENCE_S)
        held.drain.begin(0.0)
        held.go_on.set()
        told = await all_of(connection)
        assert connection.close_code == 1001
    finals = [message for message in told if message.get("is_final")]
    assert finals[-1]["start"] + finals[-1]["duration"] == pytest.approx(2.0, abs=0.05)
    texts = [final["channel"]["alternatives"][0]["transcript"] for final in finals]
    assert " ".join(texts) == "grüße welt alle"


async def test_a_client_of_openai_s_gets_the_turns_that_it_committed() -> None:
    async with answering("/v1/realtime?intent=transcription") as (held, connection):
        session = {"type": "transcription", "audio": {"input": {"turn_detection": None}}}
        for event in (
            {"type": "session.update", "session": session},
            {"type": "input_audio_buffer.append", "audio": b64encode(bytes(96_000)).decode()},
            {"type": "input_audio_buffer.commit"},
        ):
            await connection.send(json.dumps(event))
        await asyncio.wait_for(held.began.wait(), PATIENCE_S)
        held.drain.begin(0.0)
        held.go_on.set()
        told = await all_of(connection)
        assert connection.close_code == 1001
    completed = [message for message in told if message["type"].endswith("completed")]
    assert [message["transcript"] for message in completed] == [TEXT]
    assert not [message for message in told if message["type"] == "error"]
