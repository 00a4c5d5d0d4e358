"""Dashboards and alerts ask only for what the service tells."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import promql_parser as promql
import pytest
import yaml

from whisper_serve.observability.instruments import INSTRUMENTS

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "deploy" / "monitoring"
PAGE = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
DASHBOARD = json.loads((MONITORING / "grafana" / "whisper_serve.json").read_text())
ALERTS = yaml.safe_load((MONITORING / "prometheus" / "alerts.yaml").read_text())
SCRAPES = yaml.safe_load((MONITORING / "prometheus" / "prometheus.yaml").read_text())
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
# A scrape gives these to all series but that of the replicas themselves.
PLACE = {"deployment", "replica"}


def exported() -> dict[str, set[str]]:
    """The labels of each series that a scrape may have, by its name."""
    series: dict[str, set[str]] = {}
    for instrument in INSTRUMENTS:
        labels = {*instrument.labels, *PLACE}
        if instrument.name == "replicas_answering":
            labels -= PLACE
        if instrument.kind == "histogram":
            series[f"{instrument.full_name}_bucket"] = {*labels, "le"}
            series[f"{instrument.full_name}_sum"] = labels
            series[f"{instrument.full_name}_count"] = labels
        else:
            series[instrument.full_name] = labels
    return series


SERIES = exported()


class Query(NamedTuple):
    where: str
    text: str

    @property
    def expression(self) -> Any:
        return promql.parse(self.text.replace("$__rate_interval", "5m"))


QUERIES = [
    *(Query(panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]),
    *(Query(rule["alert"], rule["expr"]) for rule in RULES),
]


def parts_of(expression: Any) -> Iterator[Any]:
    """Every node of a query."""
    nodes: list[Any] = []
    promql.walk(expression, nodes.append)
    return iter(nodes)


def selectors(expression: Any) -> list[Any]:
    found = []
    for node in parts_of(expression):
        if isinstance(node, promql.MatrixSelector):
            found.append(node.vector_selector)
        elif isinstance(node, promql.VectorSelector):
            found.append(node)
    return found


def of_a_query(query: Query) -> str:
    return f"{query.where}-{query.text[:40]}"


@pytest.mark.parametrize("query", QUERIES, ids=of_a_query)
def test_a_query_asks_for_series_that_there_are(query: Query) -> None:
    names = {selector.name for selector in selectors(query.expression)}
    assert names
    assert names <= SERIES.keys()


@pytest.mark.parametrize("query", QUERIES, ids=of_a_query)
def test_a_query_selects_by_labels_that_there_are(query: Query) -> None:
    for selector in selectors(query.expression):
        used = {matcher.name for matcher in selector.matchers.matchers}
        assert used <= SERIES[selector.name], selector.name


@pytest.mark.parametrize("query", QUERIES, ids=of_a_query)
def test_a_query_groups_by_labels_that_there_are(query: Query) -> None:
    expression = query.expression
    groups = [node for node in parts_of(expression) if isinstance(node, promql.AggregateExpr)]
    for group in groups:
        by = set(group.modifier.labels) if group.modifier else set()
        for selector in selectors(group.expr):
            assert by <= SERIES[selector.name], selector.name


@pytest.mark.parametrize("query", QUERIES, ids=of_a_query)
def test_a_quantile_keeps_the_buckets_apart(query: Query) -> None:
    for name in re.findall(r"sum by \(([^)]*)\) \(rate\(\w+_bucket", query.text):
        assert "le" in name.split(", ")
    assert ("histogram_quantile" in query.text) == ("_bucket" in query.text)


def test_a_counter_is_never_shown_as_it_is() -> None:
    for query in QUERIES:
        for name in re.findall(r"whisper_serve_\w+_total\b", query.text):
            assert re.search(rf"(rate|increase)\({name}", query.text), query.text


# The dashboard


def test_every_panel_has_a_place_of_its_own() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in DASHBOARD["panels"])
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells)


def test_every_panel_says_what_it_shows_and_in_what_unit() -> None:
    for panel in PANELS:
        assert panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["datasource"]["uid"] == "${datasource}"
        assert all(target["legendFormat"] for target in panel["targets"])


def test_what_an_operator_looks_for_is_there() -> None:
    text = json.dumps(DASHBOARD)
    for name in (
        *("requests_total", "failures_total", "rejections_total", "first_word_delay_seconds"),
        *("word_final_delay_seconds", "real_time_factor", "waiting_audio_seconds", "batch_size"),
        *("streams_open", "jobs", "process_resident_memory_bytes", "gpu_memory_used_bytes"),
    ):
        assert f"whisper_serve_{name}" in text


# The alerts


def anchors() -> set[str]:
    """Where a link into the page can point to, as headings are linked."""
    headings = re.findall(r"^#+ (.+)$", PAGE, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_says_how_bad_it_is_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert rule["annotations"]["summary"]
    page, _, anchor = rule["annotations"]["runbook"].partition("#")
    assert page == "docs/metrics.md"
    assert anchor in anchors()
    assert promql.parse_duration(rule["for"]).total_seconds() >= 60


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_a_summary_names_labels_that_the_alert_has(rule: dict[str, Any]) -> None:
    known = {label for labels in SERIES.values() for label in labels}
    used = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
    assert used <= known
    assert all(label in rule["expr"] or label in PLACE for label in used)


def test_no_alert_is_called_like_another() -> None:
    names = [rule["alert"] for rule in RULES]
    assert len(set(names)) == len(names)
    assert all(name.startswith("WhisperServe") for name in names)


# The scrape


def test_the_scrape_shows_a_key_and_knows_the_alerts() -> None:
    [job] = SCRAPES["scrape_configs"]
    assert job["metrics_path"] == "/metrics"
    assert job["authorization"]["credentials_file"]
    assert [*SCRAPES["rule_files"]] == ["alerts.yaml"]
    assert (MONITORING / "prometheus" / "alerts.yaml").exists()


# The page


@pytest.mark.parametrize("instrument", INSTRUMENTS, ids=lambda instrument: instrument.name)
def test_every_metric_is_documented_with_its_labels(instrument: Any) -> None:
    start = f"| `{instrument.name}` | {instrument.kind} |"
    [line] = [line for line in PAGE.splitlines() if line.startswith(start)]
    _, _, _, labels, about, _ = (cell.strip() for cell in line.split("|"))
    assert re.findall(r"`(\w+)`", labels) == [*instrument.labels]
    assert about == instrument.help


def test_no_metric_is_documented_that_there_is_not() -> None:
    told = set(re.findall(r"^\| `(\w+)` \| (?:counter|gauge|histogram) \|", PAGE, re.MULTILINE))
    assert told == {instrument.name for instrument in INSTRUMENTS}
