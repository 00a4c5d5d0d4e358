"""The metrics of a replica, and those of all replicas together.

A scrape reaches one ingress replica, whichever Serve chooses. That one asks all replicas of all
deployments, so that every scrape tells of the same series, whoever answers it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import Counter
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from prometheus_client.metrics_core import Metric
from ray import serve
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from whisper_serve import __version__
from whisper_serve.api.oversight import DeploymentOut
from whisper_serve.config import MetricsConfig
from whisper_serve.deadline import within
from whisper_serve.errors import WhisperServeError
from whisper_serve.observability.exposition import Snapshot, merged
from whisper_serve.observability.machine import ProcessUse
from whisper_serve.observability.metrics import Metrics, Read, Reading, families_of
from whisper_serve.serving.breaker import Breaker, State
from whisper_serve.serving.broadcast import SILENCE, asked_of_all
from whisper_serve.serving.memory import GIB
from whisper_serve.serving.ray_metrics import RayMirror

logger = logging.getLogger(__name__)

# A replica that takes longer is left out.
ANSWER_S = 1.0
# Serve's controller may be busy with other things.
STATUS_S = 2.0
STATES: dict[State, float] = {"closed": 0, "half_open": 1, "open": 2}
# What asking a replica may meet.
TROUBLE = (*SILENCE, WhisperServeError)


class Place(NamedTuple):
    """Where in Serve a process is."""

    app: str
    deployment: str
    replica: str

    @classmethod
    def here(cls) -> Place:
        try:
            context = serve.get_replica_context()
        except RayServeException:  # no replica: a test, or a program of the library's user
            return cls("", "none", str(os.getpid()))
        return cls(context.app_name, context.deployment, context.replica_tag)


class ReplicaMetrics:
    """What a replica measures, with its process's use of the machine. `max_memory_gib`: with how
    much it is replaced, None for never."""

    def __init__(self, config: MetricsConfig, max_memory_gib: float | None = None) -> None:
        self.metrics = Metrics()
        self.place = Place.here()
        self.metrics.read(ProcessUse().read)
        self.metrics.read(lambda: [Reading("build_info", 1.0, (__version__,))])
        if max_memory_gib is not None:
            limit = Reading("process_memory_limit_bytes", max_memory_gib * GIB)
            self.metrics.read(lambda: [limit])
        if config.ray and self.place.app:
            RayMirror(self.take).start()

    def take(self) -> Snapshot:
        """Blocks for a few milliseconds."""
        return Snapshot(self.place.deployment, self.place.replica, self.metrics.collect())

    async def snapshot(self) -> Snapshot:
        return await asyncio.to_thread(self.take)


class Oversight:
    """Implements `Oversees` in an ingress replica. `others`: the deployments behind it."""

    def __init__(self, own: ReplicaMetrics, others: Sequence[DeploymentHandle]) -> None:
        self._own = own
        self._others = others
        self._peers: DeploymentHandle | None = None

    @property
    def metrics(self) -> Metrics:
        return self._own.metrics

    async def gather(self) -> Sequence[Metric]:
        handles = [*self._others, await self._own_deployment()]
        answers = await asyncio.gather(*map(self._ask, handles))
        own = await self._own.snapshot()
        snapshots = {snapshot.replica: snapshot for answer in answers for snapshot in answer}
        snapshots[own.replica] = own  # the latest, with what this scrape missed
        families = [family for one in snapshots.values() for family in one.labelled()]
        names = [handle.deployment_name for handle in handles]
        return merged([*families, *_answering(names, snapshots.values())])

    async def deployments(self) -> Mapping[str, DeploymentOut]:
        try:
            status = await within(STATUS_S, asyncio.to_thread(serve.status))
        except TROUBLE as exc:
            logger.warning("Serve does not tell its status: %r", exc)
            return {}
        app = status.applications.get(self._own.place.app)
        return {name: _shown(overview) for name, overview in app.deployments.items()} if app else {}

    async def _own_deployment(self) -> DeploymentHandle:
        if self._peers is None:
            place = self._own.place
            self._peers = await asyncio.to_thread(
                serve.get_deployment_handle, place.deployment, place.app
            )
        return self._peers

    async def _ask(self, handle: DeploymentHandle) -> list[Snapshot]:
        """What the replicas of a deployment tell, without those that take too long."""
        try:
            asked = await asked_of_all(handle, "snapshot", ANSWER_S)
        except TROUBLE as exc:
            logger.info("no replica of %s tells its metrics: %r", handle.deployment_name, exc)
            return []
        answers = await asyncio.gather(*(self._answer(handle, one) for one in asked))
        return [answer for answer in answers if answer is not None]

    async def _answer(
        self, handle: DeploymentHandle, answer: Awaitable[Snapshot]
    ) -> Snapshot | None:
        try:
            return await within(ANSWER_S, _value(answer))
        except TROUBLE as exc:
            logger.info("a replica of %s does not tell: %r", handle.deployment_name, exc)
            self.metrics.replica_missed(handle.deployment_name)
            return None


def breakers_of(breakers: Mapping[str, Breaker]) -> Read:
    """What the breakers of a `ReplicaClient` are; the default model's name is empty there."""

    def read() -> list[Reading]:
        now = time.monotonic()
        # A copy at once: others come while this runs in its thread.
        return [
            Reading("breaker_state", STATES[breaker.state(now)], (model or "default",))
            for model, breaker in dict(breakers).items()
        ]

    return read


async def _value(answer: Awaitable[Snapshot]) -> Snapshot:
    return await answer


def _answering(deployments: Iterable[str], snapshots: Iterable[Snapshot]) -> list[Metric]:
    """How many replicas of each deployment told something: of none too."""
    counts = Counter(dict.fromkeys(deployments, 0))
    counts.update(snapshot.deployment for snapshot in snapshots)
    return families_of(
        Reading("replicas_answering", count, (name,)) for name, count in counts.items()
    )


def _shown(overview: Any) -> DeploymentOut:
    return DeploymentOut(
        status=overview.status.value,
        message=overview.message.strip(),
        replicas=dict(overview.replica_states),
    )
