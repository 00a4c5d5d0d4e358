"""What a job is, and how it is shown.

    receiving ──> queued ──> running ──> succeeded
                  │   ↑         │  ├───> failed ──> queued (redrive)
                  │   └─────────┘  │
                  └────────────────┴───> cancelled

`receiving` is nobody's business: the audio is still coming in. A running job goes back to the
queue when its process stops, dies or is refused by the engines. A job that failed is a dead
letter: its audio is kept, so that it can be queued again.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy.engine import Row

Status = Literal["queued", "running", "succeeded", "failed", "cancelled"]
STATUSES: tuple[Status, ...] = ("queued", "running", "succeeded", "failed", "cancelled")
WAITING = frozenset({"queued", "running"})
WebhookStatus = Literal["pending", "sent", "failed"]


@dataclass(frozen=True, slots=True)
class WebhookState:
    """The last webhook of a job; `pending` from the start, since one will be sent."""

    url: str
    status: WebhookStatus
    attempts: int


@dataclass(frozen=True, slots=True)
class Job:
    """One job. `parameters` are those of the request, as they were checked. `claims` counts
    how often somebody began to work on it; `attempts` only those that were its own fault or
    ended without a word. Times are Unix seconds, `duration` seconds of audio."""

    id: str
    caller: str
    status: Status
    parameters: Mapping[str, Any]
    url: str | None
    request_id: str
    created_at: float
    queued_at: float
    started_at: float | None
    finished_at: float | None
    attempts: int
    claims: int
    progress: float
    duration: float | None
    charged_s: float
    error_code: str | None
    error_message: str | None
    webhook: WebhookState | None

    @classmethod
    def of(cls, row: Row[Any]) -> Job:
        """Of a row that `jobs_where` selects."""
        values = dict(row._mapping)
        hook = WebhookState(
            values.pop("webhook_url"),
            values.pop("hook_status") or "pending",
            values.pop("hook_attempts") or 0,
        )
        parameters = json.loads(values.pop("parameters"))
        return cls(**values, parameters=parameters, webhook=hook if hook.url else None)

    def shown(self) -> dict[str, Any]:
        """As `GET /v1/jobs/{id}` and webhooks show it."""
        error = {"code": self.error_code, "message": self.error_message}
        hook = self.webhook
        return {
            "id": self.id,
            "status": self.status,
            "progress": round(self.progress, 4),
            "duration": self.duration,
            "created_at": _rounded(self.created_at),
            "started_at": _rounded(self.started_at),
            "finished_at": _rounded(self.finished_at),
            "attempts": self.attempts,
            "error": error if self.error_code else None,
            "webhook": {"url": hook.url, "status": hook.status, "attempts": hook.attempts}
            if hook
            else None,
            "parameters": dict(self.parameters),
            "url": self.url,
        }


# Of the job's last webhook.
HOOK = (
    "(SELECT w.{0} FROM webhooks w WHERE w.job_id = j.id "
    "ORDER BY w.created_at DESC, w.id DESC LIMIT 1) AS hook_{0}"
)
COLUMNS = (
    "j.id, j.caller, j.status, j.parameters, j.url, j.request_id, j.created_at, j.queued_at, "
    "j.started_at, j.finished_at, j.attempts, j.claims, j.progress, j.duration, j.charged_s, "
    "j.error_code, j.error_message, j.webhook_url, "
    f"{HOOK.format('status')}, {HOOK.format('attempts')}"
)


def jobs_where(condition: str) -> str:
    """The statement for the rows of `jobs j` that `Job.of` reads."""
    return f"SELECT {COLUMNS} FROM jobs j WHERE {condition}"  # noqa: S608 - no input in it


def _rounded(at: float | None) -> float | None:
    return None if at is None else round(at, 3)


def new_id(now: float | None = None) -> str:
    """32 hexadecimal digits, a UUID of version 7 (RFC 9562, section 5.7): later ones sort
    behind earlier ones, and nobody can guess one."""
    milliseconds = int((time.time() if now is None else now) * 1000)
    tail = int.from_bytes(os.urandom(10), "big")
    value = (milliseconds & (1 << 48) - 1) << 80 | tail
    value = value & ~(0xF << 76) | 7 << 76
    value = value & ~(0b11 << 62) | 0b10 << 62
    return f"{value:032x}"
