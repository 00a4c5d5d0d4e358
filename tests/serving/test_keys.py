"""A closed service on Ray Serve: keys, tokens, limits and refusals through its proxy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin, Subprotocol

from tests.api.auth.holders import BOSS, RADIO, STREAMER, UNKNOWN, bearer, settings
from tests.api.fakes import CLIP
from tests.serving.conftest import Deploy, Service
from tests.serving.scripted import build_named

pytestmark = pytest.mark.server

FILE = {"file": CLIP}


@pytest.fixture(scope="module")
def service(deploy: Deploy, tmp_path_factory: pytest.TempPathFactory) -> Service:
    scratch: Path = tmp_path_factory.mktemp("keys")
    configured = {
        **settings(max_streams=1, daily_audio_s=5.0),
        "model": {"model_dir": str(scratch)},
        "vad": {"threshold": 1e-6},
    }
    return deploy("keys", configured, build_named)


def opened(service: Service, **how: Any) -> ClientConnection:
    url = service.url.replace("http", "ws", 1)
    connection: ClientConnection = connect(f"{url}/stream", proxy=None, close_timeout=1, **how)
    return connection


def refused(service: Service, **how: Any) -> tuple[int, dict[str, Any], Any]:
    with pytest.raises(InvalidStatus) as caught:
        opened(service, **how)
    response = caught.value.response
    return response.status_code, json.loads(response.body or b"{}"), response.headers


def test_probes_and_the_page_need_no_key(service: Service) -> None:
    for path in ("/livez", "/health", "/", "/docs", "/openapi.json"):
        assert service.client.get(path).status_code == 200, path


def test_files_need_one(service: Service) -> None:
    for headers, status in (({}, 401), (bearer(UNKNOWN), 401), (bearer(BOSS), 403)):
        answer = service.client.post("/transcribe", files=FILE, headers=headers)
        assert answer.status_code == status
        assert answer.json()["request_id"] == answer.headers["x-request-id"]
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_stream_is_refused_before_the_handshake(service: Service) -> None:
    status, body, headers = refused(service)
    assert (status, body["code"]) == (401, "invalid_api_key")
    assert headers["www-authenticate"] == "Bearer"
    status, body, _ = refused(service, additional_headers=bearer(BOSS))
    assert (status, body["code"]) == (403, "scope_missing")
    origin = Origin("https://evil.example")
    status, body, _ = refused(service, additional_headers=bearer(STREAMER), origin=origin)
    assert (status, body["code"]) == (403, "origin_not_allowed")


def test_a_browser_of_its_own_page_opens_one_with_a_token(service: Service) -> None:
    answer = service.client.post("/v1/tokens", headers=bearer(RADIO), json={"scopes": ["stream"]})
    token = answer.json()["token"]
    offered = [Subprotocol("whisper-serve"), Subprotocol(f"whisper-serve.key.{token}")]
    own = Origin(service.url.removesuffix(f"/{service.name}"))
    with opened(service, subprotocols=offered, origin=own) as connection:
        assert connection.subprotocol == "whisper-serve"
        connection.send('{"type": "config"}')
        assert json.loads(connection.recv(timeout=10))["type"] == "ready"
        status, body, headers = refused(service, subprotocols=offered, origin=own)
    assert (status, body["code"]) == (429, "too_many_streams")
    assert int(headers["retry-after"]) > 0


def test_more_audio_than_a_day_has_is_refused(service: Service) -> None:
    answers: list[httpx.Response] = [
        service.client.post("/transcribe", files=FILE, headers=bearer(RADIO)) for _ in range(3)
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[-1].json()["code"] == "quota_exceeded"
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 86_400
