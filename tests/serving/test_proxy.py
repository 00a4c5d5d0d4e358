"""What clients may tell Serve's proxy, which is nothing."""

from __future__ import annotations

import asyncio
import json
import os
import re

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from websockets.asyncio.client import ClientConnection, connect

from tests.serving.conftest import Deploy, Service
from tests.serving.scripted import build_throwing
from whisper_serve.serving.cluster import PROXY_CALLBACK, prepare_environment
from whisper_serve.serving.proxy import ClientHeaders, Header, LostRequests, clean, guards

PATIENCE_S = 30.0
FOR_OPERATORS = (
    b"x-request-timeout-seconds",
    b"x-request-disconnect-disabled",
    b"serve_multiplexed_model_id",
    b"serve-multiplexed-model-id",
    b"x-session-id",
    b"x_session_id",
    b"x-serve-router-replica",
)
names = st.sampled_from([*FOR_OPERATORS, b"x-request-id", b"authorization", b"accept"])
headers = st.lists(st.tuples(names, st.binary(max_size=40)), max_size=20)


@given(headers)
def test_only_what_is_for_operators_is_taken_away(given_headers: list[Header]) -> None:
    left = clean(given_headers)
    untouched = {b"authorization", b"accept"}
    assert [h for h in left if h[0] in untouched] == [h for h in given_headers if h[0] in untouched]
    assert not {name for name, _ in left} & set(FOR_OPERATORS)


@given(headers)
def test_there_is_one_request_id_at_most_and_it_is_fit_for_a_log(
    given_headers: list[Header],
) -> None:
    ids = [value for name, value in clean(given_headers) if name == b"x-request-id"]
    assert len(ids) == any(name == b"x-request-id" for name, _ in given_headers)
    assert all(re.fullmatch(rb"[\x21-\x7e]{1,128}", value) for value in ids)


def test_a_good_request_id_stays() -> None:
    assert clean([(b"x-request-id", b"abc-1")]) == [(b"x-request-id", b"abc-1")]


@pytest.mark.parametrize("name", [b"X-Request-Timeout-Seconds", b"X-SESSION_ID"])
def test_upper_case_hides_nothing(name: bytes) -> None:
    assert clean([(name, b"1")]) == []


async def test_an_event_without_headers_passes() -> None:
    seen: list[Scope] = []

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        seen.append(scope)

    async def receive() -> Message:
        return {}

    async def send(_message: Message) -> None: ...

    await ClientHeaders(app)({"type": "lifespan"}, receive, send)
    assert seen == [{"type": "lifespan"}]


async def answered(app: ASGIApp, kind: str = "http") -> list[Message]:
    """What a client is sent when `app` has its request."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": f"{kind}.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": kind, "path": "/transcribe", "headers": [(b"x-request-id", b"abc-1")]}
    await LostRequests(app)(scope, receive, send)
    return sent


async def test_a_request_that_was_lost_may_be_sent_again() -> None:
    async def lost(_scope: Scope, _receive: Receive, _send: Send) -> None: ...

    start, body = await answered(lost)
    assert start["status"] == 503
    assert (b"retry-after", b"1") in start["headers"]
    told = json.loads(body["body"])
    assert (told["success"], told["code"], told["request_id"]) == (False, "process_lost", "abc-1")


async def test_what_the_process_said_stands() -> None:
    async def broken(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 500, "headers": []})

    assert await answered(broken) == [{"type": "http.response.start", "status": 500, "headers": []}]


async def test_a_socket_is_none_of_its_business() -> None:
    async def lost(_scope: Scope, _receive: Receive, _send: Send) -> None: ...

    assert await answered(lost, "websocket") == []


def test_serve_is_told_where_to_find_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PROXY_CALLBACK, raising=False)
    prepare_environment()
    assert os.environ[PROXY_CALLBACK] == "whisper_serve.serving.proxy:guards"
    assert all(isinstance(guard, Middleware) for guard in guards())


def test_what_an_operator_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PROXY_CALLBACK, "ours:guards")
    prepare_environment()
    assert os.environ[PROXY_CALLBACK] == "ours:guards"


# Through the real proxy


@pytest.fixture(scope="module")
def service(deploy: Deploy) -> Service:
    return deploy("proxy", {"auth": {"open": True}}, build_throwing)


async def said(socket: ClientConnection) -> str:
    message = json.loads(await asyncio.wait_for(socket.recv(), PATIENCE_S))
    return str(message["type"])


@pytest.mark.server
async def test_a_client_cannot_set_a_time_limit_of_its_stream(service: Service) -> None:
    url = service.url.replace("http", "ws", 1) + "/stream"
    hostile = {"x-request-timeout-seconds": "0.3", "x-request-disconnect-disabled": "?1"}
    async with connect(url, additional_headers=hostile) as socket:
        await socket.send("{}")
        assert await said(socket) == "ready"
        for _ in range(4):
            await asyncio.sleep(0.3)  # what is tested is that nothing happens meanwhile
            await socket.send('{"type": "keepalive"}')
            assert await said(socket) == "ack"


@pytest.mark.server
@pytest.mark.parametrize(
    "hostile",
    [
        {b"x-request-id": b"\xff\xfe"},
        {b"serve_multiplexed_model_id": b"\xff"},
        {b"serve-multiplexed-model-id": b"no such model"},
        {b"x-session-id": b"\xff"},
        {b"x-request-timeout-seconds": b"0.000001"},
    ],
    ids=str,
)
def test_a_header_for_operators_does_no_harm(service: Service, hostile: dict[bytes, bytes]) -> None:
    answer = service.client.get("/livez", headers=hostile)
    assert answer.status_code == 200


@pytest.mark.server
def test_a_request_s_id_comes_back(service: Service) -> None:
    assert service.client.get("/livez", headers={"X-Request-ID": "one"}).headers.get_list(
        "x-request-id"
    ) == ["one"]


@pytest.mark.server
def test_a_head_without_end_is_refused(service: Service) -> None:
    """As `bounded_http` has it, which is put in with the rest."""
    try:
        status = service.client.get("/livez", headers={"X-Long": "a" * 2_000_000}).status_code
    except httpx.TransportError:  # cut off before all was sent
        return
    assert status == 431
