"""The metrics of many processes as one text, as Prometheus reads it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from typing import NamedTuple

from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector


class Snapshot(NamedTuple):
    """What one replica of a deployment told at one time."""

    deployment: str
    replica: str
    families: Sequence[Metric]

    def labelled(self) -> Iterator[Metric]:
        """Its metrics, each with the labels `deployment` and `replica`."""
        place = {"deployment": self.deployment, "replica": self.replica}
        for family in self.families:
            ours = copy(family)
            ours.samples = [s._replace(labels={**s.labels, **place}) for s in family.samples]
            yield ours


def merged(families: Iterable[Metric]) -> list[Metric]:
    """One family for each name, since a text may tell of each only once; those without samples
    are left out."""
    together: dict[str, Metric] = {}
    for family in families:
        if not family.samples:
            continue
        if (known := together.get(family.name)) is None:
            together[family.name] = known = copy(family)
            known.samples = []
        known.samples.extend(family.samples)
    return list(together.values())


def exposed(families: Sequence[Metric], accept: str) -> tuple[bytes, str]:
    """The text in the format that an `Accept` header prefers, OpenMetrics or Prometheus' own,
    and its Content-Type."""
    encode, content_type = choose_encoder(accept)
    return encode(_Families(families)), content_type


class _Families(Collector):
    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Sequence[Metric]:
        return self._families
