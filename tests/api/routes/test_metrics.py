from __future__ import annotations

import httpx
import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.api.fakes import CLIP, app_with, client_of

PLACE = {"deployment": "Ingress", "replica": "-"}


async def scrape(client: httpx.AsyncClient, accept: str = "*/*") -> httpx.Response:
    answer = await client.get("/metrics", headers={"Accept": accept})
    assert answer.status_code == 200
    return answer


def families_of(answer: httpx.Response) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(answer.text)}


async def test_a_request_is_in_the_next_scrape() -> None:
    async with client_of(app_with()) as client:
        await client.post("/transcribe", files={"file": CLIP})
        requests = families_of(await scrape(client))["whisper_serve_requests"]
    labels = {"method": "POST", "route": "/transcribe", "status": "200", **PLACE}
    assert [(sample.labels, sample.value) for sample in requests.samples] == [(labels, 1.0)]


async def test_a_scrape_itself_counts_like_any_request() -> None:
    async with client_of(app_with()) as client:
        await scrape(client)
        requests = families_of(await scrape(client))["whisper_serve_requests"]
    assert [sample.labels["route"] for sample in requests.samples] == ["/metrics"]


async def test_streams_are_told_with_their_limit() -> None:
    async with client_of(app_with(settings={"streaming": {"max_sessions": 7}})) as client:
        families = families_of(await scrape(client))
    assert families["whisper_serve_streams_limit"].samples[0].value == 7
    assert families["whisper_serve_streams_open"].samples[0].value == 0


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("*/*", "text/plain; version=0.0.4; charset=utf-8"),
        # As Prometheus 3 asks.
        (
            "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5",
            "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=underscores",
        ),
    ],
)
async def test_the_format_is_the_one_that_is_asked_for(accept: str, content_type: str) -> None:
    async with client_of(app_with()) as client:
        answer = await scrape(client, accept)
    assert answer.headers["content-type"] == content_type
    assert answer.text.endswith("# EOF\n") == ("openmetrics" in accept)
