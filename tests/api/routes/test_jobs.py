from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.api.fakes import (
    ALL_IS_SPEECH,
    CLIP,
    OPEN,
    TEXT,
    FakePort,
    Lines,
    app_with,
    client_of,
    is_failure,
)
from tests.storage.servers import connections_gone
from whisper_serve.api.job_schemas import JobOut
from whisper_serve.api.routes.jobs import PATH
from whisper_serve.api.routes.transcribe import options_of
from whisper_serve.api.schemas import TranscribeParameters
from whisper_serve.config import Config
from whisper_serve.errors import EngineFailed, WhisperServeError
from whisper_serve.jobs.job import Job
from whisper_serve.jobs.orders import Orders
from whisper_serve.jobs.queue import JobQueue
from whisper_serve.jobs.runner import Pace, Runner
from whisper_serve.keys.making import digest_of, new_key
from whisper_serve.pipeline import TranscribeOptions, Transcriber
from whisper_serve.storage.database import Database

BARE = {"Content-Type": "audio/wav"}
HTML = {"Content-Type": "text/html"}
JSON = {"Content-Type": "application/json; charset=utf-8"}
HOOK = "https://hooks.example.com/jobs"
SECRET = "whsec_" + "c2VjcmV0" * 5
HOSTS = {"webhook_hosts": ["hooks.example.com"], "webhook_secret": SECRET}
QUICK = Pace(poll_s=0.02, beat_s=0.05, again_s=0.02)


def asked(job: Job) -> TranscribeOptions:
    return options_of(TranscribeParameters.model_validate(job.parameters), "", job.request_id)


@dataclass
class Service:
    """An application with a database, and who works on its jobs when asked to."""

    settings: dict[str, Any]
    database: Database
    port: FakePort = field(default_factory=FakePort)

    def __post_init__(self) -> None:
        self.config = Config.model_validate({"vad": ALL_IS_SPEECH, "auth": OPEN, **self.settings})
        self.orders = Orders(self.database, self.config.jobs)
        self.app = app_with(self.port, settings=self.settings, jobs=self.orders)

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        runner = Runner(
            self.database,
            self.config,
            Transcriber(self.port, self.config),
            asked,
            pace=QUICK,
        )
        task = asyncio.create_task(runner.run())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def ended(self, client: httpx.AsyncClient, job_id: str) -> dict[str, Any]:
        deadline = time.monotonic() + 20
        while (job := (await client.get(f"{PATH}/{job_id}")).json())["finished_at"] is None:
            assert time.monotonic() < deadline, job
            await asyncio.sleep(0.01)
        return dict(job)


@pytest_asyncio.fixture
async def database(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Database]:
    database = Database(str(tmp_path_factory.mktemp("jobs") / "jobs.sqlite3"))
    yield database
    await database.close()


@pytest.fixture
def service(database: Database) -> Service:
    return Service({"jobs": HOSTS}, database)


@pytest_asyncio.fixture
async def client(service: Service) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(service.app) as client:
        yield client


async def submitted(client: httpx.AsyncClient, **given: Any) -> dict[str, Any]:
    answer = await client.post(PATH, files={"audio_file": CLIP}, **given)
    assert answer.status_code == 202, answer.text
    job: dict[str, Any] = answer.json()
    assert answer.headers["location"] == f"{PATH}/{job['id']}"
    JobOut.model_validate(job)
    return job


# From the upload to the text


async def test_a_recording_becomes_text(service: Service, client: httpx.AsyncClient) -> None:
    job = await submitted(client, data={"language": "German", "word_timestamps": "true"})
    assert (job["status"], job["progress"], job["error"]) == ("queued", 0.0, None)
    assert job["parameters"]["language"] == "de"
    assert (await client.get(f"{PATH}/{job['id']}")).json() == job
    async with service.working():
        ended = await service.ended(client, job["id"])
    assert (ended["status"], ended["progress"], ended["duration"]) == ("succeeded", 1.0, 2.0)
    assert ended["attempts"] == 1
    result = (await client.get(f"{PATH}/{job['id']}/result")).json()
    assert (result["success"], result["text"], result["language"]) == (True, TEXT, "de")
    assert [word["word"] for word in result["words"]] == ["Grüße,", "Welt", "& <alle>."]
    assert service.port.tasks[0].language == "de"


