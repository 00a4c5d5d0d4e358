"""Jobs: recordings that are transcribed in their turn, whatever happens to a connection."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload
from urllib.parse import quote

import httpx
from pydantic import TypeAdapter, ValidationError

from whisper_serve.client import upload
from whisper_serve.client.answers import Transcription
from whisper_serve.client.options import TranscribeOptions, fields_of
from whisper_serve.client.service import Make, Service
from whisper_serve.errors import InvalidParameter, JobNotOver, UnexpectedAnswer

if TYPE_CHECKING:
    from typing_extensions import Unpack

Status = Literal["queued", "running", "succeeded", "failed", "cancelled"]
Written = Literal["text", "srt", "vtt"]
Shown = TypeVar("Shown")

OVER = {"succeeded", "failed", "cancelled"}
PAGE = 100
FIRST_PAUSE_S = 0.5
PAUSE_GROWS = 1.5
LONGEST_PAUSE_S = 10.0


@dataclass(frozen=True, slots=True)
class JobError:
    """Why a job failed, in the words of the service."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class WebhookState:
    """Where the end of a job is told, and whether that succeeded."""

    url: str
    status: str
    attempts: int


@dataclass(frozen=True, slots=True)
class Job:
    """A job as the service shows it.

    `progress`: 0 to 1. `duration`: seconds of audio, once they are known. `attempts`: how often
    it was begun. `parameters`: those it was submitted with, as they were checked.
    """

    id: str
    status: Status
    progress: float
    duration: float | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    attempts: int
    error: JobError | None
    webhook: WebhookState | None
    parameters: Mapping[str, Any]
    url: str | None = None

    @property
    def is_over(self) -> bool:
        return self.status in OVER


JOB = TypeAdapter(Job)


@dataclass(frozen=True, slots=True)
class _Page:
    jobs: tuple[Job, ...]
    next: str | None


PAGES = TypeAdapter(_Page)


class AsyncJobs:
    """The jobs of whoever the client's key belongs to; `AsyncClient.jobs`.

    Requests that do no harm twice are made again while the service is busy or cannot be
    reached, for the client's `give_up_after_s`. All raise `ServerRefused`, for a job that there
    is not with `error_code="job_not_found"`, `ConnectionLost` and `UnexpectedAnswer`.
    """

    def __init__(self, service: Service) -> None:
        self._service = service

    async def submit(
        self,
        recording: upload.Recording | None = None,
        *,
        url: str | None = None,
        webhook_url: str | None = None,
        idempotency_key: str | None = None,
        progress: upload.Sent | None = None,
        **options: Unpack[TranscribeOptions],
    ) -> Job:
        """Hand in a recording, or the `url` from which the service fetches one.

        However often this has to be tried, it makes one job: the service knows it by
        `idempotency_key`, which is made up when it is None; a key that was kept makes the same
        true of another process. `webhook_url` is told when the job is over. `progress` and
        `options`: see `AsyncClient.transcribe`. Raises `UnreadableAudio`, and
        `InvalidParameter` unless there is either a recording or a `url`.
        """
        if (recording is None) == (url is None):
            raise InvalidParameter("recording", "either a recording or a url is needed")
        fields = fields_of({**options, "webhook_url": webhook_url, "url": url})
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        if recording is None:
            return await self._submitted(self._making("POST", json=fields, headers=headers))
        async with upload.opened(recording) as file:
            make = upload.form_of(
                self._service, "/v1/jobs", file, fields, progress=progress, headers=headers
            )
            return await self._submitted(make)

    async def get(self, job_id: str) -> Job:
        return await self._job("GET", job_id)

    async def wait(self, job_id: str, timeout_s: float | None = None) -> Job:
        """The job once it is over, whether it succeeded or not; asked for at growing intervals.

        Raises `JobNotOver` after `timeout_s`. To stop waiting changes nothing about the job.
        """
        loop = asyncio.get_running_loop()
        end = None if timeout_s is None else loop.time() + timeout_s
        pause_s = FIRST_PAUSE_S
        while not (job := await self.get(job_id)).is_over:
            left_s = pause_s if end is None else end - loop.time()
            if left_s <= 0:
                raise JobNotOver(job.id, job.status)
            # Those who submitted together do not ask together.
            await asyncio.sleep(min(left_s, pause_s * random.uniform(0.75, 1.25)))  # noqa: S311
            pause_s = min(pause_s * PAUSE_GROWS, LONGEST_PAUSE_S)
        return job

    @overload
    async def result(self, job_id: str) -> Transcription: ...

    @overload
    async def result(self, job_id: str, response_format: Written) -> str: ...

    async def result(
        self, job_id: str, response_format: Written | None = None
    ) -> Transcription | str:
        """What a job found: as text, SRT or WebVTT, or with everything that is known about it.

        Raises `ServerRefused` with `error_code="job_not_finished"` while it is not over.
        """
        params = {"response_format": response_format or "verbose_json"}
        make = self._making("GET", job_id, "result", params=params)
        answer = await self._service.ask(make, repeatable=True)
        return answer.text if response_format else upload.read(answer)

    async def cancel(self, job_id: str) -> Job:
        """Give a job up. One that is running ends soon afterwards."""
        return await self._job("POST", job_id, "cancel", repeatable=False)

    async def redrive(self, job_id: str) -> Job:
        """Queue a job that failed once more."""
        return await self._job("POST", job_id, "redrive", repeatable=False)

    async def resend_webhook(self, job_id: str) -> Job:
        """Tell the end of a job again."""
        return await self._job("POST", job_id, "webhook", repeatable=False)

    async def delete(self, job_id: str) -> None:
        """Forget a job with its audio and its result."""
        await self._service.ask(self._making("DELETE", job_id), repeatable=False)

    async def list(self, status: Status | None = None) -> AsyncIterator[Job]:
        """All jobs, or those in one state, fetched as they are asked for."""
        after: str | None = None
        while True:
            params = {"status": status, "limit": PAGE, "after": after}
            known = {name: value for name, value in params.items() if value is not None}
            make = self._making("GET", params=known)
            page = _read(PAGES, await self._service.ask(make, repeatable=True))
            for job in page.jobs:
                yield job
            if page.next is None:
                return
            after = page.next

    async def _submitted(self, make: Make) -> Job:
        return _read(JOB, await self._service.ask(make, repeatable=True))

    async def _job(self, method: str, *path: str, repeatable: bool = True) -> Job:
        make = self._making(method, *path)
        return _read(JOB, await self._service.ask(make, repeatable=repeatable))

    def _making(self, method: str, *path: str, **request: Any) -> Make:
        """Raises `InvalidParameter` for a job without an id, which would be all of them."""
        if "" in path:
            raise InvalidParameter("job_id", "it is empty")
        url = self._service.url("/".join(["/v1/jobs", *(quote(part, safe="") for part in path)]))
        return lambda: self._service.http.build_request(method, url, **request)


def _read(kind: TypeAdapter[Shown], answer: httpx.Response) -> Shown:
    try:
        return kind.validate_json(answer.content)
    except ValidationError as exc:
        raise UnexpectedAnswer(f"{answer.url} does not answer as a whisper_serve does") from exc
