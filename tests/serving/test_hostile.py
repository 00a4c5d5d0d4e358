"""Files that were made to do harm, through the real service: others notice nothing."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx
import pytest
from websockets.sync.client import connect

from tests.audio.hostile import INDEX_ENTRIES, indexed_mp4, tagged_flac
from tests.serving.conftest import Deploy, Service
from tests.serving.scripted import build_throwing

pytestmark = pytest.mark.server

DECODE_TIMEOUT_S = 4.0
PATIENCE_S = 60.0
# More than the threads that two CPUs get, and than files that are unpacked at once.
AT_ONCE = 8


@pytest.fixture(scope="module")
def service(deploy: Deploy) -> Service:
    limits = {"decode_timeout_s": DECODE_TIMEOUT_S}
    return deploy("hostile", {"auth": {"open": True}, "limits": limits}, build_throwing)


def posted(service: Service, data: bytes) -> httpx.Response:
    return httpx.post(f"{service.url}/v1/transcribe", files={"file": data}, timeout=PATIENCE_S)


def test_files_that_never_end_are_refused_and_others_are_not(service: Service) -> None:
    data = tagged_flac(300_000)
    url = service.url.replace("http", "ws", 1) + "/v1/stream"
    with ThreadPoolExecutor(AT_ONCE) as pool, ExitStack() as streams:
        answers = [pool.submit(posted, service, data) for _ in range(AT_ONCE)]
        for _ in range(AT_ONCE):
            hostile = streams.enter_context(connect(url))
            hostile.send('{"encoding": "container"}')
            hostile.send(data)
        with connect(url) as ordinary:
            ordinary.send("{}")
            assert json.loads(ordinary.recv(PATIENCE_S))["type"] == "ready"
            ordinary.send('{"type": "keepalive"}')
            assert json.loads(ordinary.recv(PATIENCE_S))["type"] == "ack"
        assert service.client.get("/livez").status_code == 200
        for answer in answers:
            refused = answer.result(PATIENCE_S)
            assert (refused.status_code, refused.json()["code"]) == (413, "audio_too_costly")


def test_an_index_that_lies_takes_no_memory_of_the_service(service: Service) -> None:
    refused = posted(service, indexed_mp4(100, INDEX_ENTRIES))
    assert refused.status_code in {400, 413}
    assert service.client.get("/livez").status_code == 200