async def test_the_result_is_what_transcribe_answers(
    service: Service, client: httpx.AsyncClient
) -> None:
    job = await submitted(client, data={"response_format": "verbose_json"})
    at_once = await client.post(
        "/transcribe", files={"file": CLIP}, data={"response_format": "verbose_json"}
    )
    async with service.working():
        await service.ended(client, job["id"])
    later = (await client.get(f"{PATH}/{job['id']}/result")).json()
    differs = {"latency", "request_id"}
    assert {k: v for k, v in later.items() if k not in differs} == {
        k: v for k, v in at_once.json().items() if k not in differs
    }


async def test_one_transcript_comes_in_every_form(
    service: Service, client: httpx.AsyncClient
) -> None:
    job = await submitted(client, data={"response_format": "srt"})
    async with service.working():
        await service.ended(client, job["id"])
    for form, kind, beginning in (
        (None, "application/x-subrip", "1\n00:00:00,100 --> "),
        ("vtt", "text/vtt", "WEBVTT"),
        ("text", "text/plain", TEXT),
        ("json", "application/json", '{"success":true'),
    ):
        params = {} if form is None else {"response_format": form}
        answer = await client.get(f"{PATH}/{job['id']}/result", params=params)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith(kind)
        assert answer.text.startswith(beginning)


async def test_the_bare_file_is_taken_too(service: Service, client: httpx.AsyncClient) -> None:
    answer = await client.post(
        PATH, content=CLIP, headers=BARE, params={"language": "de", "webhook_url": HOOK}
    )
    assert answer.status_code == 202
    assert answer.json()["webhook"] == {"url": HOOK, "status": "pending", "attempts": 0}
    async with service.working():
        assert (await service.ended(client, answer.json()["id"]))["status"] == "succeeded"


async def test_a_job_by_url_is_made_of_json(database: Database) -> None:
    service = Service({"jobs": {"url_hosts": ["*.example.com"]}}, database)
    url = "https://media.example.com/a.mp3?key=1"
    async with client_of(service.app) as client:
        answer = await client.post(
            PATH, json={"url": url, "language": "de", "beam_size": 1, "prompt": None}
        )
        assert answer.status_code == 202, answer.text
        assert answer.json()["url"] == url
        assert answer.json()["parameters"]["beam_size"] == 1


async def test_what_is_no_audio_fails_when_it_is_looked_at(
    service: Service, client: httpx.AsyncClient
) -> None:
    answer = await client.post(PATH, content=b"a letter", headers=BARE)
    assert answer.status_code == 202
    job_id = answer.json()["id"]
    async with service.working():
        job = await service.ended(client, job_id)
    assert (job["status"], job["attempts"]) == ("failed", 1)
    assert job["error"]["code"] == "unreadable_audio"
    refused = await client.get(f"{PATH}/{job_id}/result")
    assert is_failure(refused, 409, "job_conflict")
    dead = (await client.get(PATH, params={"status": "failed"})).json()
    assert [letter["id"] for letter in dead["jobs"]] == [job_id]


async def test_a_dead_letter_can_be_sent_off_again(
    service: Service, client: httpx.AsyncClient
) -> None:
    job = await submitted(client)
    claimed = await service.orders.get(job["id"], None)
    assert claimed.status == "queued"
    service.port.answer = EngineFailed("broken")
    await fail(service, job["id"])
    service.port.answer = FakePort().answer
    answer = await client.post(f"{PATH}/{job['id']}/redrive")
    assert (answer.status_code, answer.json()["status"]) == (202, "queued")
    async with service.working():
        assert (await service.ended(client, job["id"]))["status"] == "succeeded"


async def fail(service: Service, job_id: str, error: WhisperServeError | None = None) -> None:
    queue = JobQueue(service.database, service.config.jobs)
    running = await queue.claim(time.time())
    assert running is not None
    assert running.id == job_id
    await queue.fail(running, error or EngineFailed("broken"), time.time())


