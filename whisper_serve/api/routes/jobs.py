"""`/v1/jobs`: a recording in now, its text when it is done."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel
from starlette.responses import JSONResponse

from whisper_serve.api.auth.callers import Caller, caller_of
from whisper_serve.api.job_orders import MAX_KEY_CHARS, query_of, receive_order
from whisper_serve.api.job_schemas import JobOut, JobsOut, JobsQuery, ResultQuery
from whisper_serve.api.json_body import checked
from whisper_serve.api.plain_bodies import CONTENT, plain_body
from whisper_serve.api.schemas import ResponseFormat, TranscribeParameters, TranscriptionOut
from whisper_serve.api.services import Services
from whisper_serve.api.upload import FILE_FIELDS
from whisper_serve.errors import JobsDisabled
from whisper_serve.jobs.job import Job
from whisper_serve.jobs.orders import Orders
from whisper_serve.jobs.transcripts import from_json

audit = logging.getLogger("whisper_serve.audit")

PATH = "/v1/jobs"
ERRORS = {
    400: "The file, the URL or a parameter cannot be used.",
    404: "There is no such job or model, or this service keeps no jobs.",
    408: "The body does not come in time.",
    409: "The job is not in a state in which this is possible.",
    413: "The upload is larger than the limits.",
    415: "The Content-Type is not accepted.",
    422: "The Idempotency-Key was used for another job.",
    503: "No room, or no database; `Retry-After` says when to come back.",
}
URL_SCHEMA = {"type": "string", "format": "uri"}
KEY_SCHEMA = {"type": "string", "minLength": 1, "maxLength": MAX_KEY_CHARS}


class JobDesk:
    """Speaks with callers about their jobs, and keeps record of what they changed."""

    def __init__(self, services: Services) -> None:
        self._services = services

    @property
    def orders(self) -> Orders:
        """Raises `JobsDisabled`."""
        if self._services.jobs is None:
            raise JobsDisabled
        return self._services.jobs

    async def submit(self, request: Request) -> Job:
        """Refuses what it can before it reads the audio."""
        self._services.door.drain.require_open()
        await self.orders.require_room()
        async with receive_order(request, self._services) as received:
            job = await self.orders.submit(
                received.order, received.audio, received.size, time.time()
            )
        self._services.nudge_runners()
        _record("job made", job.id, request)
        return job

    async def change(self, what: Changes, said: str, job_id: str, request: Request) -> Job:
        job = await what(job_id, seen_by(caller_of(request)), time.time())
        self._services.nudge_runners()
        _record(said, job_id, request)
        return job

    async def delete(self, job_id: str, request: Request) -> None:
        await self.orders.delete(job_id, seen_by(caller_of(request)))
        _record("job deleted", job_id, request)


Changes = Callable[[str, str | None, float], Awaitable[Job]]


def jobs_router(services: Services) -> APIRouter:
    router = APIRouter(prefix=PATH, tags=["jobs"])
    desk = JobDesk(services)
    _add_submit(router, desk)
    _add_looks(router, desk)
    _add_changes(router, desk)
    return router


def _add_submit(router: APIRouter, desk: JobDesk) -> None:
    @router.post(
        "",
        status_code=202,
        summary="Transcribe a recording later",
        responses=_failures(400, 404, 408, 413, 415, 422, 503),
        response_model=JobOut,
        openapi_extra=_request_schema(),
    )
    async def submit(request: Request) -> Response:
        """As `POST /transcribe`, or JSON with the `url` of a recording. The answer comes as soon
        as the job is safely kept; `Location` is where to look for it. With an `Idempotency-Key`
        the same request makes one job, however often it is sent."""
        job = await desk.submit(request)
        place = f"{request.scope.get('root_path', '')}{PATH}/{job.id}"
        return JSONResponse(job.shown(), 202, {"Location": place})


def _add_looks(router: APIRouter, desk: JobDesk) -> None:
    @router.get(
        "",
        summary="Your jobs",
        responses=_failures(400, 404, 503),
        openapi_extra=_query_schema(JobsQuery),
    )
    async def jobs(request: Request) -> JobsOut:
        """The newest first; `status=failed` are those that can be queued again."""
        query = checked(JobsQuery, query_of(request))
        found = await desk.orders.list(
            seen_by(caller_of(request)),
            status=query.status,
            limit=query.limit + 1,
            after=query.after,
        )
        page = [JobOut.model_validate(job.shown()) for job in found[: query.limit]]
        return JobsOut(jobs=page, next=page[-1].id if len(found) > query.limit else None)

    @router.get("/{job_id}", summary="One job", responses=_failures(404, 503))
    async def job(job_id: str, request: Request) -> JobOut:
        found = await desk.orders.get(job_id, seen_by(caller_of(request)))
        return JobOut.model_validate(found.shown())

    @router.get(
        "/{job_id}/result",
        summary="What a job gave",
        response_model=TranscriptionOut,
        responses={200: {"content": CONTENT}, **_failures(400, 404, 409, 503)},
        openapi_extra=_query_schema(ResultQuery),
    )
    async def result(job_id: str, request: Request) -> Response:
        """In the form that the job asked for, or in any other: `response_format`."""
        query = checked(ResultQuery, query_of(request))
        found, transcript = await desk.orders.result(job_id, seen_by(caller_of(request)))
        return await asyncio.to_thread(answer, found, transcript, query.response_format)


def _add_changes(router: APIRouter, desk: JobDesk) -> None:
    refusals = _failures(404, 409, 503)

    @router.post("/{job_id}/cancel", summary="Give a job up", responses=refusals)
    async def cancel(job_id: str, request: Request) -> JobOut:
        """Whoever works on it stops within seconds."""
        job = await desk.change(desk.orders.cancel, "job cancelled", job_id, request)
        return JobOut.model_validate(job.shown())

    @router.post(
        "/{job_id}/redrive", status_code=202, summary="Try a failed job again", responses=refusals
    )
    async def redrive(job_id: str, request: Request) -> JobOut:
        job = await desk.change(desk.orders.redrive, "job queued again", job_id, request)
        return JobOut.model_validate(job.shown())

    @router.post(
        "/{job_id}/webhook", status_code=202, summary="Send its webhook again", responses=refusals
    )
    async def webhook(job_id: str, request: Request) -> JobOut:
        job = await desk.change(desk.orders.send_webhook, "webhook sent again", job_id, request)
        return JobOut.model_validate(job.shown())

    @router.delete(
        "/{job_id}", status_code=204, summary="Forget a job", responses=_failures(404, 503)
    )
    async def delete(job_id: str, request: Request) -> None:
        """Its audio and its result too. One that is at work is given up."""
        await desk.delete(job_id, request)


def seen_by(caller: Caller) -> str | None:
    """Whose jobs a caller sees: None is everybody's."""
    return None if "admin" in caller.scopes else caller.name


