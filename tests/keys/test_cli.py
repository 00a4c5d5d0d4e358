"""`whisper-serve keys`, as a person uses it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from whisper_serve.cli import CANNOT_START, main
from whisper_serve.keys.file import read_keys
from whisper_serve.keys.making import digest_of

Output = pytest.CaptureFixture[str]


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration with a file of keys that is not there yet."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"auth": {"keys_file": "keys.json"}}))
    return path


def test_a_new_key_is_printed_once_and_kept_as_its_digest(config: Path, capsys: Output) -> None:
    limits = ["--requests-per-minute", "60", "--max-streams", "2", "--daily-audio-s", "3600"]
    assert main(["keys", "new", "radio", "--scopes", "stream", "jobs", *limits]) == 0
    shown = capsys.readouterr().out.strip()
    [entry] = read_keys(config.parent / "keys.json")
    assert entry.sha256 == digest_of(shown)
    assert (entry.name, entry.scopes) == ("radio", ("stream", "jobs"))
    assert (entry.requests_per_minute, entry.max_streams, entry.daily_audio_s) == (60, 2, 3600.0)
    assert shown not in (config.parent / "keys.json").read_text()


def test_keys_are_listed_without_what_opens_anything(config: Path, capsys: Output) -> None:
    main(["keys", "new", "radio", "--max-streams", "2"])
    main(["keys", "new", "press", "--scopes", "transcribe"])
    shown = capsys.readouterr().out.split()
    assert main(["keys", "list"]) == 0
    radio, press = capsys.readouterr().out.splitlines()
    assert radio.split()[0] == "radio"
    assert radio.split()[2:] == ["transcribe", "stream", "jobs", "max_streams=2"]
    assert press.split() == ["press", digest_of(shown[1])[:12], "transcribe"]


def test_a_key_is_replaced_by_another_and_then_revoked(config: Path, capsys: Output) -> None:
    main(["keys", "new", "radio"])
    main(["keys", "new", "radio"])
    old, new = capsys.readouterr().out.split()
    assert main(["keys", "revoke", "radio", "--sha256", digest_of(old)[:12]]) == 0
    [entry] = read_keys(config.parent / "keys.json")
    assert entry.sha256 == digest_of(new)
    assert main(["keys", "revoke", "radio"]) == 0
    assert read_keys(config.parent / "keys.json") == ()


def test_another_file_can_be_named(config: Path, capsys: Output) -> None:
    other = config.parent / "others.json"
    assert main(["keys", "new", "radio", "--file", str(other)]) == 0
    assert [key.name for key in read_keys(other)] == ["radio"]
    assert not (config.parent / "keys.json").exists()


def test_without_a_file_the_entry_is_for_the_configuration(config: Path, capsys: Output) -> None:
    config.write_text("{}")
    assert main(["keys", "new", "radio"]) == 0
    printed = capsys.readouterr()
    entry = json.loads(printed.err.splitlines()[-1])
    config.write_text(json.dumps({"auth": {"keys": [entry]}}))
    assert entry["sha256"] == digest_of(printed.out.strip())
    assert main(["keys", "list"]) == 0
    assert capsys.readouterr().out.startswith("radio ")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["new", "any one"], "auth.keys.0.name"),
        (["new", "radio", "--scopes", "everything"], "auth.keys.0.scopes.0"),
        (["new", "radio", "--max-streams", "0"], "auth.keys.0.max_streams"),
        (["revoke", "nobody"], "cannot be read"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_done_is_one_line(
    config: Path, capsys: Output, command: list[str], said: str
) -> None:
    assert main(["keys", *command]) == CANNOT_START
    [line] = capsys.readouterr().err.splitlines()
    assert said in line
    assert not (config.parent / "keys.json").exists()


def test_who_is_not_there_cannot_be_revoked(config: Path, capsys: Output) -> None:
    main(["keys", "new", "radio"])
    assert main(["keys", "revoke", "press"]) == CANNOT_START
    assert main(["keys", "revoke", "radio", "--sha256", "x"]) == CANNOT_START
    config.write_text("{}")
    assert main(["keys", "revoke", "radio"]) == CANNOT_START
    assert "take the key out of auth.keys" in capsys.readouterr().err.splitlines()[-1]
