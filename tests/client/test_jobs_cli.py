"""`whisper-serve jobs` through `main`, with the real service."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.fakes import CLIP, TEXT
from tests.client.job_service import KEYS, JobService, serving_jobs
from whisper_serve.cli import main
from whisper_serve.client.access import KEY_VARIABLE

WAIT_S = 10.0
LINE = re.compile(r"([0-9a-f]{32})  (\w+) +(\d+)%  \d{4}-\d\d-\d\d \d\d:\d\d:\d\d(  .+)?")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JobService]:
    with serving_jobs(tmp_path_factory.mktemp("jobs")) as service:
        yield service


@pytest.fixture
def talk(tmp_path: Path) -> str:
    path = tmp_path / "talk.wav"
    path.write_bytes(CLIP)
    return str(path)


class Shell:
    """The command as Ada types it in, her key in a file."""

    def __init__(self, service: JobService, folder: Path, capsys: pytest.CaptureFixture[str]):
        key = folder / "key"
        key.write_text(f"{KEYS['ada']}\n")
        self._options = ["--url", service.url, "--api-key-file", str(key)]
        self._capsys = capsys

    def __call__(self, *arguments: str, code: int = 0) -> tuple[str, str]:
        """Standard output and standard error."""
        assert main(["jobs", *arguments, *self._options]) == code
        captured = self._capsys.readouterr()
        return captured.out, captured.err

    def once_over(self, job_id: str) -> tuple[str | None, ...]:
        """Id, state, progress and what went wrong, as `status` prints them."""
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            found = LINE.fullmatch(self("status", job_id)[0].strip())
            assert found
            if found[2] not in {"queued", "running"}:
                return found.groups()
        raise AssertionError("it is not over")


@pytest.fixture
def jobs(service: JobService, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(service, tmp_path, capsys)


def test_a_file_is_handed_in_and_looked_for_later(jobs: Shell, talk: str) -> None:
    out, err = jobs("submit", talk, "--language", "de")
    job_id, name = out.strip().split(" ", 1)
    assert (name, err) == (talk, "")
    assert jobs.once_over(job_id) == (job_id, "succeeded", "100", None)
    assert jobs("result", job_id)[0] == f"{TEXT}\n"
    assert jobs("result", job_id, "--format", "srt")[0].startswith("1\n00:00:00,100")
    assert json.loads(jobs("result", job_id, "--format", "json")[0])["text"] == TEXT
    lines = jobs("list", "--status", "succeeded")[0].splitlines()
    assert job_id in [line.split()[0] for line in lines]
    assert jobs("delete", job_id) == ("", "")
    assert "job_not_found" in jobs("status", job_id, code=1)[1]


def test_texts_can_be_waited_for(jobs: Shell, talk: str, tmp_path: Path) -> None:
    out, err = jobs("submit", talk, "--wait")
    assert out == f"{TEXT}\n"
    assert re.fullmatch(r"[0-9a-f]{32} .*talk\.wav\n", err)
    folder = tmp_path / "out"
    assert jobs("submit", talk, "--wait", "--format", "vtt", "--output-dir", str(folder))[0] == (
        f"{folder / 'talk.vtt'}\n"
    )
    assert (folder / "talk.vtt").read_text().startswith("WEBVTT")


def test_one_that_fails_is_one_line_and_the_others_are_done(
    jobs: Shell, talk: str, tmp_path: Path
) -> None:
    noise = tmp_path / "noise.mp3"
    noise.write_bytes(b"this is no audio at all")
    missing = str(tmp_path / "missing.wav")
    out, err = jobs("submit", str(noise), missing, talk, "--wait", "--format", "json", code=1)
    [text] = out.splitlines()
    assert json.loads(text)["file"] == talk
    errors = [line for line in err.splitlines() if "error" in line]
    assert errors[0].endswith("missing.wav cannot be read: No such file or directory")
    assert errors[1].startswith(f"whisper-serve: error: {noise}: ")
    [_, job_id] = re.findall(r"(job ([0-9a-f]+))", errors[1])[0]
    assert "failed" in jobs("list", "--status", "failed")[0]
    assert json.loads(jobs("redrive", job_id, "--format", "json")[0])["status"] == "queued"


def test_several_are_given_up(jobs: Shell, talk: str, service: JobService) -> None:
    service.hold()
    try:
        ids = [line.split()[0] for line in jobs("submit", talk, talk)[0].splitlines()]
        out, err = jobs("cancel", ids[0], "0" * 32, ids[1], code=1)
    finally:
        service.release()
    assert [line.split()[0] for line in out.splitlines()] == ids
    assert len(err.splitlines()) == 1


def test_the_key_may_be_in_the_environment(
    service: JobService, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEYS["bob"])
    assert main(["jobs", "list", "--url", service.url]) == 0
    assert capsys.readouterr().out == ""
    monkeypatch.setenv(KEY_VARIABLE, "wsk_wrong")
    assert main(["jobs", "list", "--url", service.url]) == 1
    assert "401 invalid_api_key" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (["--api-key-file", "nowhere"], "api_key_file: nowhere cannot be read"),
        (["--ca-file", "nowhere"], "ca_file"),
        (["--output-dir", "out"], "--output-dir: it needs --wait"),
    ],
)
def test_a_wrong_option_is_one_line(
    wrong: list[str], named: str, talk: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["jobs", "submit", talk, *wrong]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"whisper-serve: error: {named}")


@pytest.mark.parametrize("arguments", [[], ["submit"], ["status"], ["result"], ["fly"]])
def test_an_incomplete_command_tells_how_it_is_used(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["jobs", *arguments])
    assert ended.value.code == 2
    assert "usage: whisper-serve jobs" in capsys.readouterr().err


def test_a_key_is_never_an_argument(capsys: pytest.CaptureFixture[str]) -> None:
    """It would be in the list of processes for everybody to read."""
    with pytest.raises(SystemExit) as ended:
        main(["jobs", "list", "--api-key", "wsk_x"])
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert "use --api-key-file" in told
    assert "wsk_x" not in told
