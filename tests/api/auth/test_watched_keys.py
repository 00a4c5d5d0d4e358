"""A file of keys is read again when it changes, and a broken one changes nothing."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.api.auth.holders import RADIO, STREAMER, entry
from tests.api.fakes import Lines
from whisper_serve.api.auth.watched_keys import WatchedKeys
from whisper_serve.config import AuthConfig, KeyConfig
from whisper_serve.errors import ConfigError


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class KeysFile:
    """A file of keys, and the clock of who watches it."""

    def __init__(self, path: Path) -> None:
        self.path, self.clock, self._writes = path, Clock(), 0
        self.write([entry("radio", RADIO)])

    def write(self, entries: list[Any] | str) -> None:
        text = entries if isinstance(entries, str) else json.dumps(entries)
        self.path.write_text(text)
        # Two writes may fall into one tick of the file system's clock.
        self._writes += 1
        os.utime(self.path, ns=(self._writes, self._writes))

    def watched(self, *keys: KeyConfig) -> WatchedKeys:
        auth = AuthConfig(keys=keys, keys_file=self.path)
        return WatchedKeys(auth, check_every_s=5.0, now=self.clock)


@pytest.fixture
def file(tmp_path: Path) -> KeysFile:
    return KeysFile(tmp_path / "keys.json")


async def knows(watched: WatchedKeys, shown: str) -> bool:
    return (await watched.keyring()).find(shown) is not None


async def test_a_key_that_is_taken_out_opens_nothing_after_five_seconds(file: KeysFile) -> None:
    watched = file.watched()
    file.write([entry("streamer", STREAMER)])
    file.clock.now += 4.9
    assert await knows(watched, RADIO)
    file.clock.now += 0.1
    assert not await knows(watched, RADIO)
    assert await knows(watched, STREAMER)


async def test_it_counts_from_the_last_look_whoever_comes_at_once(file: KeysFile) -> None:
    watched = file.watched()
    file.write([])
    file.clock.now += 3600.0
    assert await asyncio.gather(*(knows(watched, RADIO) for _ in range(20))) == [False] * 20


@pytest.mark.parametrize("broken", ["", "[", "{}", '[{"name": "radio"}]', '[{"nme": 1}]'])
async def test_a_broken_file_keeps_the_keys_and_is_told_once(
    file: KeysFile, broken: str, lines: Lines
) -> None:
    watched = file.watched()
    file.write(broken)
    for _ in range(3):
        file.clock.now += 5.0
        assert await knows(watched, RADIO)
    [told] = [line for line in lines.messages if "keys" in line]
    assert "the keys stay as they were" in told
    assert str(file.path) in told
    file.write([])
    file.clock.now += 5.0
    assert not await knows(watched, RADIO)


async def test_a_file_that_vanishes_keeps_the_keys(file: KeysFile) -> None:
    watched = file.watched()
    file.path.unlink()
    file.clock.now += 5.0
    assert await knows(watched, RADIO)
    file.write([])
    file.clock.now += 5.0
    assert not await knows(watched, RADIO)


async def test_a_mounted_secret_changes_by_a_new_link(tmp_path: Path) -> None:
    for number, entries in enumerate([[entry("radio", RADIO)], [entry("radio", STREAMER)]]):
        (tmp_path / f"version{number}").write_text(json.dumps(entries))
        os.utime(tmp_path / f"version{number}", ns=(1, 1))
    link, clock = tmp_path / "keys.json", Clock()
    link.symlink_to("version0")
    watched = WatchedKeys(AuthConfig(keys_file=link), check_every_s=5.0, now=clock)
    (tmp_path / "new").symlink_to("version1")
    (tmp_path / "new").replace(link)
    clock.now += 5.0
    assert not await knows(watched, RADIO)
    assert await knows(watched, STREAMER)


async def test_keys_of_the_configuration_stay(file: KeysFile) -> None:
    watched = file.watched(KeyConfig.model_validate(entry("streamer", STREAMER)))
    assert await knows(watched, RADIO)
    assert await knows(watched, STREAMER)
    file.write([])
    file.clock.now += 5.0
    assert not await knows(watched, RADIO)
    assert await knows(watched, STREAMER)


@pytest.mark.parametrize("broken", ["", "{}", '[{"name": "radio", "sha256": "wsk_secret"}]'])
def test_a_service_does_not_start_with_a_broken_file(file: KeysFile, broken: str) -> None:
    file.write(broken)
    with pytest.raises(ConfigError) as refused:
        file.watched()
    assert str(file.path) in str(refused.value)
    assert "wsk_secret" not in str(refused.value)


def test_one_key_cannot_be_listed_twice(file: KeysFile) -> None:
    with pytest.raises(ConfigError, match="several entries"):
        file.watched(KeyConfig.model_validate(entry("again", RADIO)))


async def test_without_a_file_nothing_is_looked_at() -> None:
    watched = WatchedKeys(AuthConfig(keys=(KeyConfig.model_validate(entry("radio", RADIO)),)))
    assert await knows(watched, RADIO)
