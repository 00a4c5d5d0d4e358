"""Several machines, of which one dies, falls silent or joins, under clients that go on.

The machines are raylets on this one (`benchmarks.machines`); the engines understand the speech of
`speaker`.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import psutil
import pytest

from benchmarks.clusters import Cluster, Machine, balanced, cluster, end, wait_until
from tests.api.streams import said, words
from tests.audio.clips import wav
from tests.storage.servers import fresh_database
from whisper_serve.client import AsyncClient, Done, Final, Reconnecting
from whisper_serve.errors import ConnectionLost, ServerRefused

pytestmark = pytest.mark.server

PATIENCE_S = 90.0
# No answer takes longer, whatever has happened to whom.
LONGEST_ANSWER_S = 10.0
INGRESS, ENGINE, RUNNER = "Ingress", "WhisperASR", "JobRunner"
STREAMS = 4
SPOKEN = words(24)  # 12 s
CLIP = wav(words(8))
LIVE: Any = {"vad": False, "chunk_duration": 1.0, "interim": False}
# A machine that says nothing is found dead within 8 s.
HASTY = {"RAY_health_check_period_ms": "500", "RAY_health_check_timeout_ms": "1000"}
SETTINGS: dict[str, Any] = {
    "server": {"dedicated_cpu": True, "num_cpus": 0.5},
    "model": {"device": "cpu", "engine": "ctranslate2", "compute_type": "int8"},
    "deployment": {
        "num_replicas": 2,
        "cpu_per_replica": 1.0,
        "health_check_period_s": 0.5,
        "replicas_per_machine": 1,
    },
    "autoscaling": {"ingress_replicas": [2, 2]},
    "streaming": {"target_answer_s": None, "max_answer_s": None},
    "vad": {"threshold": 1e-6},
    "auth": {"open": True},
    "logging": {"file": None},
}


@pytest.fixture(scope="module")
def running(postgres_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("nodes")
    place = asyncio.run(fresh_database(postgres_server))
    config = folder / "config.json"
    config.write_text(json.dumps({**SETTINGS, "jobs": {"database": place, "lease_s": 3.0}}))
    with cluster(folder / "cluster.log", settings=HASTY) as machines:
        machines.deploy("tests.serving.understanding:build_app", config)
        yield machines


@pytest.fixture
def machines(running: Cluster) -> Cluster:
    """Two of them, with all that there is to be."""
    while len(running.alive()) < 3:
        running.add()
    wait_until(lambda: is_whole(running), PATIENCE_S)
    return running


def is_whole(machines: Cluster) -> bool:
    replicas = Counter(each.deployment for each in machines.running())
    return replicas == {INGRESS: 2, ENGINE: 2, RUNNER: 1}


def workers(machines: Cluster) -> list[Machine]:
    alive = machines.alive()
    return [m for m in machines.machines.values() if m.name in alive and m is not machines.head]


def status(machine: Machine) -> dict[str, Any]:
    """As the ingress of that machine tells it."""
    answer = httpx.get(f"{machine.url}/v1/status", timeout=LONGEST_ANSWER_S, trust_env=False)
    found: dict[str, Any] = answer.raise_for_status().json()
    return found


def tells(machine: Machine, word: str, replicas: int) -> bool:
    told = status(machine)
    numbers = {len(told["engines"]), len(told["ingresses"])}
    return told["status"] == word and numbers == {replicas}


def has_ended(process: psutil.Process) -> bool:
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


class Streams:
    """Clients that speak for twelve seconds. `reconnections`: how often one had to begin again."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._heard = asyncio.Semaphore(0)
        self.reconnections = 0
        self._all = asyncio.gather(*(self._speak() for _ in range(STREAMS)))

    async def _speak(self) -> str:
        text = ""
        async with self._client.stream(SPOKEN, realtime=True, **LIVE) as events:
            async for event in events:
                self.reconnections += isinstance(event, Reconnecting)
                if isinstance(event, Final):
                    self._heard.release()
                if isinstance(event, Done):
                    text = event.text
        return text

    async def are_heard(self) -> None:
        """Until there is text of all of them, on the average."""
        for _ in range(STREAMS):
            await asyncio.wait_for(self._heard.acquire(), PATIENCE_S)

    async def texts(self) -> list[str]:
        return await asyncio.wait_for(self._all, PATIENCE_S)


