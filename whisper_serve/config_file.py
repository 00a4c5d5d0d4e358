"""Reading `config.json`, and what the environment lays over it.

Unknown keys and impossible values are errors that name the key, the value and what is allowed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel, SecretStr, ValidationError

from whisper_serve.config import Config, Section
from whisper_serve.engines.catalog import known_model
from whisper_serve.errors import ConfigError, ConfigProblem

DEFAULT_PATH = Path("config.json")
ENV_PREFIX = "WHISPER_SERVE__"
ENV_SHORT = {"WHISPER_MODEL_SIZE": ("model", "size"), "WHISPER_PORT": ("server", "port")}

# Settings of these types take any text, so that `8000` or `true` is text there too.
TEXT_TYPES: tuple[object, ...] = (str, str | None, Path, Path | None, SecretStr | None)
# Their values are never told, not even in errors: what stands in one by mistake may be a secret.
SECRETS = {"database", "webhook_secret", "signing_key", "sha256"}


def load_config(path: Path | None, environ: Mapping[str, str]) -> Config:
    """Read `path`, lay the environment over it and check the result.

    Without a path, `config.json` of the working directory is read if there is one, and else
    the defaults hold. Relative paths are made absolute against the file's folder (against
    the working directory without a file); `model.size` and `models` are, when they are no known
    models and there is something at that path, and `jobs.database` unless it is a URL.
    Raises `ConfigError`.
    """
    if path is None and DEFAULT_PATH.exists():
        path = DEFAULT_PATH
    origin = str(path) if path else "defaults"
    values = _read(path) if path else {}
    overrides = list(_overrides(environ))
    if overrides:
        origin += " and environment"
    for keys, text in overrides:
        _set(values, keys, text, origin)
    return _anchored(checked(values, origin), path.resolve().parent if path else Path.cwd())


def checked(values: Mapping[str, Any], origin: str) -> Config:
    """The configuration that `values` of JSON are. Raises `ConfigError`."""
    try:
        # Strict, so that `true` is no number and "no" is no boolean.
        return Config.model_validate_json(json.dumps(values), strict=True)
    except ValidationError as exc:
        raise ConfigError(origin, _problems(exc.errors())) from exc


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as exc:
        raise _unusable(path, f"cannot be read: {exc.strerror}") from exc
    except json.JSONDecodeError as exc:
        where = f"line {exc.lineno}, column {exc.colno}"
        raise _unusable(path, f"not JSON: {exc.msg} in {where}") from exc
    except ValueError as exc:  # no UTF-8, or a number of thousands of digits
        raise _unusable(path, f"not JSON: {exc}") from exc
    if not isinstance(values, dict):
        raise _unusable(path, "the outermost value must be an object")
    return values


def _unusable(path: Path, reason: str) -> ConfigError:
    return ConfigError(str(path), [ConfigProblem("file", None, reason)])


def _overrides(environ: Mapping[str, str]) -> Sequence[tuple[tuple[str, ...], str]]:
    short = [(keys, environ[name]) for name, keys in ENV_SHORT.items() if name in environ]
    long = [
        (tuple(name[len(ENV_PREFIX) :].lower().split("__")), text)
        for name, text in sorted(environ.items())
        if name.startswith(ENV_PREFIX)
    ]
    return [*short, *long]


def _set(values: dict[str, Any], keys: tuple[str, ...], text: str, origin: str) -> None:
    section: object = values
    for key in keys[:-1]:
        section = section.setdefault(key, {}) if isinstance(section, dict) else None
        if not isinstance(section, dict):
            problem = ConfigProblem(".".join(keys), text, f"{key!r} is not a section")
            raise ConfigError(origin, [problem])
    assert isinstance(section, dict)
    section[keys[-1]] = _parse(text, keys)


def _parse(text: str, keys: Sequence[str]) -> object:
    """Lists, numbers, booleans and null as JSON, all else as it stands."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    keep_text = value is not None and not isinstance(value, str) and _type_of(keys) in TEXT_TYPES
    return text if keep_text else value


def _type_of(keys: Sequence[str]) -> object:
    """The type of a setting; None when there is no such setting."""
    model: object = Config
    for key in keys:
        fields = model.model_fields if isinstance(model, type(BaseModel)) else {}
        item = get_args(model)[0] if get_origin(model) is tuple and key.isdigit() else None
        model = fields[key].annotation if key in fields else item
    return model


def _problems(errors: Iterable[Mapping[str, Any]]) -> list[ConfigProblem]:
    """One problem a key; a setting that may be of two types has a reason for each."""
    problems: dict[str, ConfigProblem] = {}
    for error in errors:
        problem = _problem(error)
        if (earlier := problems.get(problem.key)) is not None:
            problem = problem._replace(reason=f"{earlier.reason}, or {problem.reason}")
        problems[problem.key] = problem
    return list(problems.values())


def _problem(error: Mapping[str, Any]) -> ConfigProblem:
    # Section, key and place in a list; for a union pydantic adds which member it tried.
    place = error["loc"]
    keys = [str(part) for index, part in enumerate(place) if _is_key(place, index)]
    value, reason = error["input"], error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        reason = f"unknown key; known: {_known(keys[:-1])}"
    elif error["type"] == "value_error" and isinstance(value, dict):
        key, _, reason = reason.partition(": ")  # raised by a section about one of its keys
        value = value.get(key)
        keys.append(key)
    if SECRETS & set(keys):
        value = None  # what is printed may be read by anybody
    return ConfigProblem(".".join(keys), value, reason)


def _is_key(place: Sequence[int | str], index: int) -> bool:
    is_field = index < 2 or isinstance(place[index - 1], int)
    return is_field or isinstance(place[index], int)


def _known(section: Sequence[str]) -> str:
    model = _type_of(section)
    assert isinstance(model, type(BaseModel))
    return ", ".join(model.model_fields)


def _anchored(config: Config, base: Path) -> Config:
    sections = {
        name: _anchored_section(value, base) for name, value in config if isinstance(value, Section)
    }
    size = _anchored_model(config.model.size, base)
    sections["model"] = sections["model"].model_copy(update={"size": size})
    models = tuple(_anchored_model(listing, base) for listing in config.models)
    database = _anchored_database(config.jobs.database, base)
    sections["jobs"] = sections["jobs"].model_copy(update={"database": database})
    return config.model_copy(update={**sections, "models": models})


def _anchored_section(section: Section, base: Path) -> Section:
    paths = {name: base / value for name, value in section if isinstance(value, Path)}
    return section.model_copy(update=paths)


def _anchored_database(database: str | None, base: Path) -> str | None:
    return database if database is None or "://" in database else str(base / database)


def _anchored_model(listing: str, base: Path) -> str:
    is_path = known_model(listing) is None and (base / listing).exists()
    return str(base / listing) if is_path else listing
