"""The guide names what there is, and reckons right."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from tests.deploy.rendering import CHART, ROOT, groups
from whisper_serve.serving.cluster import CLUSTER_ENVIRONMENT

TEXT = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
EKS = "values-eks.yaml"


def rows(heading: str) -> list[list[str]]:
    """The cells of the table whose head begins so."""
    lines = TEXT[TEXT.index(f"| {heading}") :].split("\n\n", 1)[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def value_at(values: Any, path: str) -> Any:
    for part in path.split("."):
        values = values[part]
    return values


VALUES = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
# With an arrow to where config.md lists them.
NAMED = [
    (name, row[1])
    for row in rows("value | default")[2:]
    for name in re.findall(r"`([\w.]+)`", row[0])
]


@pytest.mark.parametrize(("name", "default"), NAMED, ids=[name for name, _ in NAMED])
def test_a_value_of_the_guide_is_one_of_the_chart(name: str, default: str) -> None:
    value = value_at(VALUES, name)
    if default == "off":
        assert value["enabled"] is False
    elif re.fullmatch(r"`[^`]*`", default) and not isinstance(value, dict):
        assert str(value) == default.strip("`")


PARTS = "helm|kuberay|karpenter|monitoring|scripts|serve"
FILES = re.findall(rf"\bdeploy/(?:{PARTS})[\w./-]*\w", TEXT)


@pytest.mark.parametrize("path", sorted(set(FILES)))
def test_a_file_of_the_guide_is_there(path: str) -> None:
    assert (ROOT / path).exists()


def test_a_stream_costs_what_the_formula_says() -> None:
    price = {row[0].split()[0]: float(row[2]) for row in rows("machine | for")[2:]}
    [front] = [row[2] for row in rows("machine | for")[2:] if row[0] == "m7i.xlarge"]
    (_, *machines), _, *lines = rows("assumed streams")
    for streams, *cells in lines:
        for machine, cell in zip(machines, cells, strict=True):
            cents = 100 * (price[machine] / (int(streams) * 0.6) + float(front) / (72 * 0.6))
            assert float(cell) == pytest.approx(cents, abs=0.005)


def test_a_front_has_the_streams_that_the_guide_reckons_with() -> None:
    values = yaml.safe_load((CHART / EKS).read_text(encoding="utf-8"))
    each = value_at(values, "config.autoscaling.streams_per_ingress")
    assert int(groups(EKS)["front"]["rayStartParams"]["num-cpus"]) * each == 72


def test_what_ray_has_to_find_is_told() -> None:
    exported = set(re.findall(r"\b(RAY_\w+)=", TEXT)) - {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN"}
    assert exported == CLUSTER_ENVIRONMENT.keys()
    for name, value in CLUSTER_ENVIRONMENT.items():
        assert f"{name}={value}" in TEXT
