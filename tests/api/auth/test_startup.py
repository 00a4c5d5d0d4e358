"""A service that nobody or everybody could use says so before it starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.api.auth.holders import RADIO, entry
from tests.api.fakes import Lines
from whisper_serve.api.auth.startup import is_loopback, require_keys
from whisper_serve.config import Config
from whisper_serve.errors import ConfigError


def test_without_keys_a_service_does_not_start() -> None:
    with pytest.raises(ConfigError) as refused:
        require_keys(Config())
    told = str(refused.value)
    assert "whisper-serve keys new" in told
    assert "auth.open" in told
    assert "\n" not in told


@pytest.mark.parametrize(
    "auth",
    [{"open": True}, {"keys": [entry("radio", RADIO)]}, {"keys_file": Path("keys.json")}],
)
def test_with_keys_or_open_it_does(auth: dict[str, Any], lines: Lines) -> None:
    require_keys(Config.model_validate({"auth": auth}))
    assert lines.messages == []


ALL = "0.0.0.0"  # noqa: S104 - only compared with


@pytest.mark.parametrize("host", [ALL, "::", "192.0.2.1", "speech.example"])
def test_being_open_to_other_machines_is_told(host: str, lines: Lines) -> None:
    require_keys(Config.model_validate({"auth": {"open": True}, "server": {"host": host}}))
    [line] = lines.messages
    assert host in line


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost", True),
        (ALL, False),
        ("10.0.0.1", False),
        ("localhost.example", False),
    ],
)
def test_what_only_this_machine_reaches(host: str, own: bool) -> None:
    assert is_loopback(host) is own
