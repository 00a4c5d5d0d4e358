from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from tests.jobs.orders import AUDIO, CONFIG, HOOK, submitted
from whisper_serve.cli import main
from whisper_serve.errors import ConfigError, EngineFailed
from whisper_serve.jobs.backup import back_up
from whisper_serve.jobs.job import Job
from whisper_serve.jobs.orders import Orders
from whisper_serve.jobs.outbox import Outbox
from whisper_serve.jobs.queue import JobQueue
from whisper_serve.storage.database import Database
from whisper_serve.storage.usage import UsageTable

TODAY = "2026-03-01"


@pytest.fixture
def place(tmp_path: Path) -> str:
    return str(tmp_path / "jobs.sqlite3")


async def begun(queue: JobQueue, now: float) -> Job:
    job = await queue.claim(now)
    assert job is not None
    return job


async def with_jobs_of_every_kind(database: Database) -> dict[str, Job]:
    """Done, failed, running and waiting, in this order."""
    orders, queue = Orders(database, CONFIG), JobQueue(database, CONFIG)
    jobs = [await submitted(orders, now=float(n), webhook_url=HOOK) for n in range(4)]
    await queue.succeed(await begun(queue, 10.0), '{"text": "grüße"}', 11.0)
    await queue.fail(await begun(queue, 12.0), EngineFailed("x"), 13.0)
    await begun(queue, 14.0)
    await UsageTable(database).add("ada", TODAY, 12.5)
    return dict(zip(("done", "failed", "running", "waiting"), jobs, strict=True))


def restore(copy: Path, place: str) -> None:
    """As docs/jobs.md says it, after everything was lost."""
    for suffix in ("", "-wal", "-shm"):
        Path(place + suffix).unlink(missing_ok=True)
    Path(place).write_bytes(copy.read_bytes())


async def test_after_a_disaster_everything_goes_on_from_the_copy(
    place: str, tmp_path: Path
) -> None:
    database, copy = Database(place), tmp_path / "backup.sqlite3"
    jobs = await with_jobs_of_every_kind(database)
    back_up(place, copy)  # while the database is in use
    await submitted(Orders(database, CONFIG), now=99.0)
    await database.close()
    restore(copy, place)

    restored = Database(place)
    orders, queue = Orders(restored, CONFIG), JobQueue(restored, CONFIG)
    found = {job.id: job.status for job in await orders.list(None)}
    assert found == {
        jobs["done"].id: "succeeded",
        jobs["failed"].id: "failed",
        jobs["running"].id: "running",
        jobs["waiting"].id: "queued",
    }
    assert (await orders.result(jobs["done"].id, "ada"))[1] == '{"text": "grüße"}'
    # The one that nobody works on any more comes back when its lease is over.
    later = 15.0 + CONFIG.lease_s
    assert (await begun(queue, later)).id == jobs["running"].id
    last = await begun(queue, later)
    assert last.id == jobs["waiting"].id
    assert await queue.audio(last, 0) == AUDIO
    await orders.redrive(jobs["failed"].id, "ada", later)
    assert (await begun(queue, later)).attempts == 1
    outbox = Outbox(restored, CONFIG)
    told = [await outbox.take(later), await outbox.take(later)]
    assert [json.loads(webhook.body)["type"] for webhook in told if webhook] == [
        "job.succeeded",
        "job.failed",
    ]
    assert await UsageTable(restored).add("ada", TODAY, 0.0) == 12.5
    await restored.close()


def rights_in(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}


async def test_the_command_copies_what_is_configured(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    database = Database(place)
    await with_jobs_of_every_kind(database)
    config, copy = tmp_path / "config.json", tmp_path / "copy.sqlite3"
    config.write_text(json.dumps({"jobs": {"database": "jobs.sqlite3"}}))
    assert main(["jobs", "backup", str(copy), "--config", str(config)]) == 0
    assert capsys.readouterr().out.startswith(f"{copy} (")
    assert rights_in(tmp_path)["copy.sqlite3"] == 0o600
    with sqlite3.connect(copy) as connection:
        assert connection.execute("SELECT COUNT(*) FROM jobs").fetchone() == (4,)
    connection.close()
    await database.close()


@pytest.mark.parametrize(
    ("configured", "reason"),
    [
        (None, "no database"),
        ("postgresql://ada:secret@db.example.com/jobs", "pg_dump"),
        ("/nowhere/jobs.sqlite3", "cannot be copied"),
    ],
)
def test_what_cannot_be_copied_is_told(configured: str | None, reason: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        back_up(configured, tmp_path / "copy")
    assert "secret" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_over(place: str, tmp_path: Path) -> None:
    sqlite3.connect(place).close()
    copy = tmp_path / "copy"
    copy.write_text("yesterday's")
    with pytest.raises(ConfigError, match="already"):
        back_up(place, copy)
    assert copy.read_text() == "yesterday's"


def test_what_is_no_database_is_not_copied(place: str, tmp_path: Path) -> None:
    Path(place).write_bytes(b"a letter to my aunt " * 1000)
    with pytest.raises(ConfigError, match="cannot be copied"):
        back_up(place, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
