"""Deepgram's names of models, and what is served under them."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from whisper_serve.api.models import ServedModels
from whisper_serve.errors import ModelNotFound

PREFIX = "whisper-"


def chosen_model(name: str, served: ServedModels, defaults: Sequence[str]) -> str:
    """The name for a `DecodeTask`, empty for the default model.

    A served model's own name counts first, then `whisper-` and its name, then `defaults`: patterns
    of names that stand for the default model. Raises `ModelNotFound`.
    """
    for candidate in (name, name.removeprefix(PREFIX) or name):
        if (found := _resolved(candidate, served)) is not None:
            return found
    if any(fnmatchcase(name.lower(), pattern.lower()) for pattern in defaults):
        return ""
    raise ModelNotFound(name, served.names)


def _resolved(name: str, served: ServedModels) -> str | None:
    try:
        return served.resolve(name)
    except ModelNotFound:
        return None
