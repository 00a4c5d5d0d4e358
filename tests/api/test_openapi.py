"""What the service says of itself in `/openapi.json` is what it does: requests are made from the
description, and every answer is held against it."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.api.fakes import CLIP, FakePort, app_with, client_of
from tests.audio.clips import tone, wav
from whisper_serve.errors import (
    DeadlineExceeded,
    EngineFailed,
    EngineUnavailable,
    Overloaded,
    WhisperServeError,
)

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
# Random bytes would hardly ever be a recording.
FILES = [CLIP, CLIP, wav(tone(0.5)), b"", b"no sound", CLIP[:99]]
schemathesis.openapi.format("binary", st.sampled_from(FILES))
schema = schemathesis.openapi.from_asgi("/openapi.json", app_with())


@schemathesis.serializer("audio/*", "video/*")
def as_it_is(_context: object, value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


@schema.parametrize()
@settings(max_examples=25, derandomize=True, deadline=None)
def test_every_answer_is_as_described(case: schemathesis.Case[Any]) -> None:
    case.call_and_validate(checks=CHECKS)


FAILURES = [
    *(Overloaded(1.0), EngineUnavailable(1.0), DeadlineExceeded(1.0), EngineFailed("broken")),
    RuntimeError("unforeseen"),
]
RECORDINGS: dict[str, dict[str, Any]] = {
    "/transcribe": {"files": {"file": CLIP}},
    "/v1/audio/transcriptions": {"files": {"file": CLIP}, "data": {"model": "whisper-1"}},
    "/v1/audio/translations": {"files": {"file": CLIP}, "data": {"model": "whisper-1"}},
    "/v1/listen": {"content": CLIP, "headers": {"Content-Type": "audio/wav"}},
}


async def posted(path: str, port: FakePort | None = None) -> httpx.Response:
    async with client_of(app_with(port)) as client:
        answer = await client.post(path, **RECORDINGS[path])
    await answer.request.aread()
    return answer


@pytest.mark.parametrize("path", RECORDINGS)
@pytest.mark.parametrize("failure", [None, *FAILURES], ids=lambda exc: type(exc).__name__)
async def test_failures_of_the_engine_are_as_described(
    path: str, failure: WhisperServeError | None
) -> None:
    answer = await posted(path, FakePort(failure) if failure else None)
    assert answer.status_code == (getattr(failure, "http_status", 500) if failure else 200)
    operation = schema[path]["POST"]
    assert str(answer.status_code) in operation.definition.raw["responses"]
    operation.validate_response(answer)
