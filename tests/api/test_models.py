from __future__ import annotations

from typing import Any

import pytest

from whisper_serve.api.models import ServedModels
from whisper_serve.config import Config
from whisper_serve.errors import ModelNotFound


def served(size: str, *models: str) -> ServedModels:
    settings: dict[str, Any] = {"model": {"size": size}, "models": models}
    return ServedModels(Config.model_validate(settings))


def test_the_default_model_comes_first() -> None:
    assert served("base", "tiny.en", "/models/tuned.pt").names == ("base", "tiny.en", "tuned")


def test_models_are_named_as_in_the_catalog_or_as_their_file() -> None:
    assert served("turbo", "large", "mine", "folder/it").names == (
        *("large-v3-turbo", "large-v3"),
        *("mine", "it"),
    )


@pytest.mark.parametrize("name", ["", " ", "large-v3", "large", " large "])
def test_the_default_model_has_the_empty_name_in_tasks(name: str) -> None:
    assert served("large-v3", "base").resolve(name) == ""


@pytest.mark.parametrize(
    ("asked", "found"),
    [("tiny.en", "tiny.en"), ("turbo", "large-v3-turbo"), ("tuned", "tuned"), (" tuned ", "tuned")],
)
def test_a_model_is_asked_for_by_its_name_or_an_alias(asked: str, found: str) -> None:
    models = served("base", "tiny.en", "large-v3-turbo", "/models/tuned.pt")
    assert models.resolve(asked) == found


@pytest.mark.parametrize(
    "name", ["small", "BASE", "/models/tuned.pt", "tuned.pt", "x/tuned", "../tuned"]
)
def test_what_is_not_served_is_not_found(name: str) -> None:
    models = served("base", "/models/tuned.pt")
    with pytest.raises(ModelNotFound) as caught:
        models.resolve(name)
    assert str(caught.value) == f"the model {name!r} is not served here; served: base, tuned"


def test_further_models_are_told_as_they_are_listed() -> None:
    models = served("base", "large", "/models/tuned.pt")
    assert models.further == {"large-v3": "large", "tuned": "/models/tuned.pt"}
