"""Replicas that Serve adds and takes away by what there is to do: nobody is cut off."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect

from tests.api.streams import said, words
from tests.audio.clips import wav
from tests.serving.conftest import Deploy, Service
from tests.serving.scripted import build_held
from whisper_serve.config import Config
from whisper_serve.serving.app import make_app
from whisper_serve.serving.autoscaling import KEPT_S, TOLD_EVERY_S, engine_scale, ingress_scale
from whisper_serve.serving.plan import Node, make_plan
from whisper_serve.serving.stopping import drain

PATIENCE_S = 60.0
DRAIN_S = 2.0
STREAM = {"vad": False, "interim": False, "chunk_duration": 1.0}
# What it takes until replicas come and go, beside the time of Serve itself.
QUICK: dict[str, Any] = {"upscale_delay_s": 0.5, "downscale_delay_s": 1.0}
SETTINGS: dict[str, Any] = {
    "autoscaling": {
        **QUICK,
        "ingress_replicas": [1, 2],
        "streams_per_ingress": 2,
        "engine_replicas": [1, 2],
        "waiting_audio_s": 5.0,
    },
    "server": {"drain_timeout_s": DRAIN_S},
    "vad": {"threshold": 1e-6},
    "deployment": {"cpu_per_replica": 1.0, "health_check_period_s": 0.5},
}


class Talker:
    """A client that knows nothing of going elsewhere. It says one word after the other."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self.messages: list[dict[str, Any]] = []
        self.spoken = 0
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for frame in self._connection:
            self.messages.append(json.loads(frame))

    async def says(self, count: int) -> None:
        samples = words(self.spoken + count)[self.spoken * 8_000 :]
        self.spoken += count
        await self._connection.send(samples.tobytes())

    async def ends(self) -> None:
        await self._connection.send('{"type": "end"}')
        await self.is_closed()

    async def is_closed(self) -> None:
        await asyncio.wait_for(self._reading, PATIENCE_S)

    @property
    def heard(self) -> str:
        return "".join(one["text"] for one in self.messages if one["type"] == "final").strip()

    @property
    def is_warned(self) -> bool:
        return any(one.get("code") == "draining" for one in self.messages)

    @property
    def close_code(self) -> int | None:
        return self._connection.close_code


@asynccontextmanager
async def talking(service: Service, count: int) -> AsyncIterator[list[Talker]]:
    """Streams that are taken, each with its first word said."""
    talkers = [await talker_at(service) for _ in range(count)]
    try:
        yield talkers
    finally:
        for talker in talkers:
            await talker._connection.close()


async def talker_at(service: Service) -> Talker:
    url = service.url.replace("http", "ws") + "/stream"
    connection = await connect(url, proxy=None, ping_interval=None, open_timeout=PATIENCE_S)
    talker = Talker(connection)
    await connection.send(json.dumps(STREAM))
    await talker.says(1)
    await becomes(lambda: bool(talker.messages))
    return talker


