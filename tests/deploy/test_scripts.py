"""The scripts say what they do, do it in order, and keep their hands off what is not theirs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.rendering import CHART, ROOT, helm_program

SCRIPTS = ROOT / "deploy" / "scripts"
OURS = ("deploy.sh", "undeploy.sh", "render.sh")
EKS = str(CHART / "values-eks.yaml")
SECRETS = ("whisper-serve-ray", "whisper-serve-environment", "whisper-serve-keys")

# Records how it was called, and what it was given; `$HAS` are Secrets that there are.
FAKE = """#!/usr/bin/env bash
printf '%s' "$(basename "$0")" >>"$RECORD"
printf ' %s' "$@" >>"$RECORD"
echo >>"$RECORD"
for argument in "$@"; do
    case "$argument" in
        --from-file=*) cat "${argument#--from-file=*=}" >"$GIVEN/$(basename "${argument#*=*=}")" ;;
    esac
done
case "$*" in
    "config current-context") echo a-cluster ;;
    *"get secret "*) case " $HAS " in *" ${!#} "*) ;; *) exit 1 ;; esac ;;
    *"get namespace "*) [ -n "$HAS" ] ;;
    *"wait --for"*) exit "$WAIT" ;;
    lint*) exit "$LINT" ;;
    *) ;;