def answer(job: Job, stored: str, form: ResponseFormat | None) -> Response:
    parameters = TranscribeParameters.model_validate(job.parameters)
    transcript = from_json(stored)
    match form or parameters.response_format:
        case "text" | "srt" | "vtt" as plain:
            return plain_body(transcript, plain)
        case json_form:
            body = TranscriptionOut.of(
                transcript,
                latency_s=(job.finished_at or 0.0) - (job.started_at or 0.0),
                request_id=job.request_id,
                with_words=parameters.word_timestamps,
                verbose=json_form == "verbose_json",
            )
            return JSONResponse(body.model_dump())


def _record(said: str, job_id: str, request: Request) -> None:
    audit.info(said, extra={"fields": {"caller": caller_of(request).name, "job": job_id}})


def _failures(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {
        status: {"model": TranscriptionOut, "description": ERRORS[status]} for status in statuses
    }


def _query_schema(model: type[BaseModel]) -> dict[str, Any]:
    """The query, which FastAPI would refuse in its own words."""
    return {
        "parameters": [
            {"name": name, "in": "query", "required": False, "schema": schema}
            for name, schema in model.model_json_schema()["properties"].items()
        ]
    }


def _request_schema() -> dict[str, Any]:
    """The body, which is read by hand to keep it bounded."""
    fields = {**TranscribeParameters.model_json_schema()["properties"], "webhook_url": URL_SCHEMA}
    key = {"name": "Idempotency-Key", "in": "header", "required": False, "schema": KEY_SCHEMA}
    query = [
        {"name": name, "in": "query", "required": False, "schema": schema}
        for name, schema in fields.items()
    ]
    return {
        "parameters": [*query, key],
        "requestBody": {"required": True, "content": _bodies(fields)},
    }


def _bodies(fields: Mapping[str, Any]) -> dict[str, Any]:
    binary = {"schema": {"type": "string", "format": "binary"}}
    form = {**dict.fromkeys(FILE_FIELDS, binary["schema"]), **fields}
    by_url = {"type": "object", "properties": {"url": URL_SCHEMA, **fields}, "required": ["url"]}
    return {
        "multipart/form-data": {"schema": {"type": "object", "properties": form}},
        "audio/*": binary,
        "application/octet-stream": binary,
        "application/json": {"schema": by_url},
    }
