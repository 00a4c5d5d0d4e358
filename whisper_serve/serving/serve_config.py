"""Faults of a Serve config file that Serve itself would not tell.

Serve's schemas ignore keys that they do not know, so what is misspelt, or was called otherwise in
an earlier version, does nothing and nobody hears of it. Here it is an error that names the right
key. A `RayService` of KubeRay holds such a file in `serveConfigV2`, and is read too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from ray.serve.config import AutoscalingPolicy
from ray.serve.schema import ServeDeploySchema

from whisper_serve.errors import ConfigError, ConfigProblem
from whisper_serve.serving.app import AppArguments

BUILDER = "whisper_serve.serving.app:build_app"
# What the application consists of; a test asks it.
DEPLOYMENTS = ("Ingress", "WhisperASR", "JobRunner")
# Called otherwise in earlier versions of Serve, or in files that were seen.
RENAMED = {
    "max_concurrent_queries": "max_ongoing_requests",
    "max_outgoing_requests": "max_ongoing_requests",
    "target_num_ongoing_requests_per_replica": "target_ongoing_requests",
    "target_outgoing_requests": "target_ongoing_requests",
}
# Of a dictionary that Serve reads as one of its models later.
MODELS: dict[tuple[str, ...], type[BaseModel]] = {
    ("applications", "autoscaling_policy"): AutoscalingPolicy
}
TIMEOUT = "it would end live sockets; requests have limits.request_timeout_s of config.json"

Place = tuple[str | int, ...]


def check_serve_config(path: Path) -> None:
    """Raises `ConfigError` with every fault of the file."""
    values = _read(path)
    problems = [*_unknown(values, ServeDeploySchema, ()), *_of_ours(values), *_invalid(values)]
    if problems:
        raise ConfigError(str(path), problems)


def _read(path: Path) -> dict[str, Any]:
    try:
        documents = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
        values = next(filter(None, map(_serve_config, documents)), None)
    except OSError as exc:
        raise _unusable(path, f"cannot be read: {exc.strerror}") from exc
    except (yaml.YAMLError, UnicodeDecodeError) as exc:
        raise _unusable(path, f"not YAML: {' '.join(str(exc).split())}") from exc
    if values is None:
        raise _unusable(path, "neither a Serve config nor a RayService is in it")
    return values


def _serve_config(document: object) -> dict[str, Any] | None:
    """What of a document is for Serve."""
    if not isinstance(document, dict):
        return None
    if "kind" not in document:
        return document
    if document["kind"] != "RayService":
        return None
    held = yaml.safe_load(document.get("spec", {}).get("serveConfigV2", ""))
    return held if isinstance(held, dict) else None


def _unusable(path: Path, reason: str) -> ConfigError:
    return ConfigError(str(path), [ConfigProblem("file", None, reason)])


def _unknown(
    values: Mapping[str, Any], model: type[BaseModel], place: Place
) -> Iterator[ConfigProblem]:
    """Keys that the model does not have, in all that is in it."""
    for key, value in values.items():
        here = (*place, key)
        field = model.model_fields.get(key)
        if field is None:
            yield ConfigProblem(_name(here), value, _instead(key, list(model.model_fields)))
            continue
        inner = _model_of(field.annotation) or MODELS.get(_path(here))
        for index, each in _parts(value):
            if inner is not None and isinstance(each, Mapping):
                yield from _unknown(each, inner, (*here, *index))


def _parts(value: object) -> list[tuple[Place, object]]:
    if isinstance(value, list):
        return [((index,), each) for index, each in enumerate(value)]
    return [((), value)]


def _model_of(annotation: object) -> type[BaseModel] | None:
    """The model in an annotation such as `list[Model]` or `dict | Model | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in {Union, UnionType, list}:
        return next(filter(None, map(_model_of, get_args(annotation))), None)
    return None


def _instead(key: str, known: Sequence[str]) -> str:
    if key in RENAMED:
        return f"unknown key; it is called {RENAMED[key]}"
    close = get_close_matches(key, known, n=1)
    like = f"; did you mean {close[0]}?" if close else f"; known: {', '.join(known)}"
    return f"unknown key{like}"


def _of_ours(values: Mapping[str, Any]) -> Iterator[ConfigProblem]:
    """What Serve takes and this application does not bear."""
    options = values.get("http_options")
    if isinstance(options, Mapping) and options.get("request_timeout_s") is not None:
        timeout_s = options["request_timeout_s"]
        yield ConfigProblem("http_options.request_timeout_s", timeout_s, TIMEOUT)
    for index, application in _parts(values.get("applications", [])):
        if isinstance(application, Mapping) and application.get("import_path") == BUILDER:
            yield from _of_our_application(application, ("applications", *index))


def _of_our_application(application: Mapping[str, Any], place: Place) -> Iterator[ConfigProblem]:
    if isinstance(arguments := application.get("args"), Mapping):
        yield from _unknown(arguments, AppArguments, (*place, "args"))
    for index, deployment in _parts(application.get("deployments", [])):
        name = deployment.get("name") if isinstance(deployment, Mapping) else None
        if name is not None and name not in DEPLOYMENTS:
            reason = f"there is none of this name; known: {', '.join(DEPLOYMENTS)}"
            yield ConfigProblem(_name((*place, "deployments", *index, "name")), name, reason)


def _invalid(values: Mapping[str, Any]) -> Iterator[ConfigProblem]:
    """What Serve refuses when it is told. Unknown keys are told already."""
    try:
        ServeDeploySchema.model_validate(values)
    except ValidationError as exc:
        for error in exc.errors():
            if error["type"] == "extra_forbidden":
                continue
            value = None if isinstance(error["input"], Mapping | list) else error["input"]
            yield ConfigProblem(_name(error["loc"]), value, error["msg"])
    except (ImportError, AttributeError) as exc:  # Serve looks at policies and routers right away
        yield ConfigProblem("applications", None, f"it names code that cannot be imported: {exc}")


def _path(place: Place) -> tuple[str, ...]:
    return tuple(part for part in place if isinstance(part, str))


def _name(place: Place) -> str:
    return ".".join(map(str, place)) or "file"