# What is refused at once


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        ({"content": b"", "headers": BARE}, 400, "empty_audio"),
        ({"data": {"language": "de"}}, 415, "unsupported_media_type"),
        ({"files": {"audio_file": CLIP}, "data": {"lang": "de"}}, 400, "invalid_parameter"),
        ({"files": {"audio_file": CLIP}, "data": {"model": "huge"}}, 404, "model_not_found"),
        ({"files": {"audio_file": CLIP}, "data": {"url": "http://x"}}, 400, "invalid_parameter"),
        (
            {"content": CLIP, "headers": {"Content-Type": "text/html"}},
            415,
            "unsupported_media_type",
        ),
        ({"json": {}}, 400, "invalid_parameter"),
        ({"json": {"url": 5}}, 400, "invalid_parameter"),
        ({"json": {"url": "https://media.example.com/"}}, 400, "invalid_parameter"),
        ({"json": [1]}, 400, "invalid_message"),
        (
            {"content": b"{", "headers": {"Content-Type": "application/json"}},
            400,
            "invalid_message",
        ),
        (
            {"files": {"audio_file": CLIP}, "data": {"webhook_url": "https://evil.example/"}},
            400,
            "url_not_allowed",
        ),
        (
            {"files": {"audio_file": CLIP}, "headers": {"Idempotency-Key": "k" * 256}},
            400,
            "invalid_parameter",
        ),
    ],
)
async def test_what_can_never_succeed_is_refused_at_once(
    client: httpx.AsyncClient, request_: dict[str, Any], status: int, code: str
) -> None:
    answer = await client.post(PATH, **request_)
    assert is_failure(answer, status, code), answer.text
    assert (await client.get(PATH)).json() == {"jobs": [], "next": None}


async def test_a_body_beyond_the_limit_is_not_taken(database: Database) -> None:
    service = Service({"limits": {"max_upload_bytes": 1000}}, database)
    async with client_of(service.app) as client:
        answer = await client.post(PATH, content=CLIP, headers=BARE)
        assert is_failure(answer, 413, "upload_too_large")
        assert (await client.get(PATH)).json()["jobs"] == []


async def test_a_full_queue_says_when_to_come_back(database: Database) -> None:
    service = Service({"jobs": {"max_queued": 1}}, database)
    async with client_of(service.app) as client:
        await submitted(client)
        answer = await client.post(PATH, content=CLIP, headers=BARE)
        assert is_failure(answer, 503, "overloaded")
        assert int(answer.headers["retry-after"]) > 0


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", ""),
        ("GET", ""),
        ("GET", "/ab"),
        ("GET", "/ab/result"),
        ("POST", "/ab/cancel"),
        ("POST", "/ab/redrive"),
        ("POST", "/ab/webhook"),
        ("DELETE", "/ab"),
    ],
)
async def test_without_a_database_there_are_no_jobs(method: str, path: str) -> None:
    async with client_of(app_with()) as client:
        answer = await client.request(method, PATH + path)
        assert is_failure(answer, 404, "jobs_disabled")
        assert "jobs.database" in answer.json()["error"]


async def test_a_database_that_is_away_is_told_as_such(tmp_path: Any) -> None:
    database = Database(str(tmp_path / "gone" / "jobs.sqlite3"))
    service = Service({}, database)
    async with client_of(service.app) as client:
        answer = await client.post(PATH, content=CLIP, headers=BARE)
    assert is_failure(answer, 503, "storage_unavailable")
    assert answer.headers["retry-after"] == "5"
    await database.close()
    await connections_gone()


# The same again


async def test_a_request_that_is_sent_again_makes_one_job(client: httpx.AsyncClient) -> None:
    key = {"Idempotency-Key": "order 66"}
    first = await submitted(client, headers=key)
    assert await submitted(client, headers=key) == first
    other = await client.post(PATH, files={"audio_file": CLIP + b"\0\0"}, headers=key)
    assert is_failure(other, 422, "idempotency_mismatch")
    assert len((await client.get(PATH)).json()["jobs"]) == 1


# Looking around


async def test_pages_lead_from_the_newest_to_the_oldest(client: httpx.AsyncClient) -> None:
    ids = [(await submitted(client))["id"] for _ in range(5)]
    seen: list[str] = []
    after: dict[str, str] = {}
    while True:
        page = (await client.get(PATH, params={"limit": 2, **after})).json()
        seen += [job["id"] for job in page["jobs"]]
        if page["next"] is None:
            break
        after = {"after": page["next"]}
    assert sorted(seen) == sorted(ids)
    assert seen == sorted(ids, reverse=True)


@pytest.mark.parametrize(
    "query", ["status=done", "limit=0", "limit=1000", "limit=x", "page=2", "limit=1&limit=2"]
)
async def test_a_query_that_makes_no_sense_is_told(client: httpx.AsyncClient, query: str) -> None:
    assert is_failure(await client.get(f"{PATH}?{query}"), 400, "invalid_parameter")


async def test_a_result_in_an_unknown_form_is_refused(client: httpx.AsyncClient) -> None:
    job = await submitted(client)
    answer = await client.get(f"{PATH}/{job['id']}/result?response_format=docx")
    assert is_failure(answer, 400, "invalid_parameter")


