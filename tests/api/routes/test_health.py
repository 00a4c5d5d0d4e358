from __future__ import annotations

import pytest

from tests.api.fakes import FakeEngines, app_with, client_of
from whisper_serve import __version__
from whisper_serve.api.services import EngineStatus
from whisper_serve.engines.base import EngineInfo, EngineLoad
from whisper_serve.errors import EngineUnavailable

BUSY = FakeEngines(
    EngineStatus(
        EngineInfo("ctranslate2", "base", "cpu", "int8", multilingual=True, load_s=0.81294),
        EngineLoad(waiting=3, waiting_s=41.23456, running=2, oldest_running_s=0.5),
    )
)
NOBODY = FakeEngines(EngineUnavailable(5.0))


@pytest.mark.parametrize("path", ["/health", "/readyz"])
async def test_with_an_engine_that_answers_it_is_healthy(path: str) -> None:
    async with client_of(app_with(engines=BUSY)) as client:
        answer = await client.get(path)
    assert answer.status_code == 200
    assert answer.json() == {
        "status": "healthy",
        "reason": None,
        "version": __version__,
        "engine": "ctranslate2",
        "model": "base",
        "device": "cpu",
        "compute_type": "int8",
        "load_s": 0.813,
        "windows_waiting": 3,
        "audio_waiting_s": 41.235,
        "windows_running": 2,
    }


@pytest.mark.parametrize("path", ["/health", "/readyz"])
async def test_without_an_engine_it_is_unhealthy(path: str) -> None:
    async with client_of(app_with(engines=NOBODY)) as client:
        answer = await client.get(path)
    assert answer.status_code == 503
    body = answer.json()
    assert (body["status"], body["reason"]) == ("unhealthy", str(EngineUnavailable(5.0)))
    assert body["engine"] is None


async def test_without_an_engine_the_process_still_lives() -> None:
    async with client_of(app_with(engines=NOBODY)) as client:
        answer = await client.get("/livez")
    assert (answer.status_code, answer.json()) == (200, {"status": "alive"})
