from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import numpy as np
import pytest
from prometheus_client.metrics_core import Metric

from tests.observability.measured import names_of, value_of
from whisper_serve.engines.base import DecodeTask, EngineInfo, EngineLoad, Lane, TemperaturePolicy
from whisper_serve.errors import EngineFailed, Superseded
from whisper_serve.observability.metrics import Metrics
from whisper_serve.serving.engine_metrics import (
    engine_readings,
    load_readings,
    measured,
    outcome_of,
)
from whisper_serve.text.transcript import DecodeStats, Hypothesis

STATS = DecodeStats(queued_s=0.5, encoded_s=0.25, decoded_s=0.75, batch_size=3)


def task(lane: Lane = Lane.FILE, first: float = 0.0) -> DecodeTask:
    policy = TemperaturePolicy.starting_at(first)
    return DecodeTask(np.zeros(4 * 16_000, np.int16), lane=lane, temperature=policy)


async def heard(stats: DecodeStats = STATS) -> Hypothesis:
    return Hypothesis((), "en", 1.0, stats)


async def failed(exc: BaseException) -> Hypothesis:
    raise exc


async def of(answer: Awaitable[Hypothesis], asked: DecodeTask) -> list[Metric]:
    """What was measured of a window that was answered so."""
    metrics = Metrics()
    await asyncio.gather(measured(metrics, asked, answer), return_exceptions=True)
    return metrics.collect()


async def test_an_answer_comes_through_and_is_measured() -> None:
    metrics = Metrics()
    assert (await measured(metrics, task(), heard())).language == "en"
    families = metrics.collect()
    assert value_of(families, "windows_total", lane="file", outcome="ok") == 1
    assert value_of(families, "queue_seconds_sum", lane="file") == 0.5
    assert value_of(families, "real_time_factor_sum", lane="file") == 0.25
    assert value_of(families, "batch_size_sum") == 3


@pytest.mark.parametrize("lane", Lane)
async def test_each_lane_has_its_name(lane: Lane) -> None:
    families = await of(heard(), task(lane))
    assert value_of(families, "windows_total", lane=lane.name.lower(), outcome="ok") == 1


@pytest.mark.parametrize(("first", "hotter"), [(0.0, True), (0.4, False)])
async def test_a_temperature_that_was_asked_for_is_no_fallback(first: float, hotter: bool) -> None:
    families = await of(heard(DecodeStats(temperature=0.4)), task(first=first))
    assert ("whisper_serve_temperature_fallbacks_total" in names_of(families)) == hotter


async def test_a_partial_that_gave_way_is_no_answer() -> None:
    families = await of(failed(Superseded()), task(Lane.LIVE_PARTIAL))
    lost = {"lane": "live_partial", "outcome": "superseded"}
    assert value_of(families, "windows_total", **lost) == 1
    assert value_of(families, "window_audio_seconds_total", **lost) == 4.0


async def test_a_failure_is_raised_as_it_was() -> None:
    broken = EngineFailed("secret")
    with pytest.raises(EngineFailed) as caught:
        await measured(Metrics(), task(), failed(broken))
    assert caught.value is broken


@pytest.mark.parametrize(
    ("exc", "outcome"),
    [
        (EngineFailed("secret"), "engine_failed"),
        (asyncio.CancelledError(), "cancelled"),
        (ZeroDivisionError("secret"), "internal_error"),
    ],
)
def test_an_outcome_is_a_code_and_never_a_message(exc: BaseException, outcome: str) -> None:
    assert outcome_of(exc) == outcome


async def test_a_window_that_was_given_up_is_cancelled() -> None:
    metrics = Metrics()
    work = asyncio.create_task(measured(metrics, task(), asyncio.Event().wait()))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    work.cancel()
    await asyncio.wait([work])
    assert value_of(metrics.collect(), "windows_total", outcome="cancelled") == 1


def test_an_engine_s_load_and_name_are_declared_metrics() -> None:
    load = EngineLoad(waiting=3, waiting_s=30.0, running=2, oldest_running_s=1.5)
    info = EngineInfo("torch", "base", "cuda", "float16", multilingual=True, load_s=1.0)
    metrics = Metrics()
    metrics.read(lambda: [*load_readings(load), *engine_readings([info])])
    families = metrics.collect()
    assert value_of(families, "windows_waiting") == 3
    assert value_of(families, "waiting_audio_seconds") == 30.0
    assert value_of(families, "windows_running") == 2
    assert value_of(families, "oldest_window_seconds") == 1.5
    labels = {"engine": "torch", "model": "base", "device": "cuda", "compute_type": "float16"}
    assert value_of(families, "engine_info", **labels) == 1
