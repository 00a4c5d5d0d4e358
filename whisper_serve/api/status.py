"""The state of the service, put together from what its processes measured of themselves."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from prometheus_client.metrics_core import Metric
from pydantic import BaseModel, Field

from whisper_serve import __version__
from whisper_serve.api.models import ServedModels
from whisper_serve.api.oversight import DeploymentOut
from whisper_serve.observability.instruments import PREFIX

# What Serve says of a deployment that has all that it is to have, or only scales.
WELL = {"HEALTHY", "UPSCALING", "DOWNSCALING"}
# A reading of a replica, by the names of its labels.
Labels = Mapping[str, str]


class EngineOut(BaseModel):
    """An engine replica that answers."""

    replica: str
    models: list[str] = Field(description="Models that are loaded.")
    engine: str
    device: str
    compute_type: str
    windows_waiting: int
    waiting_audio_s: float
    windows_running: int
    oldest_window_s: float = Field(description="Age of the decode that has run longest.")
    memory_bytes: int


class IngressOut(BaseModel):
    """An ingress replica that answers."""

    replica: str
    streams_open: int
    streams_limit: int
    draining: bool
    memory_bytes: int


class ModelsOut(BaseModel):
    default: str
    served: list[str]
    loaded: list[str] = Field(description="Those that an engine holds now.")


class CapacityOut(BaseModel):
    streams_open: int
    streams_limit: int
    streams_left: int = Field(description="Live streams that may still come.")
    basis: Literal["limits"] = Field(
        "limits",
        description="What `streams_left` is made of: `streaming.max_sessions` of each ingress "
        "replica that takes new streams. Busy engines may refuse some of them earlier.",
    )


class StatusOut(BaseModel):
    """`status`: `ok`; `degraded` when something runs that is not as it should be, or a replica does
    not answer; `draining` when nothing new is taken; `down` when no engine answers."""

    status: Literal["ok", "degraded", "draining", "down"]
    version: str
    uptime_s: float = Field(description="Since the oldest of the ingress replicas started.")
    draining: bool
    models: ModelsOut
    capacity: CapacityOut
    engines: list[EngineOut]
    ingresses: list[IngressOut]
    deployments: dict[str, DeploymentOut]


class Readings:
    """The values of metrics, found by their names."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = {family.name.removeprefix(PREFIX): family for family in families}

    def all(self, name: str) -> list[tuple[Labels, float]]:
        family = self._families.get(name)
        return [(s.labels, s.value) for s in family.samples] if family else []

    def of(self, name: str, replica: str) -> float:
        """0 when the replica does not tell."""
        values = (value for labels, value in self.all(name) if labels.get("replica") == replica)
        return next(values, 0.0)

    def replicas(self, name: str) -> list[str]:
        """Those that tell of `name`."""
        return sorted({labels["replica"] for labels, _ in self.all(name)})


def status_of(
    families: Sequence[Metric],
    deployments: Mapping[str, DeploymentOut],
    models: ServedModels,
    now: float,
) -> StatusOut:
    """`now`: Unix time."""
    readings = Readings(families)
    engines = [_engine(readings, replica) for replica in readings.replicas("engine_info")]
    ingresses = [_ingress(readings, replica) for replica in readings.replicas("streams_limit")]
    is_draining = bool(ingresses) and all(ingress.draining for ingress in ingresses)
    is_whole = _is_whole(readings, deployments)
    return StatusOut(
        status=_word(has_engine=bool(engines), is_draining=is_draining, is_whole=is_whole),
        version=__version__,
        uptime_s=round(_uptime_s(readings, ingresses, now), 1),
        draining=is_draining,
        models=ModelsOut(
            default=models.names[0],
            served=[*models.names],
            loaded=sorted({model for engine in engines for model in engine.models}),
        ),
        capacity=_capacity(ingresses),
        engines=engines,
        ingresses=ingresses,
        deployments=dict(deployments),
    )


def _is_whole(readings: Readings, deployments: Mapping[str, DeploymentOut]) -> bool:
    """Whether all is there that Serve says. It takes a while to know of a machine that is gone,
    and says nothing at all while its controller is."""
    told = readings.all("replicas_answering")
    answering = {labels["of"]: count for labels, count in told}
    return bool(deployments) and all(
        one.status in WELL and answering.get(name, math.inf) >= one.replicas.get("RUNNING", 0)
        for name, one in deployments.items()
    )


def _word(
    *, has_engine: bool, is_draining: bool, is_whole: bool
) -> Literal["ok", "degraded", "draining", "down"]:
    if is_draining:
        return "draining"
    if not has_engine:
        return "down"
    return "ok" if is_whole else "degraded"


def _engine(readings: Readings, replica: str) -> EngineOut:
    loaded = [
        labels for labels, _ in readings.all("engine_info") if labels.get("replica") == replica
    ]
    return EngineOut(
        replica=replica,
        models=sorted(labels["model"] for labels in loaded),
        engine=loaded[0]["engine"],
        device=loaded[0]["device"],
        compute_type=loaded[0]["compute_type"],
        windows_waiting=int(readings.of("windows_waiting", replica)),
        waiting_audio_s=round(readings.of("waiting_audio_seconds", replica), 3),
        windows_running=int(readings.of("windows_running", replica)),
        oldest_window_s=round(readings.of("oldest_window_seconds", replica), 3),
        memory_bytes=int(readings.of("process_resident_memory_bytes", replica)),
    )


def _ingress(readings: Readings, replica: str) -> IngressOut:
    return IngressOut(
        replica=replica,
        streams_open=int(readings.of("streams_open", replica)),
        streams_limit=int(readings.of("streams_limit", replica)),
        draining=bool(readings.of("draining", replica)),
        memory_bytes=int(readings.of("process_resident_memory_bytes", replica)),
    )


def _capacity(ingresses: Sequence[IngressOut]) -> CapacityOut:
    taking = [ingress for ingress in ingresses if not ingress.draining]
    return CapacityOut(
        streams_open=sum(ingress.streams_open for ingress in ingresses),
        streams_limit=sum(ingress.streams_limit for ingress in ingresses),
        streams_left=sum(max(0, one.streams_limit - one.streams_open) for one in taking),
    )


def _uptime_s(readings: Readings, ingresses: Sequence[IngressOut], now: float) -> float:
    starts = [
        readings.of("process_start_time_seconds", ingress.replica) or now for ingress in ingresses
    ]
    return max(0.0, now - min(starts, default=now))
