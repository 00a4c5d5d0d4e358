"""Logs and traces of the running service: one request's work is one tree over its processes."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.audio.clips import tone, wav
from tests.observability.collector import Collector, Taken, collecting
from tests.serving.conftest import Deploy, Service
from tests.serving.scripted import build_named

pytestmark = pytest.mark.server

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CLIP = wav(tone(2.0))
PATIENCE_S = 20.0


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The logs are somewhere in it."""
    return tmp_path_factory.getbasetemp()


@pytest.fixture(scope="module")
def service(
    deploy: Deploy, collector: Collector, tmp_path_factory: pytest.TempPathFactory
) -> Service:
    settings: dict[str, dict[str, Any]] = {
        "model": {"model_dir": str(tmp_path_factory.mktemp("scratch"))},
        "vad": {"threshold": 1e-6},
        "logging": {"format": "json"},
        "tracing": {"otlp_endpoint": collector.url},
    }
    return deploy("traced", settings, build_named)


def lines_of(folder: Path, trace_id: str, category: str) -> list[dict[str, Any]]:
    """What the processes of the service wrote about a trace; waited for."""
    deadline = time.monotonic() + PATIENCE_S
    found: list[dict[str, Any]] = []
    while not found and time.monotonic() < deadline:
        for path in folder.glob(f"traced[0-9]*/service.{category}*.log"):
            lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
            found += [line for line in lines if line.get("trace_id") == trace_id]
        time.sleep(0.05)
    return found


def by_name(spans: list[Taken], trace_id: str) -> dict[str, Taken]:
    return {span.name: span for span in spans if span.trace_id == trace_id}


def test_a_request_is_one_tree_over_its_processes(service: Service, collector: Collector) -> None:
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "X-Request-ID": "r-traced"}
    answer = service.client.post("/transcribe", files={"file": CLIP}, headers=headers)
    assert answer.status_code == 200, answer.text
    names = ["POST /transcribe", "read audio", "window", "engine", "queue", "batch", "decode"]
    spans: dict[str, Taken] = {}
    deadline = time.monotonic() + PATIENCE_S
    while not {*names} <= spans.keys() and time.monotonic() < deadline:
        spans = by_name(collector.spans(len(spans) + 1), TRACE)
    parents = {name: spans[name].parent_id for name in names}
    assert parents == {
        "POST /transcribe": PARENT,
        "read audio": spans["POST /transcribe"].span_id,
        "window": spans["POST /transcribe"].span_id,
        "engine": spans["window"].span_id,
        "queue": spans["engine"].span_id,
        "batch": spans["engine"].span_id,
        "decode": spans["batch"].span_id,
    }
    processes = {name: spans[name].resource["process.pid"] for name in names}
    assert processes["POST /transcribe"] == processes["window"]
    assert processes["engine"] == processes["decode"]
    assert processes["engine"] != processes["window"]


def test_its_lines_in_both_processes_say_the_same_ids(service: Service, folder: Path) -> None:
    trace_id = "1" + TRACE[1:]
    headers = {"traceparent": f"00-{trace_id}-{PARENT}-01", "X-Request-ID": "r-logged"}
    service.client.post("/transcribe", files={"file": CLIP}, headers=headers)
    [access] = lines_of(folder, trace_id, "access")
    engine = lines_of(folder, trace_id, "performance.asr")
    assert {access["request_id"]} == {line["request_id"] for line in engine} == {"r-logged"}
    assert (access["process"], access["path"]) == ("ingress", "/traced/transcribe")
    assert {line["process"] for line in engine} == {"asr"}
    assert access["pid"] not in {line["pid"] for line in engine}
