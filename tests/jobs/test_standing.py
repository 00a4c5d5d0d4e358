from __future__ import annotations

import pytest

from tests.jobs.orders import CONFIG, submitted
from whisper_serve.jobs.orders import Orders
from whisper_serve.jobs.queue import JobQueue
from whisper_serve.jobs.standing import Standing
from whisper_serve.observability.metrics import Metrics
from whisper_serve.storage.database import Database


@pytest.fixture
def standing(database: Database) -> Standing:
    return Standing(database)


def counts(standing: Standing) -> dict[str, float]:
    return {reading.labels[0]: reading.value for reading in standing.read()}


def test_before_the_first_look_nothing_is_claimed(standing: Standing) -> None:
    assert counts(standing) == {}


async def test_an_empty_database_has_none_of_any_kind(standing: Standing) -> None:
    await standing.look()
    assert set(counts(standing).values()) == {0}
    assert "failed" in counts(standing)


async def test_jobs_count_by_what_they_are(database: Database, standing: Standing) -> None:
    orders = Orders(database, CONFIG)
    for _ in range(3):
        await submitted(orders)
    await JobQueue(database, CONFIG).claim(1.0)
    await standing.look()
    assert (counts(standing)["queued"], counts(standing)["running"]) == (2, 1)


async def test_they_are_a_metric_that_is_declared(standing: Standing) -> None:
    await standing.look()
    metrics = Metrics()
    metrics.read(standing.read)
    assert "whisper_serve_jobs" in {family.name for family in metrics.collect()}