async def test_what_is_not_there_is_not_found(client: httpx.AsyncClient) -> None:
    for method, path in (("GET", ""), ("GET", "/result"), ("POST", "/cancel"), ("DELETE", "")):
        answer = await client.request(method, f"{PATH}/0123{path}")
        assert is_failure(answer, 404, "job_not_found")


# Changing one's mind


async def test_a_job_is_cancelled(service: Service, client: httpx.AsyncClient) -> None:
    job = await submitted(client)
    answer = await client.post(f"{PATH}/{job['id']}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
    result = await client.get(f"{PATH}/{job['id']}/result")
    assert is_failure(result, 409, "job_conflict")


async def test_a_job_at_work_stops_when_it_is_cancelled(
    service: Service, client: httpx.AsyncClient
) -> None:
    begun, gone = asyncio.Event(), asyncio.Event()

    async def never(_task: object) -> Any:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            gone.set()

    service.port.answer = never
    job = await submitted(client)
    assert is_failure(await client.get(f"{PATH}/{job['id']}/result"), 409, "job_not_finished")
    async with service.working():
        await asyncio.wait_for(begun.wait(), 20)
        await client.post(f"{PATH}/{job['id']}/cancel")
        await asyncio.wait_for(gone.wait(), 20)
        assert (await service.ended(client, job["id"]))["status"] == "cancelled"


async def test_a_job_is_forgotten(client: httpx.AsyncClient) -> None:
    job = await submitted(client)
    answer = await client.delete(f"{PATH}/{job['id']}")
    assert (answer.status_code, answer.content) == (204, b"")
    assert is_failure(await client.get(f"{PATH}/{job['id']}"), 404, "job_not_found")


async def test_a_webhook_is_sent_again_when_there_was_one(
    service: Service, client: httpx.AsyncClient
) -> None:
    job = await submitted(client, data={"webhook_url": HOOK})
    early = await client.post(f"{PATH}/{job['id']}/webhook")
    assert is_failure(early, 409, "job_conflict")
    await client.post(f"{PATH}/{job['id']}/cancel")
    answer = await client.post(f"{PATH}/{job['id']}/webhook")
    assert (answer.status_code, answer.json()["webhook"]["status"]) == (202, "pending")


# Whose they are


ADA, BOB, CHIEF = new_key(), new_key(), new_key()
KEYS = [
    {"name": "ada", "sha256": digest_of(ADA), "scopes": ["jobs"]},
    {"name": "bob", "sha256": digest_of(BOB), "scopes": ["jobs"]},
    {"name": "chief", "sha256": digest_of(CHIEF), "scopes": ["jobs", "admin"]},
]


async def test_callers_see_their_own_jobs_and_an_admin_sees_all(database: Database) -> None:
    service = Service({"auth": {"keys": KEYS}}, database)
    async with client_of(service.app) as client:
        mine = {"Authorization": f"Bearer {ADA}"}
        other = {"Authorization": f"Bearer {BOB}"}
        chief = {"Authorization": f"Bearer {CHIEF}"}
        assert is_failure(await client.get(PATH), 401, "invalid_api_key")
        job = (await client.post(PATH, content=CLIP, headers={**BARE, **mine})).json()
        place = f"{PATH}/{job['id']}"
        for method, path in (
            ("GET", place),
            ("GET", f"{place}/result"),
            ("POST", f"{place}/cancel"),
            ("DELETE", place),
        ):
            assert is_failure(
                await client.request(method, path, headers=other), 404, "job_not_found"
            )
        assert (await client.get(PATH, headers=other)).json()["jobs"] == []
        assert (await client.get(PATH, headers=chief)).json()["jobs"] == [job]
        assert (await client.get(place, headers=chief)).json() == job
        assert (await client.delete(place, headers=mine)).status_code == 204


async def test_what_was_changed_is_on_record(client: httpx.AsyncClient, lines: Lines) -> None:
    job = await submitted(client)
    await client.post(f"{PATH}/{job['id']}/cancel")
    await client.delete(f"{PATH}/{job['id']}")
    audit = [record for record in lines.records if record.name == "whisper_serve.audit"]
    assert [record.getMessage() for record in audit] == [
        "job made",
        "job cancelled",
        "job deleted",
    ]
    told = [json.dumps(getattr(record, "fields", {})) for record in audit]
    assert all(job["id"] in fields and "anyone" in fields for fields in told)
