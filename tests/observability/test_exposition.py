from __future__ import annotations

from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_prometheus

from whisper_serve.observability.exposition import Snapshot, exposed, merged
from whisper_serve.observability.metrics import Answered, Metrics, Reading

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def snapshot(deployment: str, replica: str, windows: int) -> Snapshot:
    metrics = Metrics()
    metrics.read(lambda: [Reading("windows_waiting", windows)])
    for _ in range(windows):
        metrics.window_answered(Answered("file", 1.0, 0.0, 0.1, 0.1))
    return Snapshot(deployment, replica, metrics.collect())


SNAPSHOTS = [snapshot("WhisperASR", "ab12", 1), snapshot("WhisperASR", "cd34", 2)]
TOGETHER = merged(family for one in SNAPSHOTS for family in one.labelled())


def test_each_replica_keeps_its_own_series() -> None:
    [windows] = [family for family in TOGETHER if family.name == "whisper_serve_windows"]
    assert {(s.labels["replica"], s.value) for s in windows.samples} == {("ab12", 1), ("cd34", 2)}
    assert {s.labels["deployment"] for s in windows.samples} == {"WhisperASR"}
    assert windows.samples[0].labels.keys() >= {"lane", "outcome"}


def test_a_name_is_told_of_once() -> None:
    names = [family.name for family in TOGETHER]
    assert len(set(names)) == len(names)


def test_the_parts_stay_as_they_were() -> None:
    again = merged(family for one in SNAPSHOTS for family in one.labelled())
    assert again == TOGETHER
    [waiting] = [f for f in SNAPSHOTS[0].families if f.name == "whisper_serve_windows_waiting"]
    assert waiting.samples[0].labels == {}


def test_what_has_no_samples_is_not_told() -> None:
    assert "whisper_serve_webhooks" not in {family.name for family in TOGETHER}


def test_prometheus_reads_it_back() -> None:
    text, content_type = exposed(TOGETHER, "")
    assert content_type.startswith("text/plain; version=0.0.4")
    read = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parse_prometheus(text.decode())
        for sample in family.samples
    }
    told = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in TOGETHER
        for sample in family.samples
    }
    assert read == told


def test_openmetrics_is_read_back_by_its_strict_parser() -> None:
    text, content_type = exposed(TOGETHER, OPENMETRICS)
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    assert text.endswith(b"# EOF\n")
    families = parse_openmetrics(text.decode())  # type: ignore[no-untyped-call]
    names = {family.name for family in families}
    assert names == {family.name for family in TOGETHER}
