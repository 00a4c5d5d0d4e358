"""Looking for what was measured among all that a process tells."""

from __future__ import annotations

from prometheus_client.metrics_core import Metric


def value_of(families: list[Metric], name: str, **labels: str) -> float:
    """The one sample of this name and these labels."""
    [value] = [
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == f"whisper_serve_{name}" and labels.items() <= sample.labels.items()
    ]
    return value


def names_of(families: list[Metric]) -> set[str]:
    return {sample.name for family in families for sample in family.samples}
