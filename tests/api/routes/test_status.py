from __future__ import annotations

from tests.api.fakes import app_with, client_of
from whisper_serve import __version__


async def test_a_process_alone_knows_its_limits_and_no_engine() -> None:
    app = app_with(settings={"models": ["tiny.en"], "streaming": {"max_sessions": 7}})
    async with client_of(app) as client:
        answer = await client.get("/v1/status")
    assert answer.status_code == 200
    body = answer.json()
    assert body["status"] == "down"
    assert body["version"] == __version__
    assert body["models"]["served"] == ["base", "tiny.en"]
    assert body["capacity"]["streams_left"] == 7
    assert body["engines"] == []
    assert [one["streams_limit"] for one in body["ingresses"]] == [7]


async def test_it_is_described() -> None:
    async with client_of(app_with()) as client:
        description = (await client.get("/openapi.json")).json()
    assert "StatusOut" in description["components"]["schemas"]
    assert {"/metrics", "/v1/status"} <= description["paths"].keys()
