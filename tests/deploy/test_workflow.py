from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import Any

import pytest
import yaml

from tests.conftest import PROJECT

FOLDER = PROJECT / ".github" / "workflows"
FILES = sorted(FOLDER.glob("*.yml"))
TEXT = (FOLDER / "ci.yml").read_text(encoding="utf-8")
# YAML 1.1 takes the key `on` for a truth value.
WORKFLOW: dict[Any, Any] = yaml.safe_load(TEXT)
JOBS: dict[str, dict[str, Any]] = WORKFLOW["jobs"]
STEPS = [step for job in JOBS.values() for step in job["steps"]]


def test_it_is_what_github_takes() -> None:
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema"]
    done = subprocess.run(
        [*check, "vendor.github-workflows", *FILES], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_it_runs_for_each_push_to_main_and_each_pull_request() -> None:
    assert WORKFLOW[True] == {"push": {"branches": ["main"]}, "pull_request": None}


def test_it_may_only_read_and_knows_no_secret() -> None:
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert not any("permissions" in job for job in JOBS.values())
    assert "secrets." not in TEXT
    checkouts = [step for step in STEPS if "actions/checkout@" in step.get("uses", "")]
    assert len(checkouts) == len(JOBS)
    assert all(step["with"] == {"persist-credentials": False} for step in checkouts)


@pytest.mark.parametrize("line", re.findall(r"uses: (.+)", TEXT))
def test_an_action_is_named_by_what_it_is_and_not_by_a_tag_that_moves(line: str) -> None:
    assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line)


@pytest.mark.parametrize("job", JOBS)
def test_a_job_ends_some_time_and_runs_on_a_system_of_one_version(job: str) -> None:
    assert 0 < JOBS[job]["timeout-minutes"] <= 120
    assert re.fullmatch(r"ubuntu-\d\d\.\d\d", JOBS[job]["runs-on"])


def test_a_newer_push_ends_the_checks_of_a_pull_request() -> None:
    assert "github.ref" in WORKFLOW["concurrency"]["group"]
    assert "pull_request" in WORKFLOW["concurrency"]["cancel-in-progress"]


def test_what_it_runs_is_there() -> None:
    commands = [step["run"] for step in STEPS if "run" in step]
    assert ".ci/run" in commands
    named = re.findall(r"(?:deploy/scripts|\.ci)/[\w.]+", "\n".join(commands))
    assert len(named) == 3
    assert all(os.access(PROJECT / name, os.X_OK) for name in named)
    targets = re.findall(r"\bmake (\S+)", "\n".join(commands))
    makefile = (PROJECT / "Makefile").read_text().replace("$(VENV)", ".venv")
    assert all(re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE) for target in targets)


def test_it_tries_every_python_that_the_package_is_for() -> None:
    declared = re.findall(r"Python :: (3\.\d+)", (PROJECT / "setup.py").read_text())
    given = [step.get("with", {}) for step in JOBS["all"]["steps"]]
    whole = [each["python-version"] for each in given if "python-version" in each]
    assert sorted([*whole, *JOBS["quick"]["strategy"]["matrix"]["python"]]) == sorted(declared)