esac
"""


class Machine:
    """One with a fake cluster, which remembers what it was asked."""

    def __init__(self, folder: Path) -> None:
        self.programs, self.given = folder / "bin", folder / "given"
        self.record = folder / "record"
        for made in (self.programs, self.given):
            made.mkdir()
        self.has, self.wait, self.lint = "", 0, 0
        self.further: dict[str, str] = {}
        for name in ("kubectl", "helm"):
            program = self.programs / name
            program.write_text(FAKE, encoding="utf-8")
            program.chmod(0o755)

    def run(self, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": f"{self.programs}:/usr/bin:/bin",
            "RECORD": str(self.record),
            "GIVEN": str(self.given),
            "HAS": self.has,
            "WAIT": str(self.wait),
            "LINT": str(self.lint),
            **self.further,
        }
        return subprocess.run(
            [SCRIPTS / script, *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    @property
    def calls(self) -> list[str]:
        return self.record.read_text(encoding="utf-8").splitlines() if self.record.exists() else []

    def asked(self, start: str) -> list[str]:
        return [call for call in self.calls if call.startswith(start)]

    @property
    def changes(self) -> list[str]:
        """What would leave a trace in a cluster."""
        words = {"create", "apply", "delete", "install", "upgrade", "uninstall", "patch"}
        return [call for call in self.calls if words & set(call.split())]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize("script", OURS)
def test_shellcheck_finds_no_fault(script: str) -> None:
    beside = Path(sys.executable).with_name("shellcheck")
    program = shutil.which("shellcheck") or (str(beside) if beside.exists() else None)
    if program is None:
        pytest.skip("shellcheck is neither on the PATH nor beside Python")
    done = subprocess.run(
        [program, SCRIPTS / script], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("script", OURS)
def test_a_script_stops_at_the_first_fault(script: str) -> None:
    text = (SCRIPTS / script).read_text(encoding="utf-8")
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "\nset -euo pipefail\n" in text
    assert "read -p" not in text
    assert os.access(SCRIPTS / script, os.X_OK)


@pytest.mark.parametrize("script", ["deploy.sh", "undeploy.sh"])
def test_help_says_what_it_does(machine: Machine, script: str) -> None:
    done = machine.run(script, "--help")
    assert done.returncode == 0
    assert script in done.stdout
    assert "--dry-run" in done.stdout
    assert machine.calls == []


@pytest.mark.parametrize("script", ["deploy.sh", "undeploy.sh"])
def test_an_option_that_there_is_not_changes_nothing(machine: Machine, script: str) -> None:
    done = machine.run(script, "--force")
    assert done.returncode == 1
    assert "unknown option --force" in done.stderr
    assert machine.calls == []


# deploy.sh


def test_everything_is_put_there_in_order(machine: Machine) -> None:
    done = machine.run("deploy.sh", "--values", EKS)
    assert done.returncode == 0, done.stderr
    operator, service = machine.asked("helm upgrade --install")
    assert "kuberay-operator --repo https://ray-project.github.io/kuberay-helm/" in operator
    assert "--version 1.7.0" in operator
    assert f"whisper-serve {CHART} --namespace whisper-serve --values {EKS}" in service
    [namespace] = machine.asked("kubectl create namespace")
    [wait] = machine.asked("kubectl --namespace whisper-serve wait")
    assert wait.endswith("--for=condition=Ready rayservice/whisper-serve --timeout=30m")
    order = [machine.calls.index(call) for call in (namespace, operator, service, wait)]
    assert order == sorted(order)
    assert "a-cluster" in done.stderr
    assert "ready" in done.stderr


def test_secrets_that_are_missing_are_made_and_shown_to_nobody(machine: Machine) -> None:
    done = machine.run("deploy.sh", "--values", EKS)
    made = machine.asked("kubectl --namespace whisper-serve create secret generic")
    assert {call.split()[6] for call in made} == set(SECRETS)
    token = (machine.given / "auth_token").read_text()
    signing = (machine.given / "WHISPER_SERVE__AUTH__SIGNING_KEY").read_text()
    assert len(token) == len(signing) == 64
    assert token != signing
    assert (machine.given / "keys.json").read_text() == "[]"
    for secret in (token, signing):
        assert secret not in done.stdout + done.stderr
        assert all(secret not in call for call in machine.calls)


def test_secrets_that_are_there_stay_as_they_are(machine: Machine) -> None:
    machine.has = " ".join(SECRETS)
    done = machine.run("deploy.sh", "--values", EKS)
    assert done.returncode == 0
    assert machine.asked("kubectl --namespace whisper-serve create") == []
    assert machine.asked("kubectl create namespace") == []
    assert "the Secret whisper-serve-ray is there" in done.stderr


def test_a_rehearsal_changes_nothing(machine: Machine) -> None:
    done = machine.run("deploy.sh", "--values", EKS, "--dry-run")
    assert done.returncode == 0
    assert machine.changes == []
    for expected in ("would make the Secret whisper-serve-ray", "would wait 30m"):
        assert expected in done.stderr
    assert done.stderr.count("would run: helm upgrade --install") == 2


def test_a_service_that_does_not_come_up_is_shown(machine: Machine) -> None:
    machine.wait = 1
    done = machine.run("deploy.sh", "--values", EKS)
    assert done.returncode == 1
    assert "not ready after 30m" in done.stderr
    assert "What to check" in done.stderr
    assert machine.asked("kubectl --namespace whisper-serve describe rayservice")


def test_values_that_the_chart_does_not_take_change_nothing(machine: Machine) -> None:
    machine.lint = 1
    done = machine.run("deploy.sh", "--values", EKS)
    assert done.returncode == 1
    assert "does not take these values" in done.stderr
    assert machine.changes == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "--values is needed"),
        (("--values",), "--values needs a value"),
        (("--values", "/no/such/file"), "/no/such/file is not a file"),
        (("--values", EKS, "--set"), "--set needs a value"),
    ],
)
def test_what_is_missing_is_told_first(
    machine: Machine, arguments: tuple[str, ...], told: str
) -> None:
    done = machine.run("deploy.sh", *arguments)
    assert done.returncode == 1
    assert told in done.stderr
    assert machine.changes == []


@pytest.mark.parametrize(
    ("script", "tool"),
    [
        ("deploy.sh --values x", "HELM"),
        ("deploy.sh --values x", "KUBECTL"),
        ("undeploy.sh --yes", "HELM"),
        ("undeploy.sh --yes", "KUBECTL"),
        ("render.sh", "HELM"),
    ],
)
def test_a_tool_that_is_missing_is_told(machine: Machine, script: str, tool: str) -> None:
    machine.further = {tool: "no-such-program"}
    done = machine.run(*script.split())
    assert done.returncode == 1
    assert "is not here" in done.stderr
    assert machine.calls == []


def test_another_name_and_further_values_are_handed_on(machine: Machine) -> None:
    names = ("--namespace", "speech", "--release", "asr", "--skip-operator")
    done = machine.run(
        "deploy.sh", "--values", EKS, *names, "--set", "image.tag=1.2", "--set", "a=b"
    )
    assert done.returncode == 0
    [service] = machine.asked("helm upgrade --install")
    assert service.startswith(f"helm upgrade --install asr {CHART} --namespace speech")
    assert service.endswith("--set image.tag=1.2 --set a=b")


def test_values_of_one_s_own_lie_over_those_of_the_chart(machine: Machine, tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("image: {repository: mine}\n", encoding="utf-8")
    done = machine.run("deploy.sh", "--values", EKS, "--values", str(own), "--skip-operator")
    assert done.returncode == 0
    [service] = machine.asked("helm upgrade --install")
    assert service.endswith(f"--values {EKS} --values {own}")


# undeploy.sh


def test_nothing_ends_without_a_yes(machine: Machine) -> None:
    done = machine.run("undeploy.sh")
    assert done.returncode == 1
    assert "say --yes" in done.stderr
    assert machine.changes == []


def test_the_release_ends_and_what_is_kept_in_it_stays(machine: Machine) -> None:
    done = machine.run("undeploy.sh", "--yes")
    assert done.returncode == 0
    [change] = machine.changes
    assert change.startswith("helm uninstall whisper-serve --namespace whisper-serve --wait")


def test_secrets_end_when_asked_for_and_only_those_of_deploy_sh(machine: Machine) -> None:
    machine.run("undeploy.sh", "--yes", "--secrets")
    _, secrets = machine.changes
    assert secrets.split("--ignore-not-found ")[1].split() == list(SECRETS)
    assert all(
        word not in call for call in machine.changes for word in ("pvc", "delete namespace", "crd")
    )


def test_what_would_end_can_be_seen(machine: Machine) -> None:
    done = machine.run("undeploy.sh", "--dry-run", "--secrets")
    assert done.returncode == 0
    assert machine.changes == []
    assert done.stderr.count("would run") == 2


# render.sh


def test_what_is_out_of_date_is_named_and_written_anew(tmp_path: Path) -> None:
    copied = tmp_path / "project"
    for name in ("deploy/scripts/render.sh", "deploy/serve.yaml"):
        (copied / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copied / name)
    for folder in ("helm", "kuberay", "karpenter", "monitoring"):
        shutil.copytree(ROOT / "deploy" / folder, copied / "deploy" / folder, symlinks=True)
    stale = copied / "deploy" / "serve.yaml"
    stale.write_text("other: true\n", encoding="utf-8")

    def render(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [copied / "deploy" / "scripts" / "render.sh", *arguments],
            env={**os.environ, "HELM": helm_program()},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    checked = render("--check")
    assert checked.returncode == 1
    assert checked.stderr.splitlines() == [
        "deploy/serve.yaml is not what the chart renders: run deploy/scripts/render.sh"
    ]
    assert render().stdout == "deploy/serve.yaml\n"
    assert stale.read_text() == (ROOT / "deploy" / "serve.yaml").read_text()
    assert render("--check").returncode == 0
