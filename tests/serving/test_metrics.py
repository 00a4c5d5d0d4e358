"""Metrics and status of a running service: several replicas, asked through one."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
import ray
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from tests.api.fakes import ALL_IS_SPEECH, CLIP
from tests.serving.conftest import Deploy, Service
from tests.serving.scripted import build_named, notes

pytestmark = pytest.mark.server

REPLICAS = 2
# A scrape waits a second for who does not answer.
SCRAPE_S = 5.0
# Ray's exporter tells what was recorded some seconds ago.
RAY_S = 40.0


class Deployed(NamedTuple):
    service: Service
    scratch: Path


@pytest.fixture(scope="module")
def deployed(deploy: Deploy, tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    scratch = tmp_path_factory.mktemp("scratch")
    settings = {
        "model": {"model_dir": str(scratch)},
        "deployment": {"num_replicas": REPLICAS},
        "vad": ALL_IS_SPEECH,
    }
    return Deployed(deploy("measured", settings, build_named), scratch)


def scrape(service: Service) -> dict[str, Metric]:
    answer = service.client.get("/metrics")
    assert answer.status_code == 200, answer.text
    return {family.name: family for family in text_string_to_metric_families(answer.text)}


def total(family: Metric, **labels: str) -> float:
    return sum(s.value for s in family.samples if labels.items() <= s.labels.items())


def transcribe(service: Service, times: int = 1) -> None:
    for _ in range(times):
        assert service.client.post("/transcribe", files={"audio_file": CLIP}).status_code == 200


def replicas_of(families: dict[str, Metric], deployment: str) -> set[str]:
    memory = families["whisper_serve_process_resident_memory_bytes"]
    return {s.labels["replica"] for s in memory.samples if s.labels["deployment"] == deployment}


def test_one_scrape_tells_of_all_processes(deployed: Deployed) -> None:
    families = scrape(deployed.service)
    assert len(replicas_of(families, "WhisperASR")) == REPLICAS
    assert len(replicas_of(families, "Ingress")) == 1
    answering = families["whisper_serve_replicas_answering"]
    assert {(s.labels["of"], s.value) for s in answering.samples} >= {
        ("WhisperASR", REPLICAS),
        ("Ingress", 1),
    }


def test_what_a_request_costs_is_told_by_the_process_that_it_cost(deployed: Deployed) -> None:
    transcribe(deployed.service, times=3)
    families = scrape(deployed.service)
    windows, requests = families["whisper_serve_windows"], families["whisper_serve_requests"]
    assert total(windows, deployment="WhisperASR", lane="file", outcome="ok") == 3
    assert total(windows, deployment="Ingress") == 0
    assert total(requests, deployment="Ingress", route="/transcribe", status="200") == 3
    audio = families["whisper_serve_audio_seconds"]
    assert total(audio, deployment="Ingress", kind="file") == pytest.approx(6.0, abs=0.1)


def test_the_same_series_come_each_time(deployed: Deployed) -> None:
    def series() -> set[tuple[str, tuple[tuple[str, str], ...]]]:
        return {
            (sample.name, tuple(sorted(sample.labels.items())))
            for family in scrape(deployed.service).values()
            for sample in family.samples
        }

    transcribe(deployed.service)
    series()  # of the route of this one
    assert series() == series()


def test_the_status_tells_of_every_replica(deployed: Deployed) -> None:
    body = deployed.service.client.get("/v1/status").json()
    assert body["status"] == "ok", body
    assert [engine["models"] for engine in body["engines"]] == [["scripted"]] * REPLICAS
    assert body["capacity"]["streams_left"] == body["capacity"]["streams_limit"] == 64
    assert body["deployments"]["WhisperASR"] == {
        "status": "HEALTHY",
        "message": "",
        "replicas": {"RUNNING": REPLICAS},
    }
    assert 0 < body["uptime_s"] < 600
    assert not body["draining"]


@contextmanager
def asleep(pid: int) -> Iterator[None]:
    """A process that is there and does nothing."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_replica_that_hangs_is_left_out_and_nobody_waits_for_it(deployed: Deployed) -> None:
    with asleep(notes(deployed.scratch, "built")[0]):
        began = time.monotonic()
        families = scrape(deployed.service)
        assert time.monotonic() - began < SCRAPE_S
    assert len(replicas_of(families, "WhisperASR")) == REPLICAS - 1
    misses = families["whisper_serve_scrape_misses"]
    assert total(misses, deployment="Ingress", of="WhisperASR") == 1
    assert total(families["whisper_serve_replicas_answering"], of="WhisperASR") == REPLICAS - 1


# Ray's exporter


def ray_samples() -> list[Sample]:
    """What the exporter of this machine tells of the service."""
    [node] = ray.nodes()
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    text = httpx.get(url, timeout=10.0).text
    return [
        sample
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("ray_whisper_serve_")
    ]


def test_ray_s_exporter_tells_the_same(deployed: Deployed) -> None:
    transcribe(deployed.service)
    windows = scrape(deployed.service)["whisper_serve_windows"]
    told = total(windows, outcome="ok")
    # Ray tells of other applications too.
    ours = {sample.labels["replica"] for sample in windows.samples}
    deadline = time.monotonic() + RAY_S
    labels = {"deployment": "WhisperASR", "lane": "file", "outcome": "ok"}
    found = 0.0
    while found < told and time.monotonic() < deadline:
        time.sleep(0.5)
        found = sum(
            sample.value
            for sample in ray_samples()
            if sample.name == "ray_whisper_serve_windows_total"
            and labels.items() <= sample.labels.items()
            and sample.labels["replica"] in ours
        )
    assert found == told
    names = {sample.name for sample in ray_samples()}
    assert "ray_whisper_serve_decode_seconds_bucket" in names
    assert {s.labels["deployment"] for s in ray_samples()} >= {"WhisperASR", "Ingress"}
