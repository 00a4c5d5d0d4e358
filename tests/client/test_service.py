"""When a request is made again, over real sockets."""

from __future__ import annotations

import logging
import time

import pytest

from tests.client.answering import BREAK_OFF, Answer, answering, in_turn, refusal, transcript
from tests.client.answering import Upload as Request
from whisper_serve.client import AsyncClient
from whisper_serve.client.service import retry_after
from whisper_serve.errors import ConnectionLost, ServerRefused

BUSY = refusal(503, "draining", "the service is about to stop", Retry_After="0.2")


@pytest.mark.parametrize(("status", "code"), [(503, "draining"), (429, "rate_limited")])
async def test_a_busy_service_is_asked_again_when_it_says(
    status: int, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    busy = refusal(status, code, "not now", Retry_After="0.3")
    answers = iter([busy, busy])

    def answer(request: Request) -> Answer:
        return next(answers, None) or transcript(request)

    began = time.monotonic()
    with answering(answer) as server, caplog.at_level(logging.WARNING):
        async with AsyncClient(server.url) as client:
            assert (await client.transcribe(b"you")).text == "Hello you."
        contents = [upload.content for upload in server.uploads]
    assert contents == [b"you"] * 3
    assert time.monotonic() - began >= 0.6
    assert caplog.messages[0].startswith(f"not now ({status} {code}); trying again in 0.")


async def test_patience_has_an_end() -> None:
    with answering(BUSY) as server:
        async with AsyncClient(server.url, give_up_after_s=0.5) as client:
            with pytest.raises(ServerRefused, match="about to stop") as caught:
                await client.transcribe(b"x")
        assert 2 <= len(server.uploads) <= 4
    assert caught.value.error_code == "draining"


async def test_who_asks_for_too_much_patience_is_not_waited_for() -> None:
    quota = refusal(429, "quota_exceeded", "no more today", Retry_After="40000")
    with answering(quota) as server:
        async with AsyncClient(server.url) as client:
            with pytest.raises(ServerRefused, match="no more today") as caught:
                await client.transcribe(b"x")
        assert len(server.uploads) == 1
    assert caught.value.retry_after_s == 40_000


@pytest.mark.parametrize(
    ("status", "code"), [(401, "invalid_api_key"), (403, "scope_missing"), (400, "empty_audio")]
)
async def test_what_would_be_refused_again_is_not_asked_again(status: int, code: str) -> None:
    with answering(refusal(status, code, "no", Retry_After="0")) as server:
        async with AsyncClient(server.url) as client:
            with pytest.raises(ServerRefused) as caught:
                await client.transcribe(b"x")
        assert len(server.uploads) == 1
    assert (caught.value.status, caught.value.error_code) == (status, code)


async def test_a_file_whose_connection_is_lost_is_not_sent_twice() -> None:
    with answering(BREAK_OFF) as server:
        async with AsyncClient(server.url) as client:
            with pytest.raises(ConnectionLost):
                await client.transcribe(b"x")
        assert len(server.uploads) == 1


async def test_what_does_no_harm_twice_is_asked_again() -> None:
    answers = in_turn(BREAK_OFF, Answer(502, b"<html>"), refusal(404, "job_not_found", "none"))
    with answering(answers) as server:
        async with AsyncClient(server.url) as client:
            with pytest.raises(ServerRefused, match="none"):
                await client.jobs.get("j1")
        assert [request.path for request in server.uploads] == ["/v1/jobs/j1"] * 3


def test_only_some_failures_pass() -> None:
    def wait(status: int, after_s: float | None = None, *, twice: bool = False) -> float | None:
        return retry_after(ServerRefused(status, "c", "m", after_s), repeatable=twice)

    assert [wait(429, 3.0), wait(503, 0.0), wait(503), wait(500, 3.0)] == [3.0, 0.0, None, None]
    assert [wait(503, twice=True), wait(502, twice=True), wait(504, twice=True)] == [0.0] * 3
    assert [wait(401, 1.0, twice=True), wait(429, twice=True)] == [None, None]
    lost = ConnectionLost("gone")
    assert [retry_after(lost, repeatable=twice) for twice in (True, False)] == [0.0, None]
