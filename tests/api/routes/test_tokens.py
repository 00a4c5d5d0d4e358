"""Tokens are issued to keys, over HTTP, and open what they say."""

from __future__ import annotations

import json
import time
from typing import Any

import httpx
import pytest

from tests.api.auth.holders import BOSS, RADIO, STREAMER, bearer, settings
from tests.api.fakes import CLIP, Lines, app_with, client_of, is_failure

FILE = {"file": CLIP}


async def asked(body: Any = None, shown: str = RADIO) -> httpx.Response:
    content = b"" if body is None else json.dumps(body).encode()
    async with client_of(app_with(settings=settings())) as client:
        return await client.post("/v1/tokens", content=content, headers=bearer(shown))


async def test_a_key_gets_a_token_and_the_token_is_one() -> None:
    async with client_of(app_with(settings=settings())) as client:
        answer = await client.post("/v1/tokens", headers=bearer(RADIO))
        body = answer.json()
        served = await client.post("/transcribe", files=FILE, headers=bearer(body["token"]))
    assert answer.status_code == 200
    assert set(body) == {"token", "expires_at", "expires_in", "scopes"}
    assert body["token"].startswith("wst_")
    assert (body["expires_in"], body["scopes"]) == (600, ["transcribe", "stream"])
    assert abs(body["expires_at"] - time.time() - 600) < 10
    assert served.status_code == 200


async def test_less_can_be_asked_for() -> None:
    async with client_of(app_with(settings=settings())) as client:
        wish = {"expires_in": 60, "scopes": ["stream"]}
        body = (await client.post("/v1/tokens", json=wish, headers=bearer(RADIO))).json()
        refused = await client.post("/transcribe", files=FILE, headers=bearer(body["token"]))
    assert (body["expires_in"], body["scopes"]) == (60, ["stream"])
    assert is_failure(refused, 403, "scope_missing")


async def test_a_token_gets_none() -> None:
    async with client_of(app_with(settings=settings())) as client:
        token = (await client.post("/v1/tokens", headers=bearer(RADIO))).json()["token"]
        refused = await client.post("/v1/tokens", headers=bearer(token))
    assert is_failure(refused, 401, "invalid_api_key")


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"expires_in": 601}, "expires_in"),
        ({"expires_in": 0}, "expires_in"),
        ({"expires_in": "60"}, "expires_in"),
        ({"expires_in": True}, "expires_in"),
        ({"scopes": []}, "scopes"),
        ({"scopes": ["everything"]}, "scopes.0"),
        ({"lifetime": 60}, "lifetime"),
    ],
    ids=str,
)
async def test_what_is_wrong_is_named(body: Any, named: str) -> None:
    answer = await asked(body)
    assert is_failure(answer, 400, "invalid_parameter")
    assert answer.json()["error"].startswith(f"{named}: ")


@pytest.mark.parametrize("body", [[], "text", 1])
async def test_a_body_that_is_no_object_is_refused(body: Any) -> None:
    assert (await asked(body)).status_code == 400


@pytest.mark.parametrize(
    ("shown", "body"),
    [(STREAMER, {"scopes": ["jobs"]}), (BOSS, {})],
    ids=["another scope", "admin alone"],
)
async def test_nobody_gets_more_than_the_key_has(shown: str, body: Any) -> None:
    assert is_failure(await asked(body, shown), 403, "scope_missing")


async def test_it_is_on_record_without_the_token(lines: Lines) -> None:
    token = (await asked()).json()["token"]
    [record] = [record for record in lines.records if record.name == "whisper_serve.audit"]
    assert record.getMessage() == "token issued"
    assert vars(record)["fields"]["caller"] == "radio"
    assert token not in str([vars(record) for record in lines.records])


async def test_an_open_service_issues_them_too() -> None:
    async with client_of(app_with()) as client:
        answer = await client.post("/v1/tokens")
    assert answer.status_code == 200
