"""Whose work is being done: bound once where it enters a process, and in every line of the log.

Context variables do not cross a Ray handle, so a `DecodeTask` carries what is bound here and the
engine's process binds it again.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

MAX_LENGTH = 128
NOTHING = "-"
_UNPRINTABLE = re.compile(r"[^\x21-\x7e]")


class Bound(NamedTuple):
    """Ids of the request and of the live stream, the caller's name, and the `traceparent` of the
    work that asked for this one in another process; `-` where there is none."""

    request_id: str = NOTHING
    session_id: str = NOTHING
    caller: str = NOTHING
    traceparent: str = NOTHING


_bound: ContextVar[Bound] = ContextVar("bound", default=Bound())  # noqa: B039 - it is frozen


def current() -> Bound:
    return _bound.get()


def current_request_id() -> str:
    return current().request_id


def current_session_id() -> str:
    return current().session_id


def accept_request_id(proposed: str | None) -> str:
    """The client's id, made fit for a header and a log line, or a new one."""
    cleaned = _UNPRINTABLE.sub("", proposed or "")[:MAX_LENGTH]
    return cleaned or uuid.uuid4().hex


@contextmanager
def bound(**known: Any) -> Iterator[None]:
    """Bind some fields of `Bound`, and leave the others as they are. Empty ones are nothing."""
    values = {name: value or NOTHING for name, value in known.items()}
    token = _bound.set(current()._replace(**values))
    try:
        yield
    finally:
        _bound.reset(token)


@contextmanager
def bound_request_id(request_id: str) -> Iterator[None]:
    with bound(request_id=request_id):
        yield
