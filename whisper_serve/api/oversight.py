"""What there is to know of the whole service, asked of all its processes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Protocol

from prometheus_client.metrics_core import Metric
from pydantic import BaseModel, Field

from whisper_serve.observability.exposition import Snapshot, merged
from whisper_serve.observability.metrics import Metrics


class DeploymentOut(BaseModel):
    """A deployment of Ray Serve, as Serve sees it."""

    status: str = Field(description="Serve's own word for it: HEALTHY, UPDATING, UNHEALTHY ...")
    message: str = Field(description="What Serve has to say about it.")
    replicas: dict[str, int] = Field(description="How many replicas are in which state.")


class Oversees(Protocol):
    """Asks all processes of the service. `metrics` are this one's own."""

    @property
    def metrics(self) -> Metrics: ...

    async def gather(self) -> Sequence[Metric]:
        """The metrics of all processes, with the labels `deployment` and `replica`. It takes no
        more than about a second: who does not answer is left out."""
        ...

    async def deployments(self) -> Mapping[str, DeploymentOut]:
        """What runs, by its name; nothing when that cannot be told in time."""
        ...


class ThisProcess:
    """A service that is this process alone."""

    def __init__(self) -> None:
        self.metrics = Metrics()

    async def gather(self) -> Sequence[Metric]:
        families = await asyncio.to_thread(self.metrics.collect)
        return merged(Snapshot("Ingress", "-", families).labelled())

    async def deployments(self) -> Mapping[str, DeploymentOut]:
        return {}
