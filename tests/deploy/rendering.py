"""What Helm makes of the chart."""

from __future__ import annotations

import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "whisper-serve"
# What lies over values.yaml, by its name.
VARIANTS = ("values.yaml", "values-cpu.yaml", "values-eks.yaml", "values-kind.yaml")
TIMEOUT_S = 60

Document = dict[str, Any]


def helm_program() -> str:
    """Skips the test where there is none."""
    beside = Path(sys.executable).with_name("helm")
    found = shutil.which("helm") or (str(beside) if beside.exists() else None)
    if found is None:
        pytest.skip("helm is neither on the PATH nor beside Python: make helm")
    return found


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [helm_program(), *arguments],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        cwd=ROOT,
    )


def template(variant: str, *settings: str) -> subprocess.CompletedProcess[str]:
    """`settings`: as `--set` takes them."""
    over = [part for setting in settings for part in ("--set", setting)]
    values = ["--values", str(CHART / variant)]
    return helm(
        "template", "whisper-serve", str(CHART), "--namespace", "whisper-serve", *values, *over
    )


@cache
def rendered(variant: str, *settings: str) -> tuple[Document, ...]:
    done = template(variant, *settings)
    assert done.returncode == 0, done.stderr
    return tuple(document for document in yaml.safe_load_all(done.stdout) if document)


def refusal(variant: str, *settings: str) -> str:
    """What Helm says of values that it does not take."""
    done = template(variant, *settings)
    assert done.returncode != 0
    return done.stderr


def of_kind(documents: tuple[Document, ...], kind: str) -> list[Document]:
    return [document for document in documents if document["kind"] == kind]


def ray_service(variant: str, *settings: str) -> Document:
    [service] = of_kind(rendered(variant, *settings), "RayService")
    return service


def ray_cluster(variant: str, *settings: str) -> Document:
    cluster: Document = ray_service(variant, *settings)["spec"]["rayClusterConfig"]
    return cluster


def groups(variant: str, *settings: str) -> dict[str, Document]:
    """All groups of pods by their names, the head's among them."""
    cluster = ray_cluster(variant, *settings)
    workers = {group["groupName"]: group for group in cluster["workerGroupSpecs"]}
    return {"head": cluster["headGroupSpec"], **workers}


def pods(variant: str, *settings: str) -> dict[str, Document]:
    """The template of each group's pods."""
    return {name: group["template"] for name, group in groups(variant, *settings).items()}
