"""Engines that throw, hang, choke or die: the client gets a true answer, or none is needed."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from whisper.normalizers import EnglishTextNormalizer

from tests.serving.conftest import Deploy, Service
from tests.serving.scripted import (
    SLOW_S,
    build_hanging,
    build_noted,
    build_slow,
    build_throwing,
    notes,
)

pytestmark = pytest.mark.server
normalize = EnglishTextNormalizer()


def scripted(scratch: Path, **limits: Any) -> dict[str, dict[str, Any]]:
    return {"model": {"model_dir": str(scratch)}, "limits": limits}


def send(service: Service, recording: Path) -> httpx.Response:
    with recording.open("rb") as file:
        return service.client.post("/transcribe", files={"audio_file": file})


def test_an_engine_that_throws(deploy: Deploy, tmp_path: Path, sample: Path) -> None:
    service = deploy("throwing", scripted(tmp_path), build_throwing)
    answer = send(service, sample)
    assert (answer.status_code, answer.json()["code"]) == (500, "engine_failed")
    assert answer.json()["success"] is False
    assert "secret" not in answer.text
    assert service.client.get("/health").status_code == 200


def test_an_engine_that_hangs_past_the_deadline(
    deploy: Deploy, tmp_path: Path, sample: Path
) -> None:
    service = deploy("hanging", scripted(tmp_path, window_timeout_s=2.0), build_hanging)
    began = time.monotonic()
    answer = send(service, sample)
    assert (answer.status_code, answer.json()["code"]) == (504, "deadline_exceeded")
    assert "2 s" in answer.json()["error"]
    assert 2.0 <= time.monotonic() - began < 20.0


def test_a_stuck_replica_is_replaced(deploy: Deploy, tmp_path: Path, sample: Path) -> None:
    settings = scripted(tmp_path, window_timeout_s=1.0)
    settings["deployment"] = {"health_check_period_s": 1.0}
    settings["streaming"] = {"window_timeout_s": 1.0}
    service = deploy("stuck", settings, build_hanging)
    assert send(service, sample).status_code == 504
    deadline = time.monotonic() + 60
    while len(set(notes(tmp_path, "built"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert len(set(notes(tmp_path, "built"))) >= 2


def test_more_than_the_queue_holds_is_refused_and_health_still_answers(
    deploy: Deploy, tmp_path: Path, sample: Path
) -> None:
    """Two workers and a queue of two: of ten requests at once four can be served."""
    settings = scripted(tmp_path)
    settings["deployment"] = {"max_queued_windows": 2}
    service = deploy("full", settings, build_slow)
    send(service, sample)
    with ThreadPoolExecutor(10) as pool:
        calls = [pool.submit(send, service, sample) for _ in range(10)]
        time.sleep(SLOW_S / 3)
        health = service.client.get("/health")
        assert sum(call.running() for call in calls) == 4  # it did not wait for them
        assert (health.status_code, health.json()["windows_running"]) == (200, 2)
        answers = [call.result() for call in calls]
    served = [answer for answer in answers if answer.status_code == 200]
    refused = [answer for answer in answers if answer.status_code == 503]
    assert (len(served), len(refused)) == (4, 6)
    assert all(answer.json()["text"] == "slow" for answer in served)
    for answer in refused:
        assert answer.json()["code"] == "overloaded"
        assert int(answer.headers["retry-after"]) >= 1


@pytest.mark.weights
def test_a_replica_killed_in_mid_request_costs_nothing(
    deploy: Deploy, tmp_path: Path, model_dir: Path, sample: Path
) -> None:
    """Real engines; the one that has the window is ended with SIGKILL."""
    linked = tmp_path / "models"
    linked.mkdir()
    (linked / "base").symlink_to(model_dir / "base")
    settings: dict[str, dict[str, Any]] = {
        "model": {"model_dir": str(linked)},
        "deployment": {"num_replicas": 1, "health_check_period_s": 1.0},
    }
    service = deploy("killed", settings, build_noted)
    undisturbed = send(service, sample).json()["text"]
    (victim,) = notes(linked, "built")
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(send, service, sample) for _ in range(4)]
        time.sleep(0.4)
        assert not all(call.done() for call in calls)
        os.kill(victim, signal.SIGKILL)
        answers = [call.result() for call in calls]
    assert [answer.status_code for answer in answers] == [200] * 4
    assert [answer.json()["text"] for answer in answers] == [undisturbed] * 4
    assert notes(linked, "built") != [victim]


def test_no_engine_is_unhealthy(deploy: Deploy, tmp_path: Path) -> None:
    service = deploy("dead", scripted(tmp_path), build_slow)
    assert service.client.get("/health").status_code == 200
    (victim,) = notes(tmp_path, "built")
    os.kill(victim, signal.SIGKILL)
    health = service.client.get("/health")
    assert health.status_code == 503
    assert health.json()["status"] == "unhealthy"
    assert service.client.get("/livez").status_code == 200
