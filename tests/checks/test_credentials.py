from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from checks.credentials import BASELINE, accept, files_of, main, new_secrets

# In pieces, so that this file holds none.
PLANTED = 'aws_key = "AKIA' + 'IOSFODNN7EXAMPLQ"\n'
OURS = 'key = "wsk_' + 'q3Zr8TnB1xVw6YkLm0PdSaEfHuJcGi9o"\n'


@pytest.fixture
def project(tmp_path: Path) -> Path:
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    (tmp_path / "notes.py").write_text('name = "no secret"\n')
    (tmp_path / ".gitignore").write_text("ignored.py\n")
    accept(tmp_path)
    return tmp_path


def test_a_project_without_secrets_passes(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(project, []) == 0
    assert "none in the files" in capsys.readouterr().out


@pytest.mark.parametrize("line", [PLANTED, OURS])
def test_a_planted_secret_fails_and_is_not_repeated(
    project: Path, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "planted.py").write_text(f"# one\n{line}")
    assert main(project, []) == 1
    said = capsys.readouterr().out
    assert "planted.py:2" in said
    assert line.split('"')[1] not in said


def test_what_was_accepted_passes_wherever_it_moves(project: Path) -> None:
    (project / "planted.py").write_text(PLANTED)
    assert main(project, ["--accept"]) == 0
    before = (project / BASELINE).read_text()
    (project / "planted.py").write_text("\n\n\n" + PLANTED)
    assert new_secrets(project) == ""
    assert (project / BASELINE).read_text() == before


def test_what_git_ignores_is_not_looked_at(project: Path) -> None:
    (project / "ignored.py").write_text(PLANTED)
    assert files_of(project) == [".gitignore", "notes.py"]
