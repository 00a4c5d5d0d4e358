"""Pages of others open no stream unless they may."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin

from tests.api.fakes import app_with, client_of
from tests.api.streams import running
from whisper_serve.api.origins import is_own, may_open

APP, EVIL = "https://app.example", "https://evil.example"


@pytest.mark.parametrize(
    ("origin", "host", "own"),
    [
        ("http://speech.example", "speech.example", True),
        ("http://speech.example:80", "speech.example", True),
        ("https://speech.example", "speech.example", True),
        ("https://speech.example", "speech.example:443", True),
        ("http://speech.example:8000", "speech.example:8000", True),
        ("http://127.0.0.1:8000", "127.0.0.1:8000", True),
        ("http://[::1]:8000", "[::1]:8000", True),
        ("HTTP://Speech.Example", "speech.example", True),
        ("http://speech.example", "speech.example:8000", False),
        ("https://speech.example", "speech.example:80", False),
        ("http://speech.example.evil.example", "speech.example", False),
        ("http://evil.example", "speech.example", False),
        ("http://speech.example@evil.example", "speech.example", False),
        ("ftp://speech.example", "speech.example", False),
        ("null", "speech.example", False),
        ("", "", False),
        ("http://", "", False),
        ("http://a:port", "a", False),
        ("http://[", "a", False),
    ],
)
def test_a_page_of_the_same_host_is_the_service_s_own(origin: str, host: str, own: bool) -> None:
    assert is_own(origin, host) is own


@given(st.text(max_size=30), st.text(max_size=30))
def test_whatever_is_said_has_an_answer(origin: str, host: str) -> None:
    assert may_open(origin, host, {"*"})
    assert may_open(None, host, ())
    assert isinstance(is_own(origin, host), bool)


async def opened(origin: str | None, allowed: list[str]) -> tuple[int, dict[str, str]]:
    """Status and body of a handshake; 101 when it was accepted."""
    app = app_with(settings={"server": {"allowed_origins": allowed}})
    async with running(app) as port:
        said = Origin(origin) if origin is not None else None
        try:
            async with connect(f"ws://127.0.0.1:{port}/stream", origin=said, proxy=None):
                return 101, {}
        except InvalidStatus as exc:
            return exc.response.status_code, json.loads(exc.response.body or b"{}")


@pytest.mark.parametrize(
    ("origin", "allowed"), [(None, []), (APP, [APP]), (EVIL, [APP, "*"])], ids=str
)
async def test_who_may_open_a_stream_does(origin: str | None, allowed: list[str]) -> None:
    assert await opened(origin, allowed) == (101, {})


@pytest.mark.parametrize("allowed", [[], [APP]], ids=str)
async def test_the_page_of_somebody_else_is_refused(allowed: list[str]) -> None:
    status, body = await opened(EVIL, allowed)
    assert status == 403
    assert body["code"] == "origin_not_allowed"
    assert EVIL in body["error"]


# CORS, for HTTP

PREFLIGHT = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization",
}


@pytest.mark.parametrize(("origin", "status"), [(APP, 200), (EVIL, 400)])
async def test_a_browser_that_asks_first_needs_no_key(origin: str, status: int) -> None:
    settings = {"server": {"allowed_origins": [APP]}, "auth": {}}
    async with client_of(app_with(settings=settings)) as client:
        answer = await client.options("/transcribe", headers={"Origin": origin, **PREFLIGHT})
    assert answer.status_code == status
    assert (answer.headers.get("access-control-allow-origin") == APP) is (origin == APP)


async def test_a_page_that_may_can_read_refusals_too() -> None:
    settings = {"server": {"allowed_origins": [APP]}, "auth": {}}
    async with client_of(app_with(settings=settings)) as client:
        answer = await client.post("/transcribe", headers={"Origin": APP})
    assert answer.status_code == 401
    assert answer.headers["access-control-allow-origin"] == APP
    assert "Retry-After" in answer.headers["access-control-expose-headers"]


async def test_nobody_is_told_to_browsers_unless_it_is_configured() -> None:
    async with client_of(app_with()) as client:
        answer = await client.get("/livez", headers={"Origin": APP})
    assert "access-control-allow-origin" not in answer.headers
