from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from io import BytesIO

import httpx
import numpy as np
import pytest
from prometheus_client.metrics_core import Metric
from starlette.types import Receive, Scope, Send
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.api.fakes import ALL_IS_SPEECH, CLIP, HEARD, FakePort, app_with, client_of
from tests.api.streams import running
from tests.observability.measured import names_of, value_of
from whisper_serve.api.admission import Admission
from whisper_serve.api.draining import Drain
from whisper_serve.api.measuring import (
    MeasuredPort,
    MeasuredTranscriber,
    MeasuringMiddleware,
    room_of,
    route_of,
)
from whisper_serve.audio.decode import decode
from whisper_serve.config import Config
from whisper_serve.engines.base import DecodeTask, Lane
from whisper_serve.errors import EngineFailed, Overloaded
from whisper_serve.observability.metrics import Metrics
from whisper_serve.pipeline import TranscribeOptions
from whisper_serve.text.transcript import DecodeStats


async def measured(port: FakePort, *requests: tuple[str, str]) -> list[Metric]:
    """What was measured of an application that was asked for these."""
    metrics = Metrics()
    app = MeasuringMiddleware(app_with(port), metrics=metrics)
    async with client_of(app) as client:
        for method, path in requests:
            files = {"file": CLIP} if method == "POST" else None
            await client.request(method, path, files=files)
    return metrics.collect()


async def test_requests_count_by_the_template_of_their_route() -> None:
    families = await measured(FakePort(), ("GET", "/livez"), ("GET", "/v1/models/base"))
    assert value_of(families, "requests_total", route="/livez", status="200") == 1
    assert value_of(families, "requests_total", route="/v1/models/{model:path}") == 1


async def test_a_path_that_somebody_made_up_is_no_label() -> None:
    families = await measured(FakePort(), ("GET", "/nope/1"), ("GET", "/nope/2"))
    assert value_of(families, "requests_total", route="unmatched", status="404") == 2


async def test_a_method_that_somebody_made_up_is_no_label() -> None:
    families = await measured(FakePort(), ("BREW", "/livez"), ("STEEP", "/livez"))
    assert value_of(families, "requests_total", method="other") == 2


async def test_the_documentation_has_its_path_as_route() -> None:
    families = await measured(FakePort(), ("GET", "/openapi.json"))
    assert value_of(families, "requests_total", route="/openapi.json") == 1


def test_a_template_is_the_same_wherever_the_service_is_mounted() -> None:
    scope = {"type": "http", "path": "/speech/docs", "root_path": "/speech", "endpoint": None}
    assert route_of(scope) == "/docs"


async def test_a_failure_counts_by_its_code() -> None:
    families = await measured(FakePort(EngineFailed("secret")), ("POST", "/transcribe"))
    assert value_of(families, "failures_total", code="engine_failed") == 1
    assert value_of(families, "requests_total", route="/transcribe", status="500") == 1
    assert "whisper_serve_rejections_total" not in names_of(families)


async def test_what_is_turned_away_counts_by_its_reason() -> None:
    families = await measured(FakePort(Overloaded(3.0)), ("POST", "/transcribe"))
    assert value_of(families, "rejections_total", reason="overloaded") == 1


async def test_a_fault_that_nobody_foresaw_counts() -> None:
    families = await measured(FakePort(RuntimeError("secret")), ("POST", "/transcribe"))
    assert value_of(families, "failures_total", code="internal_error") == 1
    assert value_of(families, "requests_total", status="500") == 1


async def test_a_client_that_left_before_its_answer_counts_as_gone() -> None:
    async def silent(scope: Scope, receive: Receive, send: Send) -> None:
        pass

    metrics = Metrics()
    app = MeasuringMiddleware(silent, metrics=metrics)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        with pytest.raises(AssertionError):
            await client.get("/")
    assert value_of(metrics.collect(), "requests_total", status="499") == 1


async def test_a_handshake_that_is_refused_counts_as_a_rejection() -> None:
    app = app_with(settings={"streaming": {"max_sessions": 1}})
    async with running(app) as port:
        url = f"127.0.0.1:{port}"
        async with connect(f"ws://{url}/stream", proxy=None):
            with pytest.raises(InvalidStatus, match="503"):
                await connect(f"ws://{url}/stream", proxy=None)
        async with httpx.AsyncClient() as client:
            text = (await client.get(f"http://{url}/metrics")).text
    place = 'deployment="Ingress"'
    assert f'whisper_serve_rejections_total{{{place},reason="overloaded",replica="-"}} 1.0' in text
    assert "whisper_serve_requests_total{" not in text


# The port


@pytest.mark.parametrize("answer", [None, Overloaded(1.0)])
async def test_an_answer_takes_its_time_whatever_it_is(answer: Exception | None) -> None:
    metrics = Metrics()
    port = MeasuredPort(FakePort() if answer is None else FakePort(answer), metrics)
    with suppress(Overloaded):
        await port.transcribe(DecodeTask(np.zeros(1, np.int16), lane=Lane.LIVE_FINAL))
    families = metrics.collect()
    assert value_of(families, "window_answer_seconds_count", lane="live_final") == 1


# Streams


async def test_streams_are_told_as_they_are_admitted() -> None:
    admission, metrics = Admission(5, 5), Metrics()
    drain = Drain()
    metrics.read(room_of(admission, 5, drain))
    with admission.admit("somebody"):
        assert value_of(metrics.collect(), "streams_open") == 1
    families = metrics.collect()
    assert value_of(families, "streams_open") == 0
    assert value_of(families, "streams_limit") == 5
    assert value_of(families, "draining") == 0
    drain.begin(60.0)
    assert value_of(metrics.collect(), "draining") == 1


# Recordings


def transcriber(metrics: Metrics, port: FakePort | None = None) -> MeasuredTranscriber:
    config = Config.model_validate({"vad": ALL_IS_SPEECH})
    return MeasuredTranscriber(port or FakePort(), config, decode, metrics=metrics, kind="job")


async def test_a_recording_counts_once_with_all_its_audio() -> None:
    metrics = Metrics()
    transcript = await transcriber(metrics).transcribe(BytesIO(CLIP), TranscribeOptions())
    assert transcript.text
    taken = value_of(metrics.collect(), "audio_seconds_total", kind="job")
    assert taken == pytest.approx(2.0, abs=0.01)


async def test_a_recording_that_fails_was_taken_too() -> None:
    metrics = Metrics()
    failing = transcriber(metrics, FakePort(EngineFailed("secret")))
    with pytest.raises(EngineFailed):
        await failing.transcribe(BytesIO(CLIP), TranscribeOptions())
    assert value_of(metrics.collect(), "audio_seconds_total", kind="job") > 0


async def test_a_recording_that_is_not_admitted_was_not_taken() -> None:
    async def refuse(_audio_s: float) -> None:
        raise Overloaded(1.0)

    metrics = Metrics()
    with pytest.raises(Overloaded):
        await transcriber(metrics).transcribe(BytesIO(CLIP), TranscribeOptions(), refuse)
    assert "whisper_serve_audio_seconds_total" not in names_of(metrics.collect())


async def test_a_window_that_took_several_replicas_was_retried() -> None:
    metrics = Metrics()
    answer = replace(HEARD, stats=DecodeStats(attempts=3))
    await MeasuredPort(FakePort(answer), metrics).transcribe(DecodeTask(np.zeros(1, np.int16)))
    families = metrics.collect()
    assert value_of(families, "window_retries_total", reason="replica_died") == 2
