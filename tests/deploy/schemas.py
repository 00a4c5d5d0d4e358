"""Manifests against the schemas of the kinds that they are of, and no key beyond."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from jsonschema import Draft202012Validator

from tests.deploy.rendering import ROOT, Document

# Karpenter's and KubeRay's custom resources: data that is not part of the project.
FOLDER = Path(os.environ.get("WHISPER_SERVE_TEST_SCHEMAS", ROOT.parent / "shared" / "schemas"))
FILES = {
    "RayService": "ray.io_rayservices.yaml",
    "NodePool": "karpenter.sh_nodepools.yaml",
    "EC2NodeClass": "karpenter.k8s.aws_ec2nodeclasses.yaml",
}
KUBERNETES = "1.34"


def faults(document: Document) -> list[str]:
    """Of a custom resource, as `place: what`. Skips the test where its schema is not here."""
    validator = _validator(document["kind"], document["apiVersion"].partition("/")[2])
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)]


@cache
def _validator(kind: str, version: str) -> Draft202012Validator:
    path = FOLDER / FILES[kind]
    if not path.exists():
        pytest.skip(f"the schema of {kind} is not here")
    definition = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    [schema] = [
        each["schema"]["openAPIV3Schema"]
        for each in definition["spec"]["versions"]
        if each["name"] == version
    ]
    return Draft202012Validator(closed(schema, is_root=True))


def closed(schema: Any, *, is_root: bool = False) -> Any:
    """The schema, with keys that it does not name refused wherever it does not allow for more. The
    API server drops them without a word."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {key: closed(value) for key, value in schema.items()}
    if is_root:  # `metadata` is Kubernetes' own
        inner["properties"] = {**inner["properties"], "metadata": {"type": "object"}}
    is_open = "additionalProperties" in schema or schema.get("x-kubernetes-preserve-unknown-fields")
    if isinstance(schema.get("properties"), dict) and "type" in schema and not is_open:
        inner["additionalProperties"] = False
    return inner


def validate(document: Document) -> None:
    """One of Kubernetes' own kinds. Raises `kubernetes_validate.ValidationError`."""
    kubernetes_validate.validate(document, KUBERNETES, strict=True)
