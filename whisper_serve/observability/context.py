"""The id of the request that is being served, bound once where it enters a process.

Context variables do not cross a Ray handle, so a `DecodeTask` carries the id and the engine's
process binds it again.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_request_id: ContextVar[str] = ContextVar("request_id", default="-")
MAX_LENGTH = 128
_UNPRINTABLE = re.compile(r"[^\x21-\x7e]")


def current_request_id() -> str:
    return _request_id.get()


def accept_request_id(proposed: str | None) -> str:
    """The client's id, made fit for a header and a log line, or a new one."""
    cleaned = _UNPRINTABLE.sub("", proposed or "")[:MAX_LENGTH]
    return cleaned or uuid.uuid4().hex


@contextmanager
def bound_request_id(request_id: str) -> Iterator[None]:
    token = _request_id.set(request_id)
    try:
        yield
    finally:
        _request_id.reset(token)
