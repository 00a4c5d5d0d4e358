"""The file of keys: a JSON list of entries, which hold digests and no keys."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from whisper_serve.config import KeyConfig
from whisper_serve.config_file import checked
from whisper_serve.errors import ConfigError, ConfigProblem


def read_keys(file: Path) -> tuple[KeyConfig, ...]:
    """Raises `ConfigError`."""
    try:
        entries = json.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as exc:
        raise _unusable(file, f"cannot be read: {exc.strerror}") from exc
    except ValueError as exc:
        raise _unusable(file, f"not JSON: {exc}") from exc
    if not isinstance(entries, list):
        raise _unusable(file, "the outermost value must be a list")
    return checked({"auth": {"keys": entries}}, str(file)).auth.keys


def write_keys(file: Path, keys: Sequence[KeyConfig]) -> None:
    """In one step, so that nobody reads half a file; a new file is for its owner alone. Raises
    `ConfigError`."""
    text = json.dumps([entry_of(key) for key in keys], indent=2) + "\n"
    try:
        handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
        with os.fdopen(handle, "w", encoding="utf-8") as written:
            written.write(text)
        if file.exists():
            shutil.copymode(file, name)
        Path(name).replace(file)
    except OSError as exc:
        raise _unusable(file, f"cannot be written: {exc.strerror}") from exc


def entry_of(key: KeyConfig) -> dict[str, object]:
    """As it is written: without limits that there are not."""
    return key.model_dump(mode="json", exclude_none=True)


def require_distinct(keys: Iterable[KeyConfig], origin: str) -> None:
    """Raises `ConfigError` when one key has several entries."""
    checked({"auth": {"keys": [entry_of(key) for key in keys]}}, origin)


def _unusable(file: Path, reason: str) -> ConfigError:
    return ConfigError(str(file), [ConfigProblem("auth.keys_file", None, reason)])
