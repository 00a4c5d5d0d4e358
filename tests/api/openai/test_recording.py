from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from tests.api.fakes import CLIP, TEXT, Spool, Wire, app_with, client_of
from tests.audio.clips import tone, wav
from whisper_serve.api.openai.recording import FORM_ROOM_BYTES, MAX_FIELDS

LARGE_CLIP = wav(tone(40.0))
FORM_TYPE = {"Content-Type": "multipart/form-data; boundary=b"}
PATH = "/v1/audio/transcriptions"


def moved(app: ASGIApp) -> ASGIApp:
    """`app` for a wire that knows the native path only."""

    async def at_path(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "path": PATH, "raw_path": PATH.encode()}, receive, send)

    return at_path


def part(name: str, content: bytes, filename: str | None = None) -> bytes:
    named = f'; filename="{filename}"' if filename is not None else ""
    head = f'--b\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'
    return head.encode() + content + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--b--\r\n"


MODEL = part("model", b"base")
FILE = part("file", CLIP, "a.wav")


async def posted(
    content: bytes, headers: dict[str, str] | None = None, *, limit: int = 10**7, query: str = ""
) -> httpx.Response:
    app = app_with(settings={"openai": {"max_file_bytes": limit}})
    async with client_of(app) as client:
        return await client.post(PATH + query, content=content, headers=headers or FORM_TYPE)


async def refused(*parts: bytes, **options: Any) -> tuple[str | None, str]:
    """The field that is refused, and the code."""
    answer = await posted(form(*parts), **options)
    assert answer.status_code == 400
    error = answer.json()["error"]
    return error["param"], error["code"]


async def test_the_file_may_come_before_the_fields_or_behind_them(spools: list[Spool]) -> None:
    for parts in ((FILE, MODEL), (MODEL, FILE)):
        assert (await posted(form(*parts))).json()["text"] == TEXT
    assert all(spool.closed for spool in spools)


async def test_a_file_that_is_missing_is_told(spools: list[Spool]) -> None:
    assert await refused(MODEL) == ("file", "invalid_parameter")
    assert await refused(MODEL, part("file", b"speech.wav")) == ("file", "invalid_parameter")
    assert await refused(MODEL, part("file", b"", "a.wav")) == ("file", "empty_audio")
    assert all(spool.closed for spool in spools)


async def test_a_file_too_many_is_told(spools: list[Spool]) -> None:
    assert await refused(MODEL, FILE, FILE) == ("file", "invalid_parameter")
    other = part("audio_file", CLIP, "a.wav")
    assert await refused(MODEL, other) == ("audio_file", "invalid_parameter")
    assert await refused(MODEL, FILE, other) == ("audio_file", "invalid_parameter")
    assert all(spool.closed for spool in spools)


async def test_a_model_that_is_missing_is_told() -> None:
    assert await refused(FILE) == ("model", "invalid_parameter")


async def test_the_query_is_not_read() -> None:
    answer = await posted(form(MODEL, FILE), query="?language=de")
    assert answer.json()["error"]["param"] == "language"


@pytest.mark.parametrize(
    "content_type",
    ["", "audio/wav", "application/json", "application/x-www-form-urlencoded", "multipart/mixed"],
)
async def test_what_is_no_form_is_refused(content_type: str) -> None:
    wire = Wire([CLIP])
    await wire.post(moved(app_with()), {"Content-Type": content_type} if content_type else {})
    assert wire.status == 400
    assert "send multipart/form-data" in json.loads(wire.body)["error"]["message"]
    assert wire.taken == 0


@pytest.mark.parametrize("body", [b"", b"no form", form(MODEL, FILE)[:-5]])
async def test_a_broken_form_is_told(body: bytes, spools: list[Spool]) -> None:
    answer = await posted(body)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith("the form cannot be read: ")
    assert all(spool.closed for spool in spools)


async def test_many_keywords_are_taken_but_not_any_number() -> None:
    word = part("keywords[]", b"x")
    assert (await posted(form(MODEL, FILE, *[word] * 200))).status_code == 200
    assert (await posted(form(MODEL, FILE, *[word] * MAX_FIELDS))).status_code == 400


# The limit


async def test_only_the_file_counts(spools: list[Spool]) -> None:
    prompt = part("prompt", b"x" * (FORM_ROOM_BYTES // 2))
    body = form(MODEL, prompt, part("file", LARGE_CLIP, "a.wav"))
    for limit, status in ((len(LARGE_CLIP), 200), (len(LARGE_CLIP) - 1, 413)):
        answer = await posted(body, limit=limit)
        assert answer.status_code == status
    assert answer.json()["error"] == {
        "message": f"Maximum content size limit ({limit}) exceeded",
        "type": "invalid_request_error",
        "param": None,
        "code": "upload_too_large",
    }
    assert all(spool.closed for spool in spools)


def endless() -> Iterator[bytes]:
    yield MODEL + part("file", b"", "a.wav").removesuffix(b"\r\n")
    while True:
        yield bytes(64 * 1024)


@pytest.mark.parametrize("announced", [{}, {"Content-Length": "5"}])
async def test_a_body_that_does_not_end_is_read_up_to_the_limit(
    announced: dict[str, str], spools: list[Spool]
) -> None:
    limit = 2**20
    wire = Wire(endless())
    app = app_with(settings={"openai": {"max_file_bytes": limit}})
    await wire.post(moved(app), {**FORM_TYPE, **announced})
    assert wire.status == 413
    assert limit < wire.taken <= limit + FORM_ROOM_BYTES + 2 * 64 * 1024
    assert f"({limit})" in json.loads(wire.body)["error"]["message"]
    assert all(spool.closed for spool in spools)


async def test_a_body_that_is_announced_too_large_is_not_read() -> None:
    wire = Wire([b"x" * 1_000])
    app = app_with(settings={"openai": {"max_file_bytes": 99}})
    await wire.post(moved(app), {**FORM_TYPE, "Content-Length": str(100 + FORM_ROOM_BYTES)})
    assert (wire.status, wire.taken) == (413, 0)


async def test_a_client_that_goes_away_leaves_nothing(spools: list[Spool]) -> None:
    wire = Wire([MODEL + part("file", LARGE_CLIP, "a.wav")], ends=False)
    await wire.post(moved(app_with()), FORM_TYPE)
    assert wire.status == 499  # for the log; nobody gets it
    assert all(spool.closed for spool in spools)
