from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.openapi.models import OpenAPI
from starlette.routing import Match

from tests.api.fakes import app_with, client_of, is_failure
from whisper_serve import __version__
from whisper_serve.api.schemas import TranscribeParameters


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return app_with().openapi()


async def test_the_root_tells_what_there_is() -> None:
    async with client_of(app_with()) as client:
        answer = await client.get("/")
    body = answer.json()
    assert (body["service"], body["version"]) == ("whisper_serve", __version__)
    assert "POST /transcribe" in body["endpoints"]


def takes_sockets(app: FastAPI, path: str) -> bool:
    scope = {"type": "websocket", "path": path, "root_path": "", "headers": []}
    return any(route.matches(scope)[0] is Match.FULL for route in app.routes)


async def test_every_endpoint_that_is_told_is_there() -> None:
    app = app_with()
    async with client_of(app) as client:
        endpoints = (await client.get("/")).json()["endpoints"]
        for method, path in (endpoint.split() for endpoint in endpoints):
            if method == "WS":
                assert takes_sockets(app, path)
            else:
                answer = await client.request(method, path)
                # Without a database there are no jobs, and the route says so.
                assert answer.status_code not in {404, 405} or "jobs_disabled" in answer.text


async def test_an_unknown_path_is_not_found() -> None:
    async with client_of(app_with()) as client:
        answer = await client.get("/transcripts")
    assert is_failure(answer, 404, "not_found")


async def test_a_wrong_method_is_told_with_the_right_one() -> None:
    async with client_of(app_with()) as client:
        answer = await client.get("/transcribe")
    assert is_failure(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"


# The description


def test_the_description_is_valid(document: dict[str, Any]) -> None:
    OpenAPI.model_validate(document)
    assert document["info"]["version"] == __version__


def test_the_description_knows_both_ways_to_send_a_file(document: dict[str, Any]) -> None:
    body = document["paths"]["/transcribe"]["post"]["requestBody"]
    assert body["required"] is True
    assert set(body["content"]) == {"multipart/form-data", "audio/*", "application/octet-stream"}
    form = body["content"]["multipart/form-data"]["schema"]["properties"]
    assert set(form) == {"audio_file", "file", *TranscribeParameters.model_fields}
    assert form["audio_file"]["format"] == "binary"


def test_the_description_knows_every_parameter(document: dict[str, Any]) -> None:
    parameters = document["paths"]["/transcribe"]["post"]["parameters"]
    assert [parameter["name"] for parameter in parameters] == list(
        TranscribeParameters.model_fields
    )
    assert all(parameter["in"] == "query" for parameter in parameters)
    assert all(parameter["schema"]["description"] for parameter in parameters)


def test_the_description_knows_every_answer(document: dict[str, Any]) -> None:
    responses = document["paths"]["/transcribe"]["post"]["responses"]
    refused = {"400", "401", "403", "404", "408", "413", "415", "429"}
    assert set(responses) == {"200", *refused, "500", "503", "504"}
    assert set(responses["200"]["content"]) == {
        "application/json",
        "text/plain",
        "application/x-subrip",
        "text/vtt",
    }
    shapes = {str(response["content"]["application/json"]) for response in responses.values()}
    assert len(shapes) == 1


async def test_the_description_can_be_read_and_tried() -> None:
    async with client_of(app_with()) as client:
        page = await client.get("/docs")
        description = await client.get("/openapi.json")
    assert page.headers["content-type"].startswith("text/html")
    assert description.json()["info"]["title"] == "whisper_serve"
