"""The file of keys is read strictly and written whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from whisper_serve.config import KeyConfig
from whisper_serve.errors import ConfigError
from whisper_serve.keys.file import read_keys, write_keys
from whisper_serve.keys.making import digest_of

RADIO = KeyConfig(name="radio", sha256=digest_of("a"), scopes=("stream",), max_streams=2)
PRESS = KeyConfig(name="press", sha256=digest_of("b"), daily_audio_s=3600.0)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    for keys in ((RADIO, PRESS), (), (PRESS,)):
        write_keys(file, keys)
        assert read_keys(file) == keys
    assert list(tmp_path.iterdir()) == [file]


def test_a_new_file_is_for_its_owner_and_an_old_one_stays_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    write_keys(file, [RADIO])
    assert file.stat().st_mode & 0o777 == 0o600
    file.chmod(0o644)
    write_keys(file, [PRESS])
    assert file.stat().st_mode & 0o777 == 0o644


def test_limits_that_there_are_not_are_not_written(tmp_path: Path) -> None:
    write_keys(tmp_path / "keys.json", [RADIO])
    [entry] = json.loads((tmp_path / "keys.json").read_text())
    assert set(entry) == {"name", "sha256", "scopes", "max_streams"}


WHOLE = {"name": "radio", "sha256": digest_of("a")}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "not JSON"),
        ("[1", "not JSON"),
        ({}, "must be a list"),
        ([{"name": "radio"}], "auth.keys.0.sha256"),
        ([{"sha256": digest_of("a")}], "auth.keys.0.name"),
        ([{**WHOLE, "sha256": "ABC"}], "auth.keys.0.sha256"),
        ([{**WHOLE, "name": "a b"}], "auth.keys.0.name"),
        ([{**WHOLE, "name": "anyone"}], "without a key"),
        (
            [{**WHOLE, "scope": []}],
            "auth.keys.0.scope: [] is not allowed: unknown key; known: name, sha256, scopes",
        ),
        ([WHOLE, {**WHOLE, "sha256": digest_of("b"), "max_streams": 0}], "auth.keys.1.max_streams"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, content: object, said: str) -> None:
    file = tmp_path / "keys.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ConfigError) as refused:
        read_keys(file)
    assert said in str(refused.value)
    assert str(file) in str(refused.value)


def test_a_key_in_the_wrong_place_is_not_repeated(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_text('[{"name": "radio", "sha256": "wsk_secret"}]')
    with pytest.raises(ConfigError) as refused:
        read_keys(file)
    assert "wsk_secret" not in str(refused.value)


def test_one_key_has_one_entry(tmp_path: Path) -> None:
    again: dict[str, Any] = {"name": "again", "sha256": RADIO.sha256}
    file = tmp_path / "keys.json"
    file.write_text(json.dumps([{"name": "radio", "sha256": RADIO.sha256}, again]))
    with pytest.raises(ConfigError, match="several entries: radio, again"):
        read_keys(file)


def test_a_place_that_cannot_be_read_or_written_is_told(tmp_path: Path) -> None:
    nowhere = tmp_path / "none" / "keys.json"
    with pytest.raises(ConfigError, match="cannot be read"):
        read_keys(nowhere)
    with pytest.raises(ConfigError, match="cannot be written"):
        write_keys(nowhere, [RADIO])
