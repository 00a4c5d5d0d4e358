"""Jobs through the running service: real Ray Serve, real processes, real HTTP."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest
from ray import serve

from tests.serving.conftest import Deploy, Service
from tests.serving.scripted import build_slow, notes
from whisper_serve.api.auth.usage import AudioInMemory
from whisper_serve.config import Config
from whisper_serve.errors import ConfigError, QuotaExceeded
from whisper_serve.keys.making import digest_of, new_key
from whisper_serve.serving.job_runner import JobCharges, require_storage

server = pytest.mark.server
WAIT_S = 60.0


def submitted(service: Service, recording: Path, **fields: Any) -> str:
    with recording.open("rb") as file:
        answer = service.client.post("/v1/jobs", files={"audio_file": file}, data=fields)
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == f"/{service.name}/v1/jobs/{answer.json()['id']}"
    return str(answer.json()["id"])


def ended(service: Service, job_id: str) -> dict[str, Any]:
    deadline = time.monotonic() + WAIT_S
    while True:
        job: dict[str, Any] = service.client.get(f"/v1/jobs/{job_id}").json()
        if job["finished_at"] is not None:
            return job
        assert time.monotonic() < deadline, job
        time.sleep(0.05)


@server
@pytest.mark.weights
def test_a_recording_becomes_the_text_that_transcribe_gives(
    deploy: Deploy, sample: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    database = tmp_path_factory.mktemp("jobs") / "jobs.sqlite3"
    service = deploy("jobs", {"jobs": {"database": str(database)}, "model": {"size": "tiny.en"}})
    job_id = submitted(service, sample)
    job = ended(service, job_id)
    assert (job["status"], job["progress"], job["error"]) == ("succeeded", 1.0, None)
    with sample.open("rb") as file:
        at_once = service.client.post("/transcribe", files={"audio_file": file}).json()
    later = service.client.get(f"/v1/jobs/{job_id}/result").json()
    assert job["duration"] == pytest.approx(at_once["duration"], abs=0.001)
    assert later["text"] == at_once["text"] != ""
    assert later["segments"] == at_once["segments"]


def deploy_slow(deploy: Deploy, name: str, folder: Path) -> Service:
    """Takes seconds for each window."""
    settings = {
        "jobs": {"database": str(folder / "jobs.sqlite3"), "lease_s": 2.0},
        "model": {"model_dir": str(folder)},
        "deployment": {"health_check_period_s": 0.5},
        "vad": {"threshold": 1e-6},
    }
    return deploy(name, settings, build_slow)


@server
def test_a_runner_that_is_stopped_gives_its_jobs_back(
    deploy: Deploy, sample: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("stopped")
    service = deploy_slow(deploy, "stopped", folder)
    job_id = submitted(service, sample)
    wait_for(lambda: bool(notes(folder, "decoded")))
    serve.delete("stopped")
    with closing(sqlite3.connect(folder / "jobs.sqlite3")) as connection:
        rows = connection.execute("SELECT id, status, attempts FROM jobs").fetchall()
    assert rows == [(job_id, "queued", 0)]


@server
def test_a_job_outlives_the_process_that_worked_on_it(
    deploy: Deploy, sample: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("killed")
    service = deploy_slow(deploy, "killed", folder)
    job_id = submitted(service, sample)
    wait_for(lambda: bool(notes(folder, "decoded")))
    [victim] = runners_of("killed")
    os.kill(victim, signal.SIGKILL)
    job = ended(service, job_id)
    assert (job["status"], job["attempts"]) == ("succeeded", 2)
    assert service.client.get(f"/v1/jobs/{job_id}/result").json()["text"] == "slow"
    assert runners_of("killed") != [victim]


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def runners_of(app: str) -> list[int]:
    """The processes of the application's job runners, by the name that Ray gives them."""
    title = f"ServeReplica:{app}:JobRunner"
    found = psutil.Process().children(recursive=True)
    return [process.pid for process in found if title in titles_of(process)]


def titles_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


# What it is started with


def config_with(tmp_path: Path, **jobs: Any) -> Config:
    return Config.model_validate({"jobs": {"database": str(tmp_path / "jobs.sqlite3"), **jobs}})


def test_a_file_is_made_when_the_service_starts(tmp_path: Path) -> None:
    require_storage(config_with(tmp_path), 1)
    assert (tmp_path / "jobs.sqlite3").exists()


def test_without_a_database_nothing_is_asked(tmp_path: Path) -> None:
    require_storage(config_with(tmp_path, database=None), 3)


def test_a_file_serves_one_machine_only(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"jobs\.database: .*2 machines.*postgresql"):
        require_storage(config_with(tmp_path), 2)


def test_a_database_server_that_is_away_does_not_keep_the_service_from_starting(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    require_storage(
        config_with(tmp_path, database="postgresql://ada:secret@127.0.0.1:1/jobs"),
        2,
    )
    assert "cannot be reached" in caplog.text
    assert "secret" not in caplog.text


# What is charged


@pytest.fixture
def usage() -> AudioInMemory:
    return AudioInMemory()


@pytest.fixture
def charges(usage: AudioInMemory) -> JobCharges:
    digests = [digest_of(new_key()) for _ in range(2)]
    keys = [
        {"name": "ada", "sha256": digests[0], "daily_audio_s": 100.0},
        {"name": "bob", "sha256": digests[1]},
    ]
    return JobCharges(Config.model_validate({"auth": {"keys": keys}}).auth, usage)


def test_jobs_take_from_the_seconds_of_the_day(charges: JobCharges) -> None:
    async def use() -> None:
        await charges.charge("ada", 70.0)
        with pytest.raises(QuotaExceeded) as caught:
            await charges.charge("ada", 40.0)
        assert caught.value.retry_after_s > 0
        await charges.charge("ada", -70.0)
        await charges.charge("ada", 100.0)

    asyncio.run(use())


def test_nothing_is_counted_for_who_has_no_limit_or_no_key_any_more(charges: JobCharges) -> None:
    async def use() -> None:
        for name in ("bob", "anyone"):
            await charges.charge(name, 1e9)
            await charges.charge(name, -1e9)

    asyncio.run(use())
