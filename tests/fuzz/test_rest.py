"""Whatever is sent to it over HTTP, the service answers: in its path's shape, with an id, and
without a fault of its own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st

from tests.api.fakes import HEARD, FakePort, app_with
from tests.fuzz.asgi import Answer, Request, ask
from tests.fuzz.damage import spoiling
from tests.fuzz.requests import json_bodies, json_request, near, operations_of, requests
from tests.fuzz.tally import Complaints, cases, complaints, tried
from whisper_serve.api.app import FAILURE_SHAPES
from whisper_serve.errors import DeadlineExceeded, EngineUnavailable, Overloaded

REQUESTS, JSON_REQUESTS = 5_300, 1_500
# Of the engines, now and then; all that is left is ours.
TROUBLES = (Overloaded(1.0), EngineUnavailable(1.0), DeadlineExceeded(1.0))
DOCUMENTED = {503, 504}


class Door:
    """The application with an engine that can be told what to answer."""

    def __init__(self) -> None:
        self.port = FakePort()
        self.app: FastAPI = app_with(self.port)
        self.loop = asyncio.new_event_loop()

    def knock(self, request: Request, trouble: Exception | None) -> Answer:
        self.port.tasks.clear()
        self.port.answer = trouble or HEARD
        return self.loop.run_until_complete(ask(self.app, request))


@contextmanager
def door() -> Iterator[Door]:
    made = Door()
    try:
        yield made
    finally:
        made.loop.run_until_complete(made.loop.shutdown_default_executor())
        made.loop.close()


def native(body: dict[str, Any]) -> bool:
    return body["success"] is False and bool(body["error"] and body["code"] and body["request_id"])


def openai(body: dict[str, Any]) -> bool:
    return set(body) == {"error"} and set(body["error"]) == {"message", "type", "param", "code"}


def deepgram(body: dict[str, Any]) -> bool:
    return set(body) == {"err_code", "err_msg", "request_id"}


SHAPES: dict[str, Callable[[dict[str, Any]], bool]] = {
    "native_failure": native,
    "openai_failure": openai,
    "deepgram_failure": deepgram,
}


def shape_of(request: Request) -> Callable[[dict[str, Any]], bool]:
    path: str = request.target.scope("http", ())["path"]
    name = next((FAILURE_SHAPES[at].__name__ for at in FAILURE_SHAPES if path.startswith(at)), "")
    return SHAPES.get(name, native)


def check(request: Request, answer: Answer, heard: Complaints) -> None:
    heard.require_none()
    if answer.status is None:
        assert not request.stays, "nobody was answered"
        return
    assert answer.complete
    assert answer.status < 500 or answer.status in DOCUMENTED, (request, answer)
    assert answer.headers.get("x-request-id"), (request, answer)
    if answer.status >= 400 and request.method != "HEAD":
        assert answer.headers["content-type"] == "application/json", (request, answer)
        assert shape_of(request)(json.loads(answer.body)), (request, answer)


def test_no_request_is_too_odd_for_an_answer() -> None:
    with door() as at, complaints() as heard:
        operations = operations_of(at.app.openapi())

        @cases(REQUESTS)
        @given(requests(operations), st.sampled_from([*[None] * 6, *TROUBLES]))
        def knock(request: Request, trouble: Exception | None) -> None:
            check(request, at.knock(request, trouble), heard)
            tried["requests"] += 1

        knock()
        assert tried["requests"] >= REQUESTS


EXAMPLES: dict[str, dict[str, Any]] = {
    "/v1/realtime/client_secrets": {
        "expires_after": {"anchor": "created_at", "seconds": 600},
        "session": {
            "type": "transcription",
            "audio": {
                "input": {
                    "format": {"type": "audio/pcm", "rate": 24000},
                    "transcription": {"model": "whisper-1", "language": "en", "prompt": "x"},
                    "turn_detection": {"type": "server_vad", "threshold": 0.5},
                }
            },
            "include": ["item.input_audio_transcription.logprobs"],
        },
    },
    "/v1/realtime/transcription_sessions": {
        "input_audio_format": "pcm16",
        "input_audio_transcription": {"model": "whisper-1", "language": "en"},
        "turn_detection": {"type": "server_vad", "silence_duration_ms": 500},
        "client_secret": {"expires_at": {"anchor": "created_at", "seconds": 60}},
    },
    "/v1/tokens": {"expires_in": 600, "scopes": ["stream"]},
    "/v1/jobs": {"url": "https://a.example/x.wav", "webhook_url": "https://b.example", "task": "x"},
}


@pytest.mark.parametrize("path", EXAMPLES)
def test_no_object_is_too_odd_for_an_answer(path: str) -> None:
    with door() as at, complaints() as heard:
        bodies = st.one_of(near(EXAMPLES[path]), json_bodies)

        @cases(JSON_REQUESTS // len(EXAMPLES))
        @given(bodies, st.one_of(st.just([]), spoiling))
        def knock(body: str, changes: Any) -> None:
            request = json_request(path, body, changes)
            check(request, at.knock(request, None), heard)
            tried["objects"] += 1

        knock()
