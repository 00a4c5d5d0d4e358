"""Backup and recovery as docs/operations.md tells it: configuration, keys and jobs on another
machine."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from tests.api.fakes import CLIP, FakeEngines, FakePort, client_of
from tests.storage.servers import connections_gone
from whisper_serve.api.app import create_app
from whisper_serve.api.services import Services
from whisper_serve.cli import main
from whisper_serve.config_file import load_config
from whisper_serve.jobs.orders import Orders
from whisper_serve.pipeline import Transcriber
from whisper_serve.storage.database import Database

FILES = ("config.json", "keys.json")


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[httpx.AsyncClient]:
    """The service as it is configured there, with nobody to work on jobs."""
    config = load_config(folder / "config.json", {})
    assert config.jobs.database
    assert config.auth.signing_key
    database, port = Database(config.jobs.database), FakePort()
    services = Services(
        *(config, Transcriber(port, config), port, FakeEngines()),
        config.auth.signing_key.get_secret_value(),
        jobs=Orders(database, config.jobs),
    )
    async with client_of(create_app(services)) as client:
        yield client
    await database.close()
    await connections_gone()


def shown(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture
def here(tmp_path: Path) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    auth = {"keys_file": "keys.json", "signing_key": "s" * 64}
    settings = {"auth": auth, "jobs": {"database": "jobs.sqlite3"}, "logging": {"file": None}}
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "keys.json").write_text("[]")
    return folder


async def test_keys_tokens_and_jobs_are_there_again_after_a_disaster(
    here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = str(here / "config.json")
    assert main(["keys", "new", "ada", "--config", config]) == 0
    key = next(word for word in capsys.readouterr().out.split() if word.startswith("wsk_"))
    async with serving(here) as client:
        audio = {"audio_file": ("clip.wav", CLIP)}
        job = (await client.post("/v1/jobs", files=audio, headers=shown(key))).json()
        wish = {"scopes": ["jobs"]}
        token = (await client.post("/v1/tokens", json=wish, headers=shown(key))).json()["token"]

    backup, there = tmp_path / "backup", tmp_path / "there"
    backup.mkdir()
    assert main(["jobs", "backup", str(backup / "jobs.sqlite3"), "--config", config]) == 0
    for name in FILES:
        shutil.copy(here / name, backup / name)
    shutil.rmtree(here)
    shutil.copytree(backup, there)

    async with serving(there) as client:
        for credential in (key, token):
            found = await client.get(f"/v1/jobs/{job['id']}", headers=shown(credential))
            assert (found.status_code, found.json()) == (200, job)
        assert (await client.get("/v1/jobs", headers=shown("wsk_other"))).status_code == 401
