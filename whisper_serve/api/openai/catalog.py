"""The names of models that OpenAI's clients may use."""

from __future__ import annotations

from collections.abc import Sequence

from whisper_serve.api.services import Services
from whisper_serve.errors import ModelNotFound


class Catalog:
    """What is served, and the names of OpenAI's models that stand for the default model."""

    def __init__(self, services: Services) -> None:
        self._served = services.models
        self._stand_ins = services.config.openai.model_names

    @property
    def names(self) -> Sequence[str]:
        """The default model first, each name once."""
        return tuple(dict.fromkeys([*self._served.names, *self._stand_ins]))

    def resolve(self, name: str) -> str:
        """The name for a `DecodeTask`, empty for the default model. Raises `ModelNotFound`."""
        try:
            return self._served.resolve(name)
        except ModelNotFound as exc:
            if name.strip() in self._stand_ins:
                return ""
            raise ModelNotFound(name, self.names) from exc
