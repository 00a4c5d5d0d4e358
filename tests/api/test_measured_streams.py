"""What is measured of live streams, over real sockets."""

from __future__ import annotations

import pytest
from fastapi import APIRouter

from tests.api.streams import HASTY, Engine, quiet, serving, words
from tests.observability.measured import value_of
from tests.streaming.speaker import Ears
from whisper_serve.api import live
from whisper_serve.api.admission import Admission
from whisper_serve.api.routes.stream import stream_router
from whisper_serve.api.services import Services
from whisper_serve.errors import EngineUnavailable
from whisper_serve.observability.metrics import Metrics


@pytest.fixture(autouse=True)
def ears(monkeypatch: pytest.MonkeyPatch) -> None:
    """Voice activity detection that takes the speech of these tests for speech."""
    monkeypatch.setattr(live, "SileroVad", Ears)


class Watched:
    """Makes the router, and keeps what is measured behind it."""

    metrics: Metrics

    def __call__(self, services: Services, admission: Admission) -> APIRouter:
        self.metrics = services.metrics
        return stream_router(services, admission, timing=HASTY)


async def test_a_stream_is_measured_from_its_handshake_to_its_close() -> None:
    watched = Watched()
    async with serving(watched) as server, server.client({}) as client:
        await client.send(words(6), quiet(1.0), {"type": "end"})
        assert await client.closed() == 1000
    families = watched.metrics.collect()
    assert value_of(families, "streams_begun_total", route="/stream") == 1
    assert value_of(families, "streams_ended_total", route="/stream", code="1000") == 1
    assert value_of(families, "audio_seconds_total", kind="stream") == pytest.approx(4.0)
    assert value_of(families, "word_final_delay_seconds_count") == 6
    assert value_of(families, "word_shown_delay_seconds_count") == 6
    assert value_of(families, "first_word_delay_seconds_count") == 1


async def test_a_client_that_vanishes_is_gone() -> None:
    watched = Watched()
    async with serving(watched) as server, server.client({}) as client:
        client.vanish()
    assert value_of(watched.metrics.collect(), "streams_ended_total", code="gone") == 1


async def test_a_stream_that_goes_on_with_another_is_resumed() -> None:
    watched = Watched()
    async with (
        serving(watched) as server,
        server.client({"resume": {"committed_until": 2.0}}) as client,
    ):
        await client.send({"type": "end"})
        await client.closed()
    assert value_of(watched.metrics.collect(), "streams_resumed_total", route="/stream") == 1


async def test_a_window_that_is_asked_for_again_is_a_retry() -> None:
    watched, engine = Watched(), Engine(troubles=[EngineUnavailable(0.01)])
    async with serving(watched, engine) as server, server.client({"interim": False}) as client:
        await client.send(words(3), {"type": "end"})
        assert await client.closed() == 1000
    assert value_of(watched.metrics.collect(), "window_retries_total", reason="stream") == 1


async def test_a_stream_that_gets_no_place_never_began() -> None:
    watched = Watched()
    async with serving(watched, limit=1) as server, server.client({}):
        with pytest.raises(Exception, match="503"):
            async with server.client({}):
                pass
        families = watched.metrics.collect()
    assert value_of(families, "streams_begun_total", route="/stream") == 1
