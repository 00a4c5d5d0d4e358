"""Jobs of the real service, and of one that breaks off when told."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from tests.api.fakes import CLIP, TEXT
from tests.client.answering import BREAK_OFF, Answer, Upload, answering, in_turn, refusal
from tests.client.job_service import KEYS, JobService, serving_jobs
from whisper_serve.client import AsyncClient, Client, Job, JobError, Transcription
from whisper_serve.errors import (
    InvalidParameter,
    JobNotOver,
    ServerRefused,
    UnexpectedAnswer,
    UnreadableAudio,
)

WAIT_S = 10.0
SHOWN: dict[str, Any] = {
    "id": "j1",
    "status": "queued",
    "progress": 0.0,
    "duration": None,
    "created_at": 1_750_000_000.5,
    "started_at": None,
    "finished_at": None,
    "attempts": 0,
    "error": None,
    "webhook": None,
    "parameters": {"language": "de"},
    "url": None,
    "of_a_newer_service": 1,
}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JobService]:
    with serving_jobs(tmp_path_factory.mktemp("jobs")) as service:
        yield service


@pytest.fixture
def held(service: JobService) -> Iterator[JobService]:
    """Its engine answers nothing."""
    service.hold()
    yield service
    service.release()


def client_of(service: JobService, name: str = "ada") -> AsyncClient:
    return AsyncClient(service.url, api_key=KEYS[name], give_up_after_s=5.0)


def shown(**values: Any) -> Answer:
    return Answer(200, json.dumps({**SHOWN, **values}).encode())


# Of the real service


async def test_a_recording_is_handed_in_waited_for_and_read(
    service: JobService, tmp_path: Path
) -> None:
    path = tmp_path / "talk.wav"
    path.write_bytes(CLIP)
    sent: list[tuple[int, int]] = []
    async with client_of(service) as client:
        job = await client.jobs.submit(
            path,
            language="de",
            word_timestamps=True,
            suppress_tokens=[-1],
            progress=lambda *told: sent.append(told),
        )
        over = await client.jobs.wait(job.id, WAIT_S)
        found = await client.jobs.result(job.id)
        text, srt = [await client.jobs.result(job.id, form) for form in ("text", "srt")]
    assert (job.status, job.is_over, job.progress, job.error) == ("queued", False, 0.0, None)
    assert (job.parameters["language"], job.parameters["word_timestamps"]) == ("de", True)
    assert sent[-1][0] == sent[-1][1] > len(CLIP)
    assert (over.status, over.is_over, over.progress) == ("succeeded", True, 1.0)
    assert over.duration == pytest.approx(2.0)
    assert isinstance(found, Transcription)
    assert (found.text, len(found.words or ())) == (TEXT, 3)
    assert text.strip() == TEXT
    assert srt.startswith("1\n00:00:00,100 --> ")


async def test_moments_are_in_utc(service: JobService) -> None:
    async with client_of(service) as client:
        job = await client.jobs.submit(CLIP)
        over = await client.jobs.wait(job.id, WAIT_S)
    assert abs(datetime.now(timezone.utc) - job.created_at) < timedelta(minutes=1)
    assert job.finished_at is None
    assert over.started_at is not None
    assert over.finished_at is not None
    assert over.created_at <= over.started_at <= over.finished_at


async def test_the_same_idempotency_key_is_the_same_job(service: JobService) -> None:
    async with client_of(service) as client:
        one, again = [await client.jobs.submit(CLIP, idempotency_key="k1") for _ in range(2)]
        other = await client.jobs.submit(CLIP)
        with pytest.raises(ServerRefused) as caught:
            await client.jobs.submit(CLIP, idempotency_key="k1", language="en")
    assert one.id == again.id != other.id
    assert caught.value.error_code == "idempotency_mismatch"


async def test_waiting_has_an_end(held: JobService) -> None:
    async with client_of(held) as client:
        job = await client.jobs.submit(CLIP)
        began = time.monotonic()
        with pytest.raises(JobNotOver, match=f"the job {job.id} is still ") as caught:
            await client.jobs.wait(job.id, timeout_s=0.3)
        assert 0.3 <= time.monotonic() - began < 3.0
        held.release()
        assert (await client.jobs.wait(job.id, WAIT_S)).status == "succeeded"
    assert caught.value.job_id == job.id


async def test_who_stops_waiting_leaves_the_job_alone(held: JobService) -> None:
    async with client_of(held) as client:
        job = await client.jobs.submit(CLIP)
        waiting = asyncio.create_task(client.jobs.wait(job.id))
        await asyncio.sleep(0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        held.release()
        assert (await client.jobs.wait(job.id, WAIT_S)).status == "succeeded"


async def test_a_job_is_given_up_and_forgotten(held: JobService) -> None:
    async with client_of(held) as client:
        job = await client.jobs.submit(CLIP)
        with pytest.raises(ServerRefused) as early:
            await client.jobs.result(job.id)
        await client.jobs.cancel(job.id)
        assert (await client.jobs.wait(job.id, WAIT_S)).status == "cancelled"
        await client.jobs.delete(job.id)
        with pytest.raises(ServerRefused) as gone:
            await client.jobs.get(job.id)
    assert (early.value.status, early.value.error_code) == (409, "job_not_finished")
    assert (gone.value.status, gone.value.error_code) == (404, "job_not_found")


async def test_a_job_that_failed_says_why_and_can_be_queued_again(service: JobService) -> None:
    async with client_of(service) as client:
        job = await client.jobs.submit(b"this is no audio at all")
        failed = await client.jobs.wait(job.id, WAIT_S)
        again = await client.jobs.redrive(job.id)
        assert (await client.jobs.wait(job.id, WAIT_S)).status == "failed"
        listed = [one.id async for one in client.jobs.list("failed")]
    assert failed.status == "failed"
    assert isinstance(failed.error, JobError)
    assert failed.error.code in {"unreadable_audio", "unsupported_format"}
    assert (again.id, again.status) == (job.id, "queued")
    assert job.id in listed


async def test_jobs_are_listed_over_pages(
    held: JobService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whisper_serve.client.jobs.PAGE", 2)
    async with client_of(held, "bob") as client:
        made = [(await client.jobs.submit(CLIP)).id for _ in range(5)]
        all_jobs = [job.id async for job in client.jobs.list()]
        first = await anext(client.jobs.list())
    assert all_jobs == made[::-1]
    assert first.id == made[-1]


async def test_other_people_s_jobs_are_none(service: JobService) -> None:
    async with client_of(service) as ada, client_of(service, "bob") as bob:
        job = await ada.jobs.submit(CLIP)
        with pytest.raises(ServerRefused) as caught:
            await bob.jobs.get(job.id)
    assert caught.value.error_code == "job_not_found"


async def test_without_a_key_there_are_none(service: JobService) -> None:
    async with AsyncClient(service.url, api_key="") as client:
        with pytest.raises(ServerRefused) as caught:
            await client.jobs.submit(CLIP)
    assert (caught.value.status, caught.value.error_code) == (401, "invalid_api_key")


async def test_a_url_is_refused_where_none_is_allowed(service: JobService) -> None:
    async with client_of(service) as client:
        with pytest.raises(ServerRefused, match="url: "):
            await client.jobs.submit(url="https://media.example.com/talk.mp3")


def test_the_same_without_await(service: JobService) -> None:
    with Client(service.url, api_key=KEYS["bob"]) as client:
        job = client.jobs.submit(CLIP)
        assert client.jobs.wait(job.id, WAIT_S).status == "succeeded"
        assert client.jobs.get(job.id).id == job.id
        assert client.jobs.result(job.id).text == TEXT
        assert client.jobs.result(job.id, "vtt").startswith("WEBVTT")
        assert job.id in [one.id for one in client.jobs.list("succeeded")]
        with pytest.raises(ServerRefused, match="409"):
            client.jobs.cancel(job.id)
        with pytest.raises(ServerRefused, match="409"):
            client.jobs.redrive(job.id)
        with pytest.raises(ServerRefused, match="409"):
            client.jobs.resend_webhook(job.id)
        client.jobs.delete(job.id)


# Of one that breaks off


async def test_a_submission_whose_answer_is_lost_makes_one_job() -> None:
    busy = refusal(503, "draining", "it is about to stop", Retry_After="0")
    with answering(in_turn(BREAK_OFF, busy, shown())) as server:
        async with AsyncClient(server.url) as client:
            job = await client.jobs.submit(b"some audio", webhook_url="https://x.example/hook")
        keys = {upload.headers["idempotency-key"] for upload in server.uploads}
        contents = [upload.content for upload in server.uploads]
        assert server.uploads[0].fields == {"webhook_url": "https://x.example/hook"}
    assert job.id == "j1"
    assert len(keys) == 1
    assert contents == [b"some audio"] * 3


async def test_each_submission_has_a_key_of_its_own() -> None:
    with answering(shown()) as server:
        async with AsyncClient(server.url) as client:
            for _ in range(2):
                await client.jobs.submit(b"x")
            await client.jobs.submit(b"x", idempotency_key="mine")
        keys = [upload.headers["idempotency-key"] for upload in server.uploads]
    assert len(set(keys)) == 3
    assert keys[2] == "mine"


async def test_a_url_is_sent_as_json() -> None:
    with answering(shown(url="https://x.example/a.mp3")) as server:
        async with AsyncClient(server.url) as client:
            job = await client.jobs.submit(url="https://x.example/a.mp3", beam_size=2)
        [upload] = server.uploads
    assert upload.headers["content-type"] == "application/json"
    assert upload.fields == {"url": "https://x.example/a.mp3", "beam_size": "2"}
    assert job.url == "https://x.example/a.mp3"


async def test_waiting_goes_over_a_restart() -> None:
    down = Answer(502, b"<html>Bad Gateway</html>")
    answers = in_turn(shown(), BREAK_OFF, down, BREAK_OFF, shown(status="succeeded"))
    with answering(answers) as server:
        async with AsyncClient(server.url) as client:
            assert (await client.jobs.wait("j1", WAIT_S)).status == "succeeded"
        assert len(server.uploads) == 5


async def test_what_changes_a_job_is_not_asked_twice() -> None:
    for change in ("cancel", "redrive", "resend_webhook", "delete"):
        with answering(BREAK_OFF) as server:
            async with AsyncClient(server.url) as client:
                act: Callable[[str], Any] = getattr(client.jobs, change)
                with pytest.raises(Exception, match="disconnected"):
                    await act("j1")
            assert len(server.uploads) == 1


async def test_an_id_is_one_part_of_a_path() -> None:
    def answer(request: Upload) -> Answer:
        return shown(id=request.path)

    with answering(answer) as server:
        async with AsyncClient(f"{server.url}/speech") as client:
            assert (await client.jobs.get("../a?b/c")).id == "/speech/v1/jobs/..%2Fa%3Fb%2Fc"
            with pytest.raises(InvalidParameter, match="job_id: it is empty"):
                await client.jobs.delete("")
        assert len(server.uploads) == 1


async def test_moments_may_be_written_in_two_ways() -> None:
    at = datetime(2025, 6, 15, 12, 30, tzinfo=timezone.utc)
    for form in (at.timestamp(), "2025-06-15T12:30:00.000Z"):
        with answering(shown(created_at=form)) as server:
            async with AsyncClient(server.url) as client:
                assert (await client.jobs.get("j1")).created_at == at


@pytest.mark.parametrize("body", [b"<html>", b"{}", b'{"id": "j1", "status": "odd"}'])
async def test_what_is_not_this_service_is_told(body: bytes) -> None:
    with answering(Answer(200, body)) as server:
        async with AsyncClient(server.url) as client:
            with pytest.raises(UnexpectedAnswer, match=server.url):
                await client.jobs.get("j1")
            with pytest.raises(UnexpectedAnswer, match=server.url):
                await anext(client.jobs.list())


async def test_one_thing_is_handed_in() -> None:
    async with AsyncClient() as client:
        for wrong in ({}, {"recording": b"x", "url": "https://x.example"}):
            with pytest.raises(InvalidParameter, match="recording: either"):
                await client.jobs.submit(**wrong)  # type: ignore[arg-type]
        with pytest.raises(UnreadableAudio):
            await client.jobs.submit("nowhere.mp3")


def test_a_job_is_a_value() -> None:
    job = Job("a", "queued", 0.0, None, datetime.now(timezone.utc), None, None, 0, None, None, {})
    with pytest.raises(AttributeError):
        job.status = "running"  # type: ignore[misc]
