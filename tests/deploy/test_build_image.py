from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from tests.conftest import PROJECT
from whisper_serve import __version__

SCRIPTS = PROJECT / "deploy" / "scripts"
# Writes down what it is asked for, as a builder that always succeeds.
BUILDER = f"""#!{sys.executable}
import json, pathlib, sys
with pathlib.Path(__file__).with_name("calls").open("a") as calls:
    calls.write(json.dumps(sys.argv[1:]) + "\\n")
print("much that it says")
"""
NEEDED = ("bash", "basename", "cat", "dirname", "git", "sed")


class Builder:
    """A folder that is all of PATH, with a builder in it that only writes down its calls."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in NEEDED:
            (folder / name).symlink_to(str(shutil.which(name)))

    def install(self, name: str) -> None:
        (self.folder / name).write_text(BUILDER)
        (self.folder / name).chmod(0o755)

    def run(self, *options: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [SCRIPTS / "build_image.sh", *options],
            env={"PATH": str(self.folder), "HOME": str(self.folder), **environ},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )

    @property
    def calls(self) -> list[list[str]]:
        written = self.folder / "calls"
        return [json.loads(line) for line in written.read_text().splitlines()]


@pytest.fixture
def builder(tmp_path: Path) -> Builder:
    return Builder(tmp_path)


@pytest.fixture
def docker(builder: Builder) -> Builder:
    builder.install("docker")
    return builder


def build_arguments(call: list[str]) -> dict[str, str]:
    given = [value for option, value in pairwise(call) if option == "--build-arg"]
    return dict(each.split("=", 1) for each in given)


def tag(call: list[str]) -> str:
    return call[call.index("--tag") + 1]


@pytest.mark.parametrize("script", sorted(SCRIPTS.glob("*.sh")), ids=lambda script: script.name)
def test_the_linter_of_shell_scripts_finds_nothing(script: Path) -> None:
    shellcheck = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run([shellcheck, script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    assert os.access(script, os.X_OK)


def test_it_builds_for_cpus_with_base_and_pushes_nothing(docker: Builder) -> None:
    done = docker.run()
    assert done.returncode == 0, done.stderr
    [call] = docker.calls
    assert call[0] == "build"
    assert call[-1] == str(PROJECT)
    assert tag(call) == f"whisper-serve:{__version__}-cpu"
    assert call[call.index("--file") + 1] == str(PROJECT / "deploy" / "Dockerfile")
    given = build_arguments(call)
    assert given.pop("REVISION")
    assert given == {"VARIANT": "cpu", "MODELS": "base", "VERSION": __version__}


def test_its_output_is_the_name_of_the_image_and_no_more(docker: Builder) -> None:
    done = docker.run(REGISTRY="registry.example.org/speech/", VARIANT="cuda", VERSION="1.2")
    assert done.stdout == "registry.example.org/speech/whisper-serve:1.2-cuda\n"
    assert "much that it says" in done.stderr


def test_what_is_set_reaches_the_build(docker: Builder) -> None:
    wished = {
        "MODELS": "tiny.en base",
        "BASE_IMAGE": "debian:13.7-slim@sha256:" + 64 * "0",
        "TORCH_INDEX_URL": "https://index.example.org/cpu",
    }
    assert docker.run(**wished).returncode == 0
    assert wished.items() <= build_arguments(docker.calls[0]).items()


def test_no_models_means_none(docker: Builder) -> None:
    docker.run(MODELS="")
    assert build_arguments(docker.calls[0])["MODELS"] == ""


def test_it_pushes_when_that_is_said(docker: Builder) -> None:
    done = docker.run("--push", REGISTRY="registry.example.org")
    assert done.returncode == 0, done.stderr
    built, pushed = docker.calls
    assert pushed == ["push", tag(built)]


def test_a_push_to_nowhere_is_refused_before_anything_is_built(docker: Builder) -> None:
    done = docker.run("--push")
    assert done.returncode == 2
    assert "REGISTRY" in done.stderr
    assert not (docker.folder / "calls").exists()


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"VARIANT": "rocm"}, "VARIANT"),
        ({"VERSION": "a b"}, "VERSION"),
        ({"BUILDER": "nobody"}, "BUILDER"),
    ],
)
def test_what_cannot_be_is_refused_by_name(
    docker: Builder, environ: dict[str, str], named: str
) -> None:
    done = docker.run(**environ)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"error: {named}: " in done.stderr


def test_an_option_that_there_is_not_is_refused(docker: Builder) -> None:
    assert docker.run("--pussh").returncode == 2


def test_further_options_go_to_the_builder(docker: Builder) -> None:
    docker.run("--", "--no-cache")
    assert docker.calls[0][-2:] == ["--no-cache", str(PROJECT)]


@pytest.mark.parametrize("name", ["podman", "buildah"])
def test_without_docker_another_builder_keeps_the_health_check(builder: Builder, name: str) -> None:
    builder.install(name)
    assert builder.run().returncode == 0
    [call] = builder.calls
    assert call[call.index("--format") + 1] == "docker"


def test_where_there_is_no_builder_that_is_said(builder: Builder) -> None:
    done = builder.run()
    assert done.returncode == 2
    assert "neither docker nor podman nor buildah" in done.stderr


def test_its_help_names_every_variable_that_it_reads() -> None:
    text = (SCRIPTS / "build_image.sh").read_text()
    shown = subprocess.run(
        [SCRIPTS / "build_image.sh", "--help"], capture_output=True, text=True, check=True
    )
    for name in ("VARIANT", "MODELS", "VERSION", "REGISTRY", "BASE_IMAGE", "TORCH_INDEX_URL"):
        assert f"\n  {name} " in shown.stdout
        assert name in text.split("TEXT\n}", 1)[1]
