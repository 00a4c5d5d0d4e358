"""`whisper-serve keys`: make, list and revoke keys."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from whisper_serve.config import Config, KeyConfig
from whisper_serve.config_file import checked, load_config
from whisper_serve.errors import ConfigError, ConfigProblem
from whisper_serve.keys.file import entry_of, read_keys, write_keys
from whisper_serve.keys.making import digest_of, new_key

# Of a digest, enough to tell keys apart.
SHOWN_CHARS = 12
LIMITS = ("requests_per_minute", "max_streams", "daily_audio_s")


def new(options: argparse.Namespace) -> int:
    """Print a key, once; its entry goes to the file of keys, or beside it without one."""
    key = new_key()
    entry = _entry(options, key)
    file = _file(options)
    if file is None:
        _say("put this into `auth.keys`; the key itself is kept nowhere")
        _say(json.dumps(entry_of(entry)))
    else:
        known = read_keys(file) if file.exists() else ()
        write_keys(file, [*known, entry])
        _say(f"added to {file}; the key itself is kept nowhere")
    print(key)  # noqa: T201
    return 0


def show(options: argparse.Namespace) -> int:
    """Print the keys of the configuration and of its file, without what opens anything."""
    for key in _known(options):
        limits = {name: getattr(key, name) for name in LIMITS}
        told = [f"{name}={value:g}" for name, value in limits.items() if value is not None]
        facts = " ".join((*key.scopes, *told))
        print(f"{key.name:24} {key.sha256[:SHOWN_CHARS]}  {facts}")  # noqa: T201
    return 0


def revoke(options: argparse.Namespace) -> int:
    """Take the keys of a name out of the file, or the one with a digest that begins so."""
    file = _file(options)
    if file is None:
        raise _refused("auth.keys_file", "there is none; take the key out of auth.keys yourself")
    known = read_keys(file)
    gone = [key for key in known if _is_meant(key, options)]
    if not gone:
        raise _refused("name", f"no such key in {file}")
    write_keys(file, [key for key in known if key not in gone])
    for key in gone:
        _say(f"revoked {key.name} {key.sha256[:SHOWN_CHARS]}")
    return 0


def _is_meant(key: KeyConfig, options: argparse.Namespace) -> bool:
    return key.name == options.name and key.sha256.startswith(options.sha256 or "")


def _entry(options: argparse.Namespace, key: str) -> KeyConfig:
    values = {"name": options.name, "sha256": digest_of(key)}
    chosen = {name: getattr(options, name) for name in ("scopes", *LIMITS)}
    values |= {name: value for name, value in chosen.items() if value is not None}
    return checked({"auth": {"keys": [values]}}, "command line").auth.keys[0]


def _known(options: argparse.Namespace) -> tuple[KeyConfig, ...]:
    file = _file(options)
    of_file = read_keys(file) if file is not None and file.exists() else ()
    return (*_config(options).auth.keys, *of_file)


def _file(options: argparse.Namespace) -> Path | None:
    file: Path | None = options.file
    return file or _config(options).auth.keys_file


def _config(options: argparse.Namespace) -> Config:
    return load_config(options.config, os.environ)


def _refused(key: str, reason: str) -> ConfigError:
    return ConfigError("keys", [ConfigProblem(key, None, reason)])


def _say(text: str) -> None:
    print(text, file=sys.stderr)  # noqa: T201
