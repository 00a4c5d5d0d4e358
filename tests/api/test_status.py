from __future__ import annotations

from collections.abc import Iterable, Mapping

import pytest
from prometheus_client.metrics_core import Metric

from whisper_serve.api.models import ServedModels
from whisper_serve.api.oversight import DeploymentOut
from whisper_serve.api.status import StatusOut, status_of
from whisper_serve.config import Config
from whisper_serve.observability.exposition import Snapshot, merged
from whisper_serve.observability.metrics import Metrics, Reading, families_of

NOW = 1_000_000.0
HEALTHY = DeploymentOut(status="HEALTHY", message="", replicas={"RUNNING": 1})
UPDATING = DeploymentOut(status="UPDATING", message="scaling up", replicas={"STARTING": 1})


def replica(deployment: str, name: str, *readings: Reading) -> Snapshot:
    metrics = Metrics()
    metrics.read(lambda: readings)
    return Snapshot(deployment, name, metrics.collect())


def engine(name: str, *models: str, waiting: float = 0.0) -> Snapshot:
    infos = [Reading("engine_info", 1, ("ctranslate2", model, "cpu", "int8")) for model in models]
    return replica(
        "WhisperASR",
        name,
        *infos,
        Reading("windows_waiting", waiting),
        Reading("waiting_audio_seconds", 10 * waiting),
        Reading("windows_running", 2),
        Reading("oldest_window_seconds", 1.25),
        Reading("process_resident_memory_bytes", 2**30),
    )


def ingress(name: str, streams: int = 0, *, draining: bool = False, age_s: float = 60) -> Snapshot:
    return replica(
        "Ingress",
        name,
        Reading("streams_open", streams),
        Reading("streams_limit", 64),
        Reading("draining", draining),
        Reading("process_start_time_seconds", NOW - age_s),
    )


def status(
    *snapshots: Snapshot, deployments: Mapping[str, DeploymentOut] | None = None
) -> StatusOut:
    families: Iterable[Metric] = (family for one in snapshots for family in one.labelled())
    config = Config.model_validate({"models": ["tiny.en"]})
    return status_of(merged(families), deployments or {}, ServedModels(config), NOW)


def test_a_service_that_runs_is_ok() -> None:
    found = status(ingress("i1"), engine("e1", "base"), deployments={"Ingress": HEALTHY})
    assert found.status == "ok"
    assert found.uptime_s == 60
    assert found.deployments == {"Ingress": HEALTHY}


def test_each_engine_tells_its_load() -> None:
    found = status(ingress("i1"), engine("e1", "base"), engine("e2", "base", "tiny.en", waiting=3))
    idle, busy = found.engines
    assert (idle.replica, idle.windows_waiting) == ("e1", 0)
    assert busy.model_dump() == {
        "replica": "e2",
        "models": ["base", "tiny.en"],
        "engine": "ctranslate2",
        "device": "cpu",
        "compute_type": "int8",
        "windows_waiting": 3,
        "waiting_audio_s": 30.0,
        "windows_running": 2,
        "oldest_window_s": 1.25,
        "memory_bytes": 2**30,
    }


def test_a_model_is_loaded_when_an_engine_holds_it() -> None:
    found = status(ingress("i1"), engine("e1", "base"))
    assert found.models.model_dump() == {
        "default": "base",
        "served": ["base", "tiny.en"],
        "loaded": ["base"],
    }


def test_room_is_what_the_limits_of_all_leave() -> None:
    found = status(ingress("i1", 10), ingress("i2", 64), engine("e1", "base"))
    assert found.capacity.model_dump() == {
        "streams_open": 74,
        "streams_limit": 128,
        "streams_left": 54,
        "basis": "limits",
    }


def test_an_ingress_that_drains_has_no_room() -> None:
    told = (ingress("i1", 10, draining=True), ingress("i2"), engine("e1", "base"))
    found = status(*told, deployments={"Ingress": HEALTHY})
    assert found.capacity.streams_left == 64
    assert (found.status, found.draining) == ("ok", False)


def test_a_service_drains_when_all_of_it_does() -> None:
    found = status(ingress("i1", draining=True), engine("e1", "base"))
    assert (found.status, found.draining) == ("draining", True)
    assert found.capacity.streams_left == 0


@pytest.mark.parametrize("deployments", [{}, {"WhisperASR": UPDATING}])
def test_without_an_engine_it_is_down(deployments: Mapping[str, DeploymentOut]) -> None:
    assert status(ingress("i1"), deployments=deployments).status == "down"


def test_it_is_degraded_while_serve_is_not_content() -> None:
    found = status(ingress("i1"), engine("e1", "base"), deployments={"WhisperASR": UPDATING})
    assert found.status == "degraded"


@pytest.mark.parametrize("scaling", ["UPSCALING", "DOWNSCALING"])
def test_it_is_not_while_replicas_come_and_go(scaling: str) -> None:
    """One that hands its streams over may take an hour."""
    deployments = {"Ingress": DeploymentOut(status=scaling, message="", replicas={"STOPPING": 1})}
    found = status(ingress("i1"), engine("e1", "base"), deployments=deployments)
    assert found.status == "ok"


def test_it_is_degraded_while_serve_does_not_tell() -> None:
    assert status(ingress("i1"), engine("e1", "base"), deployments={}).status == "degraded"


def test_it_is_degraded_while_a_replica_does_not_answer() -> None:
    """Its machine may be gone, and nobody knows yet."""
    two = {"WhisperASR": DeploymentOut(status="HEALTHY", message="", replicas={"RUNNING": 2})}
    engines = list(engine("e1", "base").labelled())
    for answering, word in ((1, "degraded"), (2, "ok")):
        answers = families_of([Reading("replicas_answering", answering, ("WhisperASR",))])
        found = status_of([*engines, *answers], two, ServedModels(Config()), NOW)
        assert found.status == word


def test_the_oldest_ingress_tells_how_long_it_has_been_up() -> None:
    found = status(ingress("i1", age_s=5), ingress("i2", age_s=500), engine("e1", "base"))
    assert found.uptime_s == 500


def test_nobody_answered_at_all() -> None:
    found = status()
    assert found.status == "down"
    assert found.uptime_s == 0
    assert found.capacity.streams_left == 0
