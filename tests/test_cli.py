from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from whisper_serve import __version__
from whisper_serve.cli import main
from whisper_serve.engines.digests import record_digests, sha256_of

MAIN = Path(__file__).parent.parent / "main.py"

Write = Callable[[object], str]


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_config(content: object) -> str:
        path = tmp_path / "config.json"
        path.write_text(json.dumps(content))
        return str(path)

    return write_config


@pytest.fixture
def config(models: Path, write: Write) -> str:
    """A configuration that fetches nothing."""
    return write({"model": {"model_dir": str(models), "sources": ["model_dir"]}})


def put_folder(models: Path, name: str) -> Path:
    """Something that looks like a folder for CTranslate2."""
    folder = models / name
    folder.mkdir()
    (folder / "model.bin").write_bytes(bytes(2**20))
    (folder / "config.json").write_text("{}")
    return folder


def record(folder: Path) -> None:
    """What says that the folder's files are as they were fetched."""
    record_digests(folder, {file.name: sha256_of(file) for file in folder.iterdir()})


# Models


def test_all_known_models_are_listed(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "list", "--config", config]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = [line.split()[0].rstrip(",") for line in lines]
    assert {"tiny", "tiny.en", "base", "large-v3"} <= set(names)
    assert all(line.endswith(" -") for line in lines)


def test_a_model_that_is_here_is_listed_with_its_size(
    config: str, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put_folder(models, "tuned")
    main(["models", "list", "--config", config])
    [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("tuned")]
    assert line.split(maxsplit=1)[1] == "ctranslate2 (1 MiB)"


def test_without_weights_nothing_is_wrong(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "verify", "--config", config]) == 0
    assert capsys.readouterr().out == "there are no weights here\n"


def test_sound_weights_are_told(
    config: str, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = put_folder(models, "tuned")
    record(folder)
    assert main(["models", "verify", "--config", config]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"ok  {folder / 'model.bin'}" in lines
    assert not [line for line in lines if line.startswith("BAD")]


def test_damaged_weights_are_told(
    config: str, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = put_folder(models, "tuned")
    record(folder)
    (folder / "model.bin").write_bytes(bytes(2**20 - 1) + b"x")
    assert main(["models", "verify", "--config", config]) == 1
    assert f"BAD {folder / 'model.bin'}" in capsys.readouterr().out.splitlines()


def test_pulling_what_is_here_tells_where(
    config: str, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = put_folder(models, "tuned")
    assert main(["models", "pull", "tuned", "--config", config]) == 0
    assert capsys.readouterr().out == f"{folder}\n"


# What cannot be done is one line


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    [line] = output.err.splitlines()
    assert line.startswith("whisper-serve: error: ")
    return line.removeprefix("whisper-serve: error: ")


def test_an_unknown_model_is_told_with_those_that_are_known(
    config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    told = refused(["models", "pull", "bass", "--config", config], capsys)
    assert told.startswith("no model is called 'bass'")
    assert "base" in told


def test_weights_that_no_source_has_are_told(
    config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    told = refused(["models", "pull", "base", "--config", config], capsys)
    assert told.startswith("the weights of 'base' could not be had")


@pytest.mark.parametrize("command", [["serve"], ["models", "list"], ["models", "pull", "base"]])
def test_a_bad_configuration_is_told(
    command: list[str], write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write({"server": {"prot": 1}, "vad": {"threshold": 7}})
    told = refused([*command, "--config", path], capsys)
    assert told.startswith(f"{path}: ")
    assert "server.prot" in told
    assert "vad.threshold" in told


def test_a_missing_configuration_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "nowhere.json"
    told = refused(["models", "list", "--config", str(path)], capsys)
    assert told == f"{path}: file: cannot be read: No such file or directory"


def test_a_bad_variable_is_told(
    config: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WHISPER_PORT", "many")
    assert "server.port: 'many'" in refused(["models", "list", "--config", config], capsys)


def test_python_main_py_serves_and_tells_what_is_wrong_in_one_line(write: Write) -> None:
    command = [sys.executable, str(MAIN), "--config", write({"server": {"port": 0}})]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert line.startswith("whisper-serve: error: ")
    assert "server.port: 0 is not allowed" in line


def test_a_service_that_nobody_could_use_does_not_start(
    write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write({"logging": {"file": None}})
    told = refused(["serve", "--config", path], capsys)
    assert "there are no keys" in told
    assert "whisper-serve keys new" in told


# The command itself


def test_it_tells_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"{__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        *([], ["models"], ["fly"], ["models", "pull"], ["transcribe"], ["stream"]),
        ["stream", "talk.wav", "--mic"],
        ["stream", "-", "--policy", "eager"],
        ["transcribe", "talk.wav", "--format", "doc"],
    ],
)
def test_an_incomplete_command_tells_how_it_is_used(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("usage: whisper-serve")