async def becomes(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def streams_of(service: Service) -> list[int]:
    """Of each ingress replica on the roll."""
    status = await asyncio.to_thread(service.client.get, "/v1/status")
    return sorted(one["streams_open"] for one in status.json()["ingresses"])


# What Serve is told

GROWING: dict[str, Any] = {
    "autoscaling": {
        "ingress_replicas": [2, 5],
        "streams_per_ingress": 12,
        "engine_replicas": [1, 3],
        "waiting_audio_s": 7.0,
        "upscale_delay_s": 3.0,
        "downscale_delay_s": 9.0,
    }
}


def scales_of(**sections: Any) -> list[dict[str, Any]]:
    config = Config.model_validate(sections)
    return [ingress_scale(config), engine_scale(config, 4)]


@pytest.mark.parametrize(
    ("scaling", "ingresses", "engines"),
    [({}, 1, 4), ({"ingress_replicas": [3, 3]}, 3, 4), ({"engine_replicas": [2, 2]}, 1, 2)],
)
def test_equal_numbers_are_a_fixed_one(
    scaling: dict[str, Any], ingresses: int, engines: int
) -> None:
    expected = [{"num_replicas": ingresses}, {"num_replicas": engines}]
    assert scales_of(autoscaling=scaling) == expected


def test_serve_knows_every_option_that_it_is_given() -> None:
    """It ignores those that it does not know."""
    for scale, (least, most) in zip(scales_of(**GROWING), [(2, 5), (1, 3)], strict=True):
        given = scale["autoscaling_config"]
        assert (given.min_replicas, given.max_replicas) == (least, most)
        assert (given.metrics_interval_s, given.look_back_period_s) == (TOLD_EVERY_S, KEPT_S)
        assert (given.upscale_delay_s, given.downscale_delay_s) == (0.0, 0.0)
        assert (given.get_upscaling_factor(), given.get_downscaling_factor()) == (1.0, 1.0)
        assert not given.policy.is_default_policy_function()
        assert given.model_extra is None


def test_a_new_version_begins_before_the_old_one_goes_where_there_is_room() -> None:
    for server, scaling, surge in (
        ({}, {}, 100),
        ({"dedicated_cpu": True}, {}, 0),
        ({"dedicated_cpu": True}, {"ingress_replicas": [1, 2]}, 100),
    ):
        config = Config.model_validate({"server": server, "autoscaling": scaling})
        ingress = make_app(config, make_plan(config, [Node(cpus=4)]))._bound_deployment
        assert ingress._deployment_config.max_surge_percent == surge


# What the policies answer


class Context:
    """What Serve's controller gives a policy, of replicas that tell the same for 30 s."""

    def __init__(self, target: int, told: dict[str, float], *, now: float, silent: int = 0) -> None:
        self.target_num_replicas = target
        self.current_num_replicas = target
        self.current_time = now
        self.policy_state: dict[str, Any] = {}
        ages = [age / 2 for age in range(60, -1, -4)]
        self.raw_metrics = {
            name: {
                replica: [Point(now - age, value * (now - age)) for age in ages]
                if name.endswith("_s") and name != "waiting_audio_s"
                else [Point(now - age, value) for age in ages]
                for replica in range(target - silent)
            }
            for name, value in told.items()
        }


@dataclass(frozen=True)
class Point:
    timestamp: float
    value: float


def policies() -> list[Any]:
    """As the controller makes them of what it was sent."""
    found = []
    for scale in scales_of(**GROWING):
        policy = scale["autoscaling_config"].policy
        found.append(policy.get_policy()(**policy.policy_kwargs))
    return found


def asked(policy: Any, target: int, told: dict[str, float], seconds: int, silent: int = 0) -> int:
    """Each second, for so long."""
    state: dict[str, Any] = {}
    for second in range(seconds + 1):
        context = Context(target, told, now=1000.0 + second, silent=silent)
        context.policy_state = state
        target, state = policy(context)
    return target


def test_the_ingress_policy_counts_streams_and_files() -> None:
    ingress, _ = policies()
    assert asked(ingress, 2, {"streams": 13.0, "files": 0.0}, 3) == 3
    assert asked(ingress, 2, {"streams": 13.0, "files": 0.0}, 2) == 2
    assert asked(ingress, 2, {"streams": 6.0, "files": 2.5}, 3) == 3
    assert asked(ingress, 2, {"streams": 900.0, "files": 0.0}, 3) == 5
    assert asked(ingress, 4, {"streams": 6.0, "files": 0.0}, 9) == 2
    assert asked(ingress, 4, {"streams": 6.0, "files": 0.0}, 8) == 4
    assert asked(ingress, 4, {"streams": 6.0, "files": 0.0}, 30, silent=1) == 4


def test_the_engine_policy_looks_at_what_waits_and_what_is_done() -> None:
    _, engines = policies()
    calm = {"waiting_audio_s": 0.0, "decoded_audio_s": 20.0, "busy_s": 0.25}
    late = {**calm, "waiting_audio_s": 8.0, "busy_s": 1.0}
    assert asked(engines, 1, late, 3) >= 2
    assert asked(engines, 1, late, 2) == 1
    assert asked(engines, 2, calm, 9) == 1
    assert asked(engines, 2, calm, 8) == 2
    assert asked(engines, 2, calm, 30, silent=1) == 2
    assert asked(engines, 2, {**calm, "busy_s": 0.5}, 30) == 2
    assert asked(engines, 2, {}, 30) == 2


# On Ray


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("held")


@pytest.fixture(scope="module")
def service(deploy: Deploy, folder: Path) -> Service:
    """Whose replicas come and go. The tests are in order: the last ones take it down."""
    return deploy("breathing", {**SETTINGS, "model": {"model_dir": str(folder)}}, build_held)


@pytest.mark.server
async def test_engines_are_added_when_audio_waits(service: Service, folder: Path) -> None:
    hold, clip = folder / "hold", wav(words(20))
    hold.touch()
    async with httpx.AsyncClient(base_url=service.url, timeout=PATIENCE_S) as client:
        posts = [client.post("/transcribe", files={"audio_file": clip}) for _ in range(3)]
        asked = [asyncio.create_task(post) for post in posts]
        try:
            await becomes_so(lambda: count_of(service, "engines"), 2)
        finally:
            hold.unlink()
        answers = await asyncio.gather(*asked)
    assert [answer.json()["text"] for answer in answers] == [said(20)] * 3


@pytest.mark.server
async def test_streams_outlive_the_replica_that_is_taken_away(service: Service) -> None:
    async with talking(service, 3) as first:
        await becomes_so(lambda: streams_of(service), [0, 3])
        # Who comes is sent to the one with less to do.
        async with talking(service, 2) as second:
            await becomes_so(lambda: streams_of(service), [2, 3])
            for talker in [*first[1:], second[1]]:
                await talker.ends()
            stay = [first[0], second[0]]
            await becomes(lambda: any(talker.is_warned for talker in stay))
            assert len(await streams_of(service)) == 1
            for talker in stay:
                await talker.says(5)
            async with talking(service, 1) as [late]:
                await late.ends()
            for talker in stay:
                await talker.ends()
    assert [talker.is_warned for talker in stay].count(True) == 1
    assert [talker.heard for talker in stay] == [said(6), said(6)]
    assert late.heard == said(1)


@pytest.mark.server
async def test_engines_that_idle_are_taken_away(service: Service) -> None:
    await becomes_so(lambda: count_of(service, "engines"), 1)


@pytest.mark.server
async def test_a_new_version_refuses_nobody_and_an_end_waits_for_nobody(
    service: Service, deploy: Deploy, folder: Path
) -> None:
    """Streams of the old version go on, until the service is told to stop: those with the old one
    are settled as those with the new one are, and in the same time."""
    async with talking(service, 2) as [ends, stays]:
        model = {"model_dir": str(folder)}
        changed = {**SETTINGS, "model": model, "streaming": {"max_backlog_s": 90.0}}
        deploying = asyncio.create_task(
            asyncio.to_thread(deploy, service.name, changed, build_held)
        )
        while not ends.is_warned:
            async with talking(service, 1) as [visitor]:
                await visitor.ends()
            assert visitor.heard == said(1)
        for talker in (ends, stays):
            await talker.says(5)
        await ends.ends()
        async with talking(service, 1) as [new]:
            await new.says(5)
            began = time.monotonic()
            await asyncio.to_thread(drain, service.name, DRAIN_S)
            assert time.monotonic() - began < DRAIN_S + 15
            for talker in (stays, new):
                await talker.is_closed()
    await deploying
    assert [talker.heard for talker in (ends, stays, new)] == [said(6)] * 3
    assert [talker.close_code for talker in (stays, new)] == [1001, 1001]


async def count_of(service: Service, kind: str) -> int:
    """Replicas on the roll: `ingresses` or `engines`."""
    status = await asyncio.to_thread(service.client.get, "/v1/status")
    return len(status.json()[kind])


async def becomes_so(look: Callable[[], Awaitable[Any]], expected: Any) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while (found := await look()) != expected:
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.2)
