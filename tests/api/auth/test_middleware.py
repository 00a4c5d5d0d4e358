"""Refusals look like the other failures of their path, have an id, and are on record."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.auth.holders import RADIO, STREAMER, UNKNOWN, bearer, settings
from tests.api.fakes import CLIP, Lines, app_with, client_of, is_failure

FILE = {"file": CLIP}


async def test_who_shows_a_key_is_served() -> None:
    async with client_of(app_with(settings=settings())) as client:
        for headers in (bearer(RADIO), {"X-API-Key": RADIO}, {"Authorization": f"Token {RADIO}"}):
            answer = await client.post("/transcribe", files=FILE, headers=headers)
            assert answer.status_code == 200


async def test_who_shows_none_is_told_how() -> None:
    async with client_of(app_with(settings=settings())) as client:
        answer = await client.post("/transcribe", files=FILE, headers={"X-Request-ID": "r-1"})
    assert is_failure(answer, 401, "invalid_api_key")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["x-request-id"] == answer.json()["request_id"] == "r-1"
    assert "X-API-Key" in answer.json()["error"]


REFUSED = [(UNKNOWN, 401), (STREAMER, 403)]


@pytest.mark.parametrize(("shown", "status"), REFUSED, ids=["unknown", "without scope"])
async def test_each_api_refuses_in_its_own_words(shown: str, status: int) -> None:
    code = {401: "invalid_api_key", 403: "scope_missing"}[status]
    async with client_of(app_with(settings=settings())) as client:

        async def refused(path: str) -> dict[str, Any]:
            answer = await client.post(path, files=FILE, headers=bearer(shown))
            assert answer.status_code == status
            body: dict[str, Any] = answer.json()
            return body

        assert (await refused("/transcribe"))["code"] == code
        assert (await refused("/v1/audio/transcriptions"))["error"]["code"] == code
        err_code = {401: "INVALID_AUTH", 403: "INSUFFICIENT_PERMISSIONS"}[status]
        assert (await refused("/v1/listen"))["err_code"] == err_code


async def test_an_open_service_looks_at_no_key() -> None:
    async with client_of(app_with()) as client:
        answer = await client.post("/transcribe", files=FILE, headers=bearer(UNKNOWN))
    assert answer.status_code == 200


async def test_a_refusal_is_on_record_without_the_key(lines: Lines) -> None:
    async with client_of(app_with(settings=settings())) as client:
        await client.post("/transcribe", headers=bearer(UNKNOWN))
        await client.post("/transcribe", headers=bearer(STREAMER))
    records = [record for record in lines.records if record.name == "whisper_serve.audit"]
    assert [record.getMessage() for record in records] == ["key refused"] * 2
    unknown, streamer = (vars(record)["fields"] for record in records)
    assert (unknown["caller"], unknown["code"]) == ("unknown", "invalid_api_key")
    assert (streamer["caller"], streamer["code"]) == ("streamer", "scope_missing")
    assert unknown["client"] == "127.0.0.1"
    assert unknown["path"] == "/transcribe"
    everything = str([vars(record) for record in lines.records])
    assert UNKNOWN not in everything
    assert STREAMER not in everything


async def test_wrong_keys_are_answered_later_and_later_but_the_right_one_at_once() -> None:
    few = {"auth": {**settings()["auth"], "wrong_keys_per_minute": 3}}
    async with client_of(app_with(settings=few)) as client:
        answers = [await client.get("/v1/models", headers=bearer(UNKNOWN)) for _ in range(6)]
        right = await client.get("/v1/models", headers=bearer(RADIO))
        none = await client.get("/v1/models")
    # Where a minute begins meanwhile, one more is let through.
    assert [answer.status_code for answer in answers][:3] == [401] * 3
    assert answers[-1].status_code == 429
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 60
    assert right.status_code == 200
    assert none.status_code == 401


async def test_a_key_has_its_requests_a_minute() -> None:
    limited = settings(requests_per_minute=4)
    async with client_of(app_with(settings=limited)) as client:
        answers = [await client.get("/v1/models", headers=bearer(RADIO)) for _ in range(7)]
        another = await client.get("/v1/models", headers=bearer(STREAMER))
        probe = await client.get("/livez", headers=bearer(RADIO))
    assert [answer.status_code for answer in answers][:4] == [200] * 4
    assert answers[-1].status_code == 429
    assert answers[-1].json()["error"]["code"] == "rate_limit_exceeded"
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 60
    assert another.status_code == probe.status_code == 200
