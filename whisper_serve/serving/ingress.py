"""What runs in an ingress replica: audio decoding, windows and HTTP, no Whisper weights."""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle, DeploymentResponse

from whisper_serve.api.app import create_app
from whisper_serve.api.measuring import MeasuredPort, MeasuredTranscriber
from whisper_serve.api.services import Services, nobody
from whisper_serve.audio.isolation import IsolatedDecoder
from whisper_serve.audio.silero import SileroVad
from whisper_serve.config import Config, JobsConfig
from whisper_serve.deadline import within
from whisper_serve.jobs.orders import Orders
from whisper_serve.observability.exporting import start_exporting
from whisper_serve.observability.exposition import Snapshot
from whisper_serve.observability.logs import configure_logging
from whisper_serve.serving.client import ReplicaClient
from whisper_serve.serving.memory import FreedMemory, MemoryGuard
from whisper_serve.serving.metrics import Oversight, ReplicaMetrics, breakers_of
from whisper_serve.serving.roll import CALL_EVERY_S, Handover, Leavers, Peers
from whisper_serve.storage.database import Database
from whisper_serve.storage.usage import UsageTable

# For all that does not wait for a decoding process.
OTHER_THREADS = 32
# A runner that takes longer finds the work by itself.
NUDGE_S = 5.0
audit = logging.getLogger("whisper_serve.audit")


class Ingress:
    """Builds the FastAPI application in the replica, around a handle to the engines."""

    def __init__(
        self,
        config: Config,
        asr: DeploymentHandle,
        signing_key: str,
        runners: DeploymentHandle | None = None,
    ) -> None:
        configure_logging(config.logging, "ingress")
        _make_room(config)
        self._exporting = start_exporting(config.tracing, "ingress")
        SileroVad()  # loads the network now rather than in the first request
        client = ReplicaClient(asr)
        self._memory = MemoryGuard(config.deployment.max_replica_memory_gib)
        self._freed = FreedMemory()
        self._leavers = Leavers()
        self._watch: asyncio.Task[None] | None = None
        self._measured = ReplicaMetrics(config.metrics, config.deployment.max_replica_memory_gib)
        metrics = self._measured.metrics
        metrics.read(breakers_of(client.breakers))
        port = MeasuredPort(client, metrics)
        self._services = Services(
            config,
            MeasuredTranscriber(port, config, _decoder(config), metrics=metrics, kind="file"),
            port,
            client,
            signing_key,
            oversight=Oversight(self._measured, [asr, *([runners] if runners else [])]),
            **_kept(config.jobs, runners),
        )

    async def drain(self, timeout_s: float) -> int:
        """Refuse what is new, and end what is under way within `timeout_s` or shortly behind.
        Returns how much is, with what replicas have that Serve stopped before; may be asked again
        and again."""
        drain = self._services.door.drain
        if not drain.is_begun:
            audit.info("drain begun", extra={"fields": {"under_way": drain.under_way}})
        drain.begin(timeout_s)
        return drain.under_way + self._leavers.under_way(time.monotonic())

    async def leaving(self, name: str, under_way: int) -> float | None:
        """The replica `name`, which Serve stops, tells what it has left. Returns for how many
        seconds it may go on when this one drains."""
        self._leavers.told(name, under_way, time.monotonic())
        return self._services.door.drain.left_s

    async def check_health(self) -> None:
        """One that has too much memory goes on until another is there: Serve stops it then, as
        any that it replaces, and it drains."""
        if self._watch is None:
            self._watch = asyncio.create_task(self._drain_when_stopped())
        await self._freed.give_back()
        self._memory.check()

    def record_autoscaling_stats(self) -> dict[str, float]:
        """What `IngressPolicy` looks at."""
        return {
            "streams": float(self._services.door.headroom.streams),
            "files": float(self._services.transcriber.unpacking),
        }

    async def name(self) -> str:
        tag: str = serve.get_replica_context().replica_tag
        return tag

    async def _drain_when_stopped(self) -> None:
        peers = await Peers.here()
        await peers.taken_off()
        server = self._services.config.server
        await self.drain(server.handover_timeout_s)
        handover = Handover(server.drain_timeout_s)
        while True:
            ends_in_s = handover.called(await peers.leave(self._services.door.drain.under_way))
            if self._memory.is_over:
                ends_in_s = server.drain_timeout_s
            if ends_in_s is not None:
                await self.drain(ends_in_s)
            await asyncio.sleep(CALL_EVERY_S)

    async def snapshot(self) -> Snapshot:
        """What this replica measured, for an ingress that gathers it."""
        return await self._measured.snapshot()

    def __del__(self) -> None:
        """Serve calls it before the replica ends."""
        if (exporting := getattr(self, "_exporting", None)) is not None:
            exporting.close()

    def __serve_build_asgi_app__(self) -> FastAPI:
        # Serve's proxy sends the request's id back by itself.
        return create_app(self._services, send_request_id=False)


def _kept(config: JobsConfig, runners: DeploymentHandle | None) -> dict[str, Any]:
    """What of `Services` is kept in the database, if there is one."""
    if config.database is None:
        return {}
    database = Database(config.database)
    nudge = Nudge(runners).give if runners else nobody
    usage = UsageTable(database)
    return {"jobs": Orders(database, config), "usage": usage, "nudge_runners": nudge}


class Nudge:
    """Tells a job runner that there is work, one at a time; they look by themselves too."""

    def __init__(self, runners: DeploymentHandle) -> None:
        self._runners = runners
        self._giving: asyncio.Task[None] | None = None

    def give(self) -> None:
        if self._giving is None or self._giving.done():
            self._giving = asyncio.create_task(self._give())

    async def _give(self) -> None:
        with suppress(RayError, RayServeException, asyncio.TimeoutError):
            await within(NUDGE_S, _value(self._runners.nudge.remote()))


async def _value(response: DeploymentResponse) -> None:
    await response


def _make_room(config: Config) -> None:
    """Threads that wait for a decoding process, which a hostile file can make long, must not be
    all that there are."""
    threads = config.streaming.max_sessions + config.limits.max_decoding_files + OTHER_THREADS
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(threads))


def _decoder(config: Config) -> IsolatedDecoder:
    decoder = IsolatedDecoder(timeout_s=config.limits.decode_timeout_s)
    decoder.warm_up()
    return decoder
