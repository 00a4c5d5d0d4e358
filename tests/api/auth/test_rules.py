"""Every route has a rule, and only the public ones answer without a key."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest
from starlette.routing import BaseRoute, Route, WebSocketRoute
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.api.auth.holders import BOSS, RADIO, STREAMER, UNKNOWN, bearer, settings
from tests.api.fakes import app_with, client_of
from tests.api.streams import running
from whisper_serve.api.auth.rules import ANY_KEY, PUBLIC, Rule, rule_for

APP = app_with(settings=settings())


def endpoints(routes: Iterable[BaseRoute]) -> Iterator[tuple[str, str]]:
    """Method and path of all that the application answers, with something for parameters."""
    for route in routes:
        if isinstance(route, WebSocketRoute):
            yield "WS", filled(route.path)
        elif isinstance(route, Route):
            for method in route.methods or ():
                yield method, filled(route.path)
        else:
            included = getattr(route, "original_router", None)
            assert included is not None, f"nobody knows what {route} answers"
            yield from endpoints(included.routes)


def filled(path: str) -> str:
    return "/".join("some" if part.startswith("{") else part for part in path.split("/"))


ENDPOINTS = sorted(set(endpoints(APP.routes)))
CLOSED = [(method, path) for method, path in ENDPOINTS if not rule_for(method, path).is_public]
SCOPED = [(method, path) for method, path in CLOSED if rule_for(method, path).scope]
HOLDERS = {
    RADIO: {"transcribe", "stream", "jobs"},
    STREAMER: {"stream"},
    BOSS: {"admin"},
}


async def status_of(method: str, path: str, headers: dict[str, str]) -> int:
    """That of an HTTP request, or of a handshake; 101 when it was accepted."""
    if method != "WS":
        async with client_of(APP) as client:
            return (await client.request(method, path, headers=headers)).status_code
    async with running(APP) as port:
        try:
            async with connect(
                f"ws://127.0.0.1:{port}{path}", additional_headers=headers, proxy=None
            ):
                return 101
        except InvalidStatus as exc:
            return exc.response.status_code


def test_there_is_something_to_walk() -> None:
    known = {("POST", "/transcribe"), ("WS", "/stream"), ("GET", "/web/some"), ("GET", "/health")}
    assert known <= set(ENDPOINTS)


@pytest.mark.parametrize(("method", "path"), ENDPOINTS)
def test_every_route_has_a_rule(method: str, path: str) -> None:
    assert rule_for(method, path) is not ANY_KEY


@pytest.mark.parametrize(("method", "path"), CLOSED)
async def test_nothing_else_answers_without_a_key(method: str, path: str) -> None:
    assert await status_of(method, path, {}) == 401


@pytest.mark.parametrize(("method", "path"), CLOSED)
async def test_nothing_else_answers_to_a_key_that_is_not_known(method: str, path: str) -> None:
    assert await status_of(method, path, bearer(UNKNOWN)) in {401, 429}


@pytest.mark.parametrize(("method", "path"), SCOPED)
async def test_a_key_opens_what_its_scopes_say(method: str, path: str) -> None:
    scope = rule_for(method, path).scope
    for shown, scopes in HOLDERS.items():
        status = await status_of(method, path, bearer(shown))
        assert (status == 403) is (scope not in scopes), (shown, status)
        assert status != 401


@pytest.mark.parametrize("path", [path for path in PUBLIC if path != "/web"])
async def test_what_is_public_answers_everybody(path: str) -> None:
    assert await status_of("GET", path, {}) == 200
    assert await status_of("GET", path, bearer(UNKNOWN)) == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/nothing"),
        ("POST", "/health"),
        ("DELETE", "/"),
        ("GET", "/transcribe"),
        ("GET", "/healthy"),
        ("GET", "/v1"),
        ("OPTIONS", "/transcribe"),
    ],
)
async def test_what_is_not_there_is_nobody_s_business_without_a_key(method: str, path: str) -> None:
    assert await status_of(method, path, {}) == 401
    assert await status_of(method, path, bearer(RADIO)) in {404, 405}


@pytest.mark.parametrize(
    ("method", "path", "fits"),
    [
        ("GET", "/a", True),
        ("GET", "/a/b", True),
        ("GET", "/a/", True),
        ("GET", "/ab", False),
        ("GET", "/", False),
        ("POST", "/a", False),
    ],
)
def test_a_rule_holds_for_all_below_its_path(method: str, path: str, fits: bool) -> None:
    assert Rule("GET", "/a").fits(method, path) is fits


def test_head_is_asked_for_like_get() -> None:
    assert rule_for("HEAD", "/docs") is rule_for("GET", "/docs")


def test_the_place_where_the_service_is_mounted_is_its_root() -> None:
    assert rule_for("GET", "").is_public