@asynccontextmanager
async def clients(machines: Cluster) -> AsyncIterator[AsyncClient]:
    """One that is led to a machine whose proxy is well, whenever it connects."""
    reachable = await asyncio.to_thread(workers, machines)
    async with (
        balanced(lambda: reachable) as url,
        AsyncClient(url, silence_s=5.0, give_up_after_s=PATIENCE_S) as client,
    ):
        yield client


async def sent_until_heard(client: AsyncClient) -> str:
    """A file, sent again when its ingress died; nothing else may go wrong with it."""
    while (text := await sent(client)) is None:
        pass
    return text


async def sent(client: AsyncClient) -> str | None:
    """The text; None when the ingress died, or its connection with it."""
    try:
        return (await client.transcribe(CLIP)).text
    except ConnectionLost:
        return None
    except ServerRefused as exc:
        if exc.code not in {"process_lost", "engine_unavailable"}:
            raise
        return None


def test_a_machine_has_one_of_each_and_the_head_has_none(machines: Cluster) -> None:
    names = {machine.name for machine in workers(machines)}
    assert machines.where(INGRESS) == machines.where(ENGINE) == Counter(names)
    assert set(machines.where(RUNNER)) <= names


async def test_a_machine_that_dies_takes_no_word_and_no_job_with_it(machines: Cluster) -> None:
    victim, survivor = sorted(
        await asyncio.to_thread(workers, machines),
        key=lambda machine: machine.name not in machines.where(RUNNER),
    )
    async with clients(machines) as client:
        streams = Streams(client)
        await streams.are_heard()
        jobs = [await client.jobs.submit(CLIP) for _ in range(3)]
        files = [asyncio.create_task(sent_until_heard(client)) for _ in range(4)]
        await asyncio.to_thread(victim.kill)
        files += [asyncio.create_task(sent_until_heard(client)) for _ in range(4)]
        assert await streams.texts() == [said(24)] * STREAMS
        assert set(await asyncio.wait_for(asyncio.gather(*files), PATIENCE_S)) == {said(8)}
        ended = [await client.jobs.wait(job.id, timeout_s=PATIENCE_S) for job in jobs]
        assert [job.status for job in ended] == ["succeeded"] * 3
    wait_until(lambda: victim.name not in machines.alive(), PATIENCE_S)
    wait_until(lambda: tells(survivor, "degraded", 1), PATIENCE_S)
    assert victim.name not in {each.machine for each in machines.running()}


def test_what_found_no_machine_starts_on_one_that_joins(machines: Cluster) -> None:
    victim, survivor = workers(machines)
    victim.kill()
    wait_until(lambda: victim.name not in machines.alive(), PATIENCE_S)
    left = Counter([survivor.name])
    # Serve notices a little later than Ray does.
    wait_until(lambda: machines.where(INGRESS) == machines.where(ENGINE) == left, PATIENCE_S)
    newcomer = machines.add()
    wait_until(lambda: is_whole(machines), PATIENCE_S)
    assert machines.where(INGRESS) == Counter([survivor.name, newcomer.name])
    wait_until(lambda: tells(survivor, "ok", 2), PATIENCE_S)
    assert httpx.get(f"{newcomer.url}/readyz", trust_env=False).status_code == 200


async def test_a_machine_that_falls_silent_holds_nobody_up(machines: Cluster) -> None:
    victim, survivor = await asyncio.to_thread(workers, machines)
    async with clients(machines) as client:
        streams = Streams(client)
        await streams.are_heard()
        frozen = await asyncio.to_thread(victim.freeze)
        began = time.monotonic()
        async with httpx.AsyncClient(base_url=survivor.url, timeout=LONGEST_ANSWER_S) as http:
            while victim.name in await asyncio.to_thread(machines.alive):
                for path in ("/readyz", "/v1/status", "/metrics"):
                    assert (await http.get(path)).status_code == 200
                assert time.monotonic() - began < PATIENCE_S
        assert await streams.texts() == [said(24)] * STREAMS
    wait_until(lambda: tells(survivor, "degraded", 1), PATIENCE_S)
    victim.thaw()
    raylet = frozen[0]  # it hears that it was replaced, and no other process of it has a say
    try:
        wait_until(lambda: has_ended(raylet), PATIENCE_S)
    finally:
        end(frozen)
    assert tells(survivor, "degraded", 1)
