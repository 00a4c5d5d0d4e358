"""Live streams through the real service: what comes out, and what faults change: nothing."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from whisper.normalizers import EnglishTextNormalizer

from tests.conftest import SAMPLE_WORDS
from tests.serving.conftest import Deploy, Service
from tests.serving.wire import Relay, relay_to
from whisper_serve.audio.decode import decode
from whisper_serve.audio.pcm import SAMPLE_RATE, Samples
from whisper_serve.client import AsyncClient, Done, Event, Final, Partial, Reconnecting

pytestmark = [pytest.mark.server, pytest.mark.weights]
normalize = EnglishTextNormalizer()
FAULTS = 20


@pytest.fixture(scope="module")
def service(deploy: Deploy) -> Service:
    deployment = {"num_replicas": 2, "cpu_per_replica": 1.0, "health_check_period_s": 1.0}
    # However long an answer takes: what is heard must not depend on what else there is to do.
    return deploy("stream", {"deployment": deployment, "streaming": {"target_answer_s": None}})


@pytest.fixture(scope="module")
def speech(sample: Path) -> Samples:
    with sample.open("rb") as file:
        return decode(file, accepted=(".wav",), max_duration_s=60.0)


@dataclass
class Streamed:
    """What a stream gave."""

    events: list[Event] = field(default_factory=list)

    @property
    def done(self) -> Done:
        assert isinstance(self.events[-1], Done)
        return self.events[-1]

    def all(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


async def streamed(url: str, source: Any, **config: Any) -> Streamed:
    heard = Streamed()
    async with AsyncClient(url) as client, client.stream(source, **config) as events:
        async for event in events:
            heard.events.append(event)
    return heard


@pytest.mark.parametrize("policy", ["chunk", "agreement", "utterance"])
async def test_a_recording_comes_out_as_it_was_spoken(
    service: Service, speech: Samples, policy: str
) -> None:
    heard = await streamed(service.url, speech, policy=policy)
    assert normalize(heard.done.text) == SAMPLE_WORDS
    finals = heard.all(Final)
    assert "".join(final.text for final in finals) == heard.done.text
    words = [word for final in finals for word in final.words]
    assert all(0 <= word.start <= word.end <= heard.done.duration for word in words)
    assert words == sorted(words, key=lambda word: word.start)


async def test_text_comes_while_somebody_speaks(service: Service, speech: Samples) -> None:
    async def microphone() -> AsyncIterator[bytes]:
        began = time.monotonic()
        for first in range(0, len(speech), 1_600):
            await asyncio.sleep(max(0.0, began + first / SAMPLE_RATE - time.monotonic()))
            yield speech[first : first + 1_600].tobytes()
        spoken.set()

    spoken = asyncio.Event()
    async with AsyncClient(service.url) as client, client.stream(microphone()) as events:
        before = [event async for event in events if not spoken.is_set()]
    assert any(isinstance(event, Partial) and event.text for event in before)
    assert any(isinstance(event, Final) for event in before)


async def test_many_streams_at_once_do_not_mix(service: Service, speech: Samples) -> None:
    half = len(speech) // 2
    halves = [speech[:half], speech[half:]] * 3
    alone = [await streamed(service.url, source, interim=False) for source in halves[:2]]
    together = await asyncio.gather(
        *(streamed(service.url, source, interim=False) for source in halves)
    )
    texts = [heard.done.text for heard in alone]
    assert texts[0] != texts[1]
    assert [heard.done.text for heard in together] == texts * 3


# Faults


class Faults:
    """Kills replicas and cuts sockets, chosen at random but the same in each run."""

    def __init__(self, relay: Relay, seed: int) -> None:
        self._relay = relay
        self._random = random.Random(seed)
        self.done: list[str] = []

    async def strike(self, times: int) -> None:
        while len(self.done) < times:
            await asyncio.sleep(self._random.uniform(0.5, 2.5))
            kind = self._random.choice(["socket", "socket", "WhisperASR", "WhisperASR", "Ingress"])
            struck = self._relay.cut() if kind == "socket" else self._kill(kind)
            if struck:
                self.done.append(kind)

    def _kill(self, deployment: str) -> bool:
        name = f"ray::ServeReplica:stream:{deployment}"
        found = [p for p in psutil.process_iter(["cmdline"]) if _is_called(p, name)]
        if found:
            self._random.choice(found).kill()
        return bool(found)


def _is_called(process: psutil.Process, name: str) -> bool:
    return any(part.startswith(name) for part in process.info["cmdline"] or [])


async def test_twenty_faults_in_one_stream_change_nothing(
    service: Service, serve_port: int, corpus: Path
) -> None:
    """Speech that does not repeat itself: what does is decoded again, with samples, and so not
    always in the same way."""
    with (corpus / "long/669-129074.flac").open("rb") as file:
        recording = decode(file, accepted=(".flac",), max_duration_s=600.0)[: 66 * SAMPLE_RATE]
    undisturbed = await streamed(service.url, recording, interim=False)
    assert len(undisturbed.done.text.split()) > 100

    async def microphone() -> AsyncIterator[bytes]:
        """In real time, and as long as faults are to come."""
        began = time.monotonic()
        for first in range(0, len(recording), 1_600):
            await asyncio.sleep(max(0.0, began + first / SAMPLE_RATE - time.monotonic()))
            yield recording[first : first + 1_600].tobytes()
            if first > len(recording) - SAMPLE_RATE:
                await striking

    async with relay_to(serve_port) as (relay, port):
        faults = Faults(relay, seed=5)
        striking = asyncio.create_task(faults.strike(FAULTS))
        url = service.url.replace(str(serve_port), str(port))
        disturbed = await streamed(url, microphone(), interim=False)
    assert len(faults.done) == FAULTS
    assert {"socket", "WhisperASR", "Ingress"} <= set(faults.done)
    assert disturbed.all(Reconnecting)
    assert disturbed.done.text == undisturbed.done.text
    assert disturbed.done.duration == undisturbed.done.duration
    starts = [word.start for final in disturbed.all(Final) for word in final.words]
    assert starts == sorted(starts)
