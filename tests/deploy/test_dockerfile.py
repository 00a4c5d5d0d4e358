from __future__ import annotations

import ipaddress
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import PROJECT
from tests.deploy.dockerfile import Stage, defaults, stages
from whisper_serve import __version__
from whisper_serve.api.auth.rules import PUBLIC
from whisper_serve.api.auth.startup import require_keys
from whisper_serve.cli import main
from whisper_serve.config import Config
from whisper_serve.config_file import load_config
from whisper_serve.serving.cluster import prepare_environment

DOCKERFILE = PROJECT / "deploy" / "Dockerfile"
CONFIG = PROJECT / "deploy" / "config" / "image.json"
STATE = Path("/var/lib/whisper_serve")
ARGUMENTS = defaults(DOCKERFILE)
LATER, LAST = {each.name: each for each in stages(DOCKERFILE)}, stages(DOCKERFILE)[-1]


@pytest.fixture
def config() -> Config:
    """As the image has it, nothing set from outside."""
    return load_config(CONFIG, {})


def test_the_linter_of_dockerfiles_finds_nothing() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_it_is_made_from_a_base_of_one_version() -> None:
    assert re.fullmatch(r"debian:\d+\.\d+-slim(@sha256:[0-9a-f]{64})?", ARGUMENTS["BASE_IMAGE"])
    others = {stage.base for stage in stages(DOCKERFILE)} - LATER.keys()
    assert others == {"${BASE_IMAGE}"}


def test_it_does_not_run_as_root() -> None:
    assert LAST.only("USER").text == "10001:10001"
    later = LAST.instructions[LAST.instructions.index(LAST.only("USER")) :]
    assert not {each.name for each in later} & {"RUN", "COPY", "ADD"}


def test_nothing_compiles_or_installs_in_what_is_shipped() -> None:
    # KubeRay starts Ray with bash, which is in the base, and asks its health with wget.
    assert LAST.packages == {"ca-certificates", "python3", "tini", "wget"}
    assert "pip" not in " ".join(each.text for each in LAST.all("RUN"))


def test_signals_reach_the_service_and_orphans_are_buried() -> None:
    assert LAST.only("ENTRYPOINT").words == ["tini", "--"]
    assert LAST.only("CMD").words[0] == "whisper-serve"
    assert LAST.only("STOPSIGNAL").text == "SIGTERM"


def test_its_command_is_one_of_ours(capsys: pytest.CaptureFixture[str]) -> None:
    command, *rest = LAST.only("CMD").words[1:]
    assert [command, *rest] == ["serve", "--config", "/etc/whisper_serve/config.json"]
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert rest[0] in capsys.readouterr().out


def test_its_health_is_asked_where_no_key_is_needed() -> None:
    health = LAST.only("HEALTHCHECK").text
    path = re.findall(r"http://127\.0\.0\.1:\$\{WHISPER_PORT:-8000\}(/\w+)", health)
    assert path == ["/readyz"]
    assert path[0] in PUBLIC


def test_ray_finds_in_it_what_it_has_to_find_when_it_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        monkeypatch.delenv(name)
    before = dict(os.environ)
    prepare_environment()
    needed = {name: value for name, value in os.environ.items() if before.get(name) != value}
    for name in needed:
        monkeypatch.delenv(name)
    assert needed
    assert needed.items() <= LAST.environment.items()


def test_what_ray_and_kuberay_call_is_where_a_login_shell_looks_too() -> None:
    [linked] = re.findall(r"ln -s (.+?) /usr/local/bin/", LAST.only("RUN").text)
    assert {Path(path).name for path in linked.split()} >= {"ray", "serve", "whisper-serve"}


def test_it_says_which_version_it_is() -> None:
    assert ARGUMENTS["VERSION"] == __version__
    labels = LAST.only("LABEL").text
    assert 'org.opencontainers.image.version="${VERSION}"' in labels
    assert 'org.opencontainers.image.revision="${REVISION}"' in labels


def test_torch_is_installed_before_what_could_choose_its_version() -> None:
    first, second = [
        each.text for each in LATER["packages"].all("RUN") if "pip install" in each.text
    ]
    assert "^torch==" in first
    assert "-r requirements.txt" in second


@pytest.mark.parametrize(("variant", "is_one"), [("cpu", True), ("cuda", True), ("rocm", False)])
def test_a_variant_that_there_is_not_ends_the_build(variant: str, is_one: bool) -> None:
    [check] = [each.text for each in LATER["packages"].all("RUN") if "must be cpu" in each.text]
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", check],
        env={**os.environ, "VARIANT": variant},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode == 0) is is_one
    assert is_one or f"not '{variant}'" in done.stderr


# What it is made of


def copied(stage: Stage) -> list[str]:
    """What a stage takes from the project."""
    texts = [each.text for each in stage.all("COPY") if "--from=" not in each.text]
    return [source for text in texts for source in text.split()[:-1]]


def test_everything_that_is_copied_is_there_and_is_let_through() -> None:
    ignored = (PROJECT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    patterns = [line for line in ignored if line and not line.startswith("#")]
    assert patterns[0] == "*"  # all that is not named stays out, secrets among it
    let_through = {pattern[1:] for pattern in patterns if pattern.startswith("!")}
    sources = {source for stage in stages(DOCKERFILE) for source in copied(stage)}
    assert sources | {"models"} == let_through
    assert all((PROJECT / source).exists() for source in sources)


# Its configuration


def test_it_needs_keys_from_a_place_that_stays(config: Config) -> None:
    require_keys(config)
    assert not config.auth.open
    assert config.auth.keys_file is not None
    assert config.auth.keys_file.parent == STATE


def test_it_writes_nowhere_else(config: Config) -> None:
    assert config.logging.file is None
    assert config.jobs.database is not None
    assert Path(config.jobs.database).parent == STATE
    assert f"-m 0750 {STATE}" in LAST.only("RUN").text


def test_it_can_be_reached_from_outside_of_the_container(config: Config) -> None:
    assert ipaddress.ip_address(config.server.host).is_unspecified
    assert str(config.server.port) == LAST.only("EXPOSE").text


def test_its_weights_are_those_that_are_built_in(config: Config) -> None:
    assert config.model.model_dir == Path("/models")
    assert config.model.size == ARGUMENTS["MODELS"]
