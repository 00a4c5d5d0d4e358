from __future__ import annotations

import json

import pytest
from aiohttp import web

from loadtest.conversation import NOT_ADMITTED
from loadtest.files import NO_SUCCESS, Asking, form_of, posting
from loadtest.outcome import CUT
from tests.loadtest.answering import clip_of, handled
from whisper_serve.audio.decode import decode

CLIP = clip_of(4)
SERVED = json.dumps({"success": True, "text": "w0 w1 w2 w3"})


def answered(status: int, body: str, retry_after: str | None = None) -> Asking:
    asking = Asking(CLIP, due=10.0)
    asking.tries(11.0)
    asking.answered(13.0, status, body, retry_after)
    return asking


def test_a_delay_counts_from_when_the_text_was_wanted() -> None:
    outcome = answered(200, SERVED).outcome(wall_s=100.0)
    assert (outcome.due_at, outcome.ended_s, outcome.took_s) == (110.0, 3.0, 2.0)
    assert (outcome.fault, outcome.text) == ("", "w0 w1 w2 w3")


@pytest.mark.parametrize(
    "body",
    [
        '{"success": false, "text": "", "error": "broken"}',
        '{"success": true}',
        '{"text": null}',
        "[]",
        "text",
        "",
    ],
)
def test_not_every_200_is_a_success(body: str) -> None:
    assert answered(200, body).fault == NO_SUCCESS


def test_failures_are_told_by_their_codes() -> None:
    assert answered(500, '{"code": "engine_failed"}').fault == "500 engine_failed"
    assert answered(502, "Bad gateway").fault == "502 Bad gateway"


@pytest.mark.parametrize(("status", "told"), [(503, "7"), (429, "7"), (503, None), (503, "soon")])
def test_refusals_are_no_failures_and_say_when_to_come_back(status: int, told: str | None) -> None:
    asking = answered(status, "{}", told)
    assert asking.is_refused
    assert asking.fault == f"{NOT_ADMITTED}: {status}"
    [refusal] = asking.refusals
    assert refusal.retry_after_s == (7.0 if told == "7" else None)
    assert asking.told_s == (7.0 if told == "7" else 1.0)
    assert asking.outcome(0.0).passages == ()


def test_what_is_not_answered_is_cut_off_even_when_it_was_refused_before() -> None:
    asking = answered(503, "{}", "1")
    asking.tries(14.0)
    assert (asking.outcome(0.0).fault, asking.outcome(0.0).ended_s) == (CUT, None)


async def test_a_service_gets_a_file_and_its_options() -> None:
    async def transcribe(request: web.Request) -> web.Response:
        form = await request.post()
        upload = form["file"]
        assert isinstance(upload, web.FileField)
        samples = decode(upload.file.read(), accepted=(".wav",), max_duration_s=60.0)
        assert (samples == CLIP.speech.samples).all()
        assert (form["language"], request.headers["Authorization"]) == ("en", "Bearer key")
        return web.Response(text=SERVED)

    async with handled(transcribe) as access:
        shown = type(access)(access.url, {"Authorization": "Bearer key"})
        async with posting(shown) as files:
            asking = Asking(CLIP, due=0.0)
            await files.ask(asking)
    assert asking.fault == ""


async def test_a_patient_caller_asks_until_it_is_served() -> None:
    answers = [
        web.Response(status=503, headers={"Retry-After": "1"}),
        web.Response(text=SERVED),
    ]

    async def transcribe(_: web.Request) -> web.Response:
        return answers.pop(0)

    async with handled(transcribe) as access, posting(access) as files:
        asking = Asking(CLIP, due=0.0)
        await files.ask_until_served(asking)
    assert (asking.text, len(asking.refusals), answers) == ("w0 w1 w2 w3", 1, [])
    ended_at = asking.ended_at
    assert ended_at is not None
    assert asking.outcome(0.0).ended_s == ended_at


async def test_a_connection_that_breaks_is_a_failure() -> None:
    async def transcribe(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    async with handled(transcribe) as access, posting(access) as files:
        asking = Asking(CLIP, due=0.0)
        await files.ask(asking)
    assert asking.fault == "ServerDisconnectedError"


def test_a_form_holds_its_fields_and_its_file() -> None:
    form = form_of(b"\0\1", "a.wav", "audio/wav", {"language": "en"})
    assert form.count(b"--a-boundary-that-is-in-no-clip") == 3
    assert form.endswith(b"\r\n\0\1\r\n--a-boundary-that-is-in-no-clip--\r\n")
