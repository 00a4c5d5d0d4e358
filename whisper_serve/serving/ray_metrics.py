"""The metrics of a replica told through Ray's own exporter too.

Where Ray is operated with Prometheus already, every node's exporter is scraped, and what a
process records with `ray.util.metrics` is there with `ray_` before its name. All series are
copied as they are, also counters and the buckets of histograms, as gauges: so their names and
values are those of `/metrics`, and the same queries work.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from ray.util.metrics import Gauge

from whisper_serve.observability.exposition import Snapshot

logger = logging.getLogger(__name__)

# Ray reports every ten seconds, unless told otherwise.
EVERY_S = 5.0

# A gauge of Ray, or what has its `set`.
MakeGauge = Callable[[str, tuple[str, ...]], Any]
Series = tuple[str, tuple[tuple[str, str], ...]]


class RayMirror:
    """Copies what `take` gives, every few seconds in a thread of its own. `make_gauge` is given
    a name and the keys of its labels."""

    def __init__(self, take: Callable[[], Snapshot], make_gauge: MakeGauge | None = None) -> None:
        self._take = take
        self._make_gauge = make_gauge or _ray_gauge
        self._gauges: dict[str, Any] = {}
        self._told: set[Series] = set()
        self._stopped = threading.Event()

    def start(self) -> None:
        threading.Thread(target=self._run, name="ray-metrics", daemon=True).start()

    def stop(self) -> None:
        self._stopped.set()

    def copy(self) -> None:
        values = {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in self._take().labelled()
            for sample in family.samples
        }
        # Ray tells the last value for ever: a model that has left must not stay.
        gone = dict.fromkeys(self._told - values.keys(), 0.0)
        for (name, labels), value in {**values, **gone}.items():
            self._gauge(name, labels).set(value, dict(labels))
        self._told = set(values)

    def _gauge(self, name: str, labels: tuple[tuple[str, str], ...]) -> Any:
        if (gauge := self._gauges.get(name)) is None:
            keys = tuple(key for key, _ in labels)
            gauge = self._gauges[name] = self._make_gauge(name, keys)
        return gauge

    def _run(self) -> None:
        while not self._stopped.wait(EVERY_S):
            self._try()

    def _try(self) -> None:
        try:
            self.copy()
        except Exception:
            logger.exception("metrics could not be told through Ray")


def _ray_gauge(name: str, keys: tuple[str, ...]) -> Gauge:
    return Gauge(name, "as in /metrics", tag_keys=keys)
