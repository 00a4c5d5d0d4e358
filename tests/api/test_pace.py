from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive, Scope, Send

from tests.api.fakes import app_with, client_of, is_failure
from whisper_serve.api.pace import (
    GRACE_S,
    LEAST_BYTES_PER_S,
    UploadPace,
    UploadPaceMiddleware,
)
from whisper_serve.errors import UploadTooSlow

LIMIT_S = 20.0
WAV = {"Content-Type": "audio/wav"}


@given(st.integers(0, 10**12), st.floats(0.1, 1e6))
def test_nobody_is_waited_for_longer_than_the_limit(received: int, timeout_s: float) -> None:
    pace = UploadPace(timeout_s)
    assert 0 < pace.allowed_s(received) <= timeout_s
    assert pace.allowed_s(received + 1) >= pace.allowed_s(received)


def test_a_byte_a_second_is_given_up_soon() -> None:
    pace = UploadPace(1800.0)
    given_up = next(second for second in range(1800) if second > pace.allowed_s(second))
    assert GRACE_S < given_up < GRACE_S + 2


def test_the_least_rate_is_enough_up_to_the_limit() -> None:
    pace = UploadPace(1800.0)
    assert all(second <= pace.allowed_s(second * LEAST_BYTES_PER_S) for second in range(1800))


async def stalled(begin: bytes) -> AsyncIterator[bytes]:
    """Sends the beginning of a body byte by byte, and then nothing any more."""
    for byte in begin:
        yield bytes([byte])
    await asyncio.Event().wait()


@pytest.mark.parametrize("path", ["/transcribe", "/v1/listen", "/v1/realtime/client_secrets"])
async def test_a_body_that_does_not_come_is_refused(path: str) -> None:
    app = app_with(settings={"limits": {"upload_timeout_s": 0.2}})
    async with client_of(app) as client:
        answer = await asyncio.wait_for(
            client.post(path, content=stalled(b"RIFF"), headers=WAV), LIMIT_S
        )
    assert answer.status_code == 408
    assert "0.2 seconds" in answer.text
    assert answer.headers["connection"] == "close"


async def test_a_form_that_does_not_come_is_refused_as_every_failure_is() -> None:
    app = app_with(settings={"limits": {"upload_timeout_s": 0.2}})
    form = {"Content-Type": "multipart/form-data; boundary=b"}
    async with client_of(app) as client:
        answer = await asyncio.wait_for(
            client.post("/transcribe", content=stalled(b"--b\r\n"), headers=form), LIMIT_S
        )
    assert is_failure(answer, 408, "upload_too_slow")


async def slow_app(scope: Scope, receive: Receive, send: Send) -> None:
    """Takes its time with what has come, and then waits for the client to go."""
    request = Request(scope, receive)
    async for _ in request.stream():
        await asyncio.sleep(0.1)
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(receive(), 0.3)
    await PlainTextResponse("done")(scope, receive, send)


async def test_only_waiting_for_the_client_counts() -> None:
    app = UploadPaceMiddleware(slow_app, pace=UploadPace(0.2))
    messages = iter([{"type": "http.request", "body": b"x", "more_body": n < 4} for n in range(5)])
    sent: list[Message] = []

    async def receive() -> Message:
        message = next(messages, None)
        if message is None:
            await asyncio.Event().wait()
        assert message is not None
        return message

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/", "headers": [], "query_string": b""}
    await asyncio.wait_for(app(scope, receive, send), LIMIT_S)
    assert sent[0]["status"] == 200


async def test_time_without_a_body_does_not_count() -> None:
    transport = httpx.ASGITransport(app_with(settings={"limits": {"upload_timeout_s": 0.01}}))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        assert (await client.get("/livez")).status_code == 200


def test_the_error_tells_how_long_it_was() -> None:
    assert str(UploadTooSlow(30.0)).endswith("not there within 30 seconds")
