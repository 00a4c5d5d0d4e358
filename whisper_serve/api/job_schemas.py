"""What goes over the wire about jobs, both ways."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from whisper_serve.api.schemas import ResponseFormat
from whisper_serve.jobs.job import Status, WebhookStatus

MAX_PAGE = 100


class JobErrorOut(BaseModel):
    """Why a job failed."""

    code: str
    message: str


class WebhookOut(BaseModel):
    """Where the end of the job is told, and whether somebody took it."""

    url: str
    status: WebhookStatus
    attempts: int


class JobOut(BaseModel):
    """A job. Times are seconds since 1970, `duration` is seconds of audio."""

    id: str
    status: Status
    progress: float = Field(ge=0.0, le=1.0)
    duration: float | None
    created_at: float
    started_at: float | None
    finished_at: float | None
    attempts: int
    error: JobErrorOut | None
    webhook: WebhookOut | None
    parameters: dict[str, Any]
    url: str | None


class JobsOut(BaseModel):
    """A page of jobs, the newest first. `next` is `after` for the next page, null on the last."""

    jobs: list[JobOut]
    next: str | None


class JobsQuery(BaseModel):
    """Query of `GET /v1/jobs`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    status: Status | None = Field(None, description="Only those in this state.")
    limit: int = Field(20, ge=1, le=MAX_PAGE, description="Jobs of one page.")
    after: str | None = Field(
        None, max_length=64, description="The last job of the page before, as `next` said."
    )


class ResultQuery(BaseModel):
    """Query of `GET /v1/jobs/{id}/result`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    response_format: ResponseFormat | None = Field(
        None, description="Form of the answer; by default that of the job."
    )
