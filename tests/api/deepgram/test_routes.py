"""Handshakes that are accepted and refused, and what the description of the API says."""

from __future__ import annotations

import json
from typing import Any

import pytest
from deepgram.core.api_error import ApiError
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.http11 import Response

from tests.api.deepgram.service import BARE, OLD_NAMES, ListenServer, listening
from tests.api.fakes import app_with, client_of
from whisper_serve.api.deepgram.parameters import SWITCHES, FileParameters

pytestmark = pytest.mark.filterwarnings(OLD_NAMES)


async def refused(server: ListenServer, path: str) -> tuple[Response, dict[str, str]]:
    """The answer to a handshake, and its body."""
    with pytest.raises(InvalidStatus) as caught:
        async with server.client(path=path):
            pass
    return caught.value.response, json.loads(caught.value.response.body)


@pytest.mark.parametrize(
    ("query", "code", "named"),
    [
        ("encoding=opus", "INVALID_QUERY_PARAMETER", "encoding: "),
        ("encoding=linear16", "INVALID_QUERY_PARAMETER", "sample_rate: "),
        ("multichannel=true", "INVALID_QUERY_PARAMETER", "multichannel: "),
        ("callback=http://test", "INVALID_QUERY_PARAMETER", "callback: "),
        ("detect_language=true", "INVALID_QUERY_PARAMETER", "detect_language: "),
        ("language=klingon", "INVALID_QUERY_PARAMETER", "klingon"),
        ("model=small", "Bad Request", "No such model"),
    ],
)
async def test_a_handshake_is_refused_by_name(query: str, code: str, named: str) -> None:
    async with listening() as server:
        answer, body = await refused(server, f"/v1/listen?{query}")
    assert (answer.status_code, body["err_code"]) == (400, code)
    assert named in body["err_msg"]
    assert answer.headers["dg-error"] == body["err_msg"]
    assert answer.headers["dg-request-id"] == body["request_id"]


async def test_a_stream_too_many_is_refused_and_may_come_back() -> None:
    async with listening(limit=1) as server, server.client(path="/v1/listen"):
        answer, body = await refused(server, "/v1/listen")
    assert (answer.status_code, body["err_code"]) == (503, "Service Unavailable")
    assert answer.headers["retry-after"] == "5"


async def test_the_client_raises_what_is_refused() -> None:
    async with listening() as server, server.sdk() as sdk:
        with pytest.raises(ApiError) as caught:
            async with sdk.listen.v1.connect(model="nova-3", diarize=True, **BARE):
                pass
    assert caught.value.status_code == 400


@pytest.mark.parametrize(
    ("offered", "accepted"),
    [
        (["token", "a-key"], "token"),
        (["bearer", "a-key"], "bearer"),
        (["chat"], None),
        (None, None),
    ],
)
async def test_a_browser_may_show_its_key_as_a_subprotocol(
    offered: list[Any] | None, accepted: str | None
) -> None:
    async with (
        listening() as server,
        connect(
            server.url + "/v1/listen", subprotocols=offered, proxy=None, close_timeout=1
        ) as connection,
    ):
        assert connection.subprotocol == accepted
        await connection.send(b"")
        async for _ in connection:
            pass


async def test_the_application_speaks_it() -> None:
    async with client_of(app_with()) as client:
        answer = await client.post("/v1/listen", content=b"nothing to hear")
        wrong = await client.get("/v1/listen")
    assert answer.json()["err_code"] == "Bad Request"
    assert wrong.status_code == 405
    assert wrong.json()["err_code"] == "Method Not Allowed"
    assert wrong.headers["allow"] == "POST"


async def test_its_description_names_every_parameter_and_failure() -> None:
    async with client_of(app_with()) as client:
        described = (await client.get("/openapi.json")).json()["paths"]["/v1/listen"]["post"]
    schemas = {one["name"]: one["schema"] for one in described["parameters"]}
    assert schemas.keys() == {*FileParameters.model_fields, *SWITCHES}
    assert schemas["diarize"]["enum"] == ["false"]
    assert schemas["punctuate"]["type"] == "boolean"
    assert schemas["keyterm"]["type"] == "array"
    assert "default" not in schemas["language"]
    refused = {"400", "401", "403", "408", "413", "429"}
    assert described["responses"].keys() == {"200", *refused, "500", "503", "504"}
    assert {"audio/*", "application/octet-stream"} <= described["requestBody"]["content"].keys()
