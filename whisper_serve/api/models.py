"""The models that requests may choose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from whisper_serve.config import Config, model_names
from whisper_serve.errors import ModelNotFound


class ServedModels:
    """Names of models, as clients write them, to those that are configured."""

    def __init__(self, config: Config) -> None:
        called = {listing: model_names(listing) for listing in (config.model.size, *config.models)}
        self._default = called[config.model.size][0]
        self._further = {called[listing][0]: listing for listing in config.models}
        self._resolved = {name: names[0] for names in called.values() for name in names}

    @property
    def names(self) -> Sequence[str]:
        """What is served, the default model first."""
        return self._default, *self._further

    @property
    def further(self) -> Mapping[str, str]:
        """All but the default model: by their names, as they are listed."""
        return self._further

    def resolve(self, name: str) -> str:
        """The name for a `DecodeTask`, empty for the default model. Raises `ModelNotFound`."""
        found = self._resolved.get(name.strip() or self._default)
        if found is None:
            raise ModelNotFound(name, self.names)
        return "" if found == self._default else found
