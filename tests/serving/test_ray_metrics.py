from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from whisper_serve.observability.exposition import Snapshot
from whisper_serve.observability.metrics import Answered, Metrics, Reading
from whisper_serve.serving.ray_metrics import RayMirror

WINDOW = Answered("file", audio_s=1.0, queued_s=0.0, encoded_s=0.1, decoded_s=0.1)


@dataclass
class FakeRay:
    """Keeps the last value of each series, as Ray does, and refuses labels that a gauge was not
    made with."""

    values: dict[tuple[str, frozenset[str]], float] = field(default_factory=dict)
    made: list[str] = field(default_factory=list)

    def gauge(self, name: str, keys: tuple[str, ...]) -> FakeGauge:
        self.made.append(name)
        return FakeGauge(self, name, keys)

    def value_of(self, name: str, *labels: str) -> float:
        [value] = [v for (n, found), v in self.values.items() if n == name and {*labels} <= found]
        return value


@dataclass
class FakeGauge:
    ray: FakeRay
    name: str
    keys: tuple[str, ...]

    def set(self, value: float, tags: Mapping[str, str]) -> None:
        assert set(tags) == set(self.keys)
        self.ray.values[self.name, frozenset(tags.values())] = value


def mirror(metrics: Metrics, ray: FakeRay) -> RayMirror:
    return RayMirror(lambda: Snapshot("WhisperASR", "ab12", metrics.collect()), ray.gauge)


def test_every_series_is_told_under_its_own_name() -> None:
    metrics, ray = Metrics(), FakeRay()
    metrics.window_answered(WINDOW)
    mirror(metrics, ray).copy()
    place = ("WhisperASR", "ab12")
    assert ray.value_of("whisper_serve_windows_total", "file", "ok", *place) == 1
    assert ray.value_of("whisper_serve_decode_seconds_bucket", "file", "+Inf", *place) == 1
    assert ray.value_of("whisper_serve_decode_seconds_sum", "file", *place) == 0.1


def test_what_changes_is_told_anew() -> None:
    metrics, ray = Metrics(), FakeRay()
    copies = mirror(metrics, ray)
    for count in (1, 2):
        metrics.window_answered(WINDOW)
        copies.copy()
        assert ray.value_of("whisper_serve_windows_total", "ok") == count
    assert len(set(ray.made)) == len(ray.made)


def test_a_series_that_has_ended_is_nothing_and_not_what_it_was() -> None:
    metrics, ray = Metrics(), FakeRay()
    models = ["base", "tiny.en"]
    metrics.read(lambda: [Reading("engine_info", 1, ("x", model, "cpu", "y")) for model in models])
    copies = mirror(metrics, ray)
    copies.copy()
    models.remove("tiny.en")
    copies.copy()
    assert ray.value_of("whisper_serve_engine_info", "base") == 1
    assert ray.value_of("whisper_serve_engine_info", "tiny.en") == 0
