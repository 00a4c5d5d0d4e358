from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import PROJECT
from whisper_serve import __version__
from whisper_serve.api.auth.startup import require_keys
from whisper_serve.config_file import load_config

DEPLOY = PROJECT / "deploy"
FILES = ("compose.yaml", "compose.gpu.yaml")
SECRETS = DEPLOY / "compose" / "secrets"
STATE = Path("/var/lib/whisper_serve")


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def filled_in(value: Any, environ: dict[str, str]) -> Any:
    """With `${NAME:-default}` replaced, as Compose does it."""
    if isinstance(value, dict):
        return {key: filled_in(each, environ) for key, each in value.items()}
    if isinstance(value, list):
        return [filled_in(each, environ) for each in value]
    if not isinstance(value, str):
        return value
    return re.sub(r"\$\{(\w+):-([^}]*)\}", lambda name: environ.get(name[1]) or name[2], value)


def compose(**environ: str) -> dict[str, Any]:
    values: dict[str, Any] = filled_in(read(DEPLOY / "compose.yaml"), environ)
    return values


COMPOSE = compose()
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
WHISPER = SERVICES["whisper"]


def binds(service: dict[str, Any]) -> dict[str, Path]:
    """What of this folder a service sees, by the path where it sees it."""
    pairs = (volume.split(":") for volume in service.get("volumes", ()))
    return {there: DEPLOY / here for here, there, *_ in pairs if here.startswith(".")}


def named_volumes(service: dict[str, Any]) -> set[str]:
    sources = {volume.split(":")[0] for volume in service.get("volumes", ())}
    return {source for source in sources if not source.startswith(".")}


def seconds(text: str) -> float:
    assert text.endswith("s")
    return float(text[:-1])


@pytest.mark.parametrize("file", FILES)
def test_it_is_what_compose_takes(file: str) -> None:
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*check, DEPLOY / file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_every_file_that_is_mounted_is_there() -> None:
    mounted = [path for service in SERVICES.values() for path in binds(service).values()]
    assert mounted
    assert all(path.exists() for path in mounted)


def test_files_of_the_project_cannot_be_written() -> None:
    for service in SERVICES.values():
        mounts = [volume for volume in service.get("volumes", ()) if volume.startswith(".")]
        assert all(volume.endswith(":ro") for volume in mounts)


def test_every_volume_and_secret_that_is_used_is_declared() -> None:
    volumes = {name for service in SERVICES.values() for name in named_volumes(service)}
    assert volumes == COMPOSE["volumes"].keys()
    used = [each for service in SERVICES.values() for each in service.get("secrets", ())]
    names = {each if isinstance(each, str) else each["source"] for each in used}
    assert names == COMPOSE["secrets"].keys()


def test_secrets_lie_where_git_does_not_look() -> None:
    for secret in COMPOSE["secrets"].values():
        assert (DEPLOY / secret["file"]).parent == SECRETS
        ignored = ["git", "check-ignore", "--quiet", DEPLOY / secret["file"]]
        assert subprocess.run(ignored, cwd=PROJECT, check=False).returncode == 0
    assert (SECRETS / ".gitignore").exists()


def test_no_two_services_publish_one_port_and_none_beyond_this_machine() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", ())]
    places = [port.rsplit(":", 1)[0] for port in published]
    assert len(set(places)) == len(places) == 3
    assert all(place.startswith("127.0.0.1:") for place in places)


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_may_do_as_little_as_it_can(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert not {"NET_ADMIN", "SYS_ADMIN"} & {*service.get("cap_add", ())}


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_bounded_and_comes_back(name: str) -> None:
    service = SERVICES[name]
    assert service["deploy"]["resources"]["limits"]["memory"]
    assert service["restart"] == "unless-stopped"
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}


@pytest.mark.parametrize("name", SERVICES)
def test_an_image_has_one_version(name: str) -> None:
    assert re.fullmatch(r"[\w/.-]+:v?\d+\.\d+[\w.-]*", SERVICES[name]["image"])


def test_who_waits_for_another_s_health_can_be_told_it() -> None:
    for service in SERVICES.values():
        for other, how in service.get("depends_on", {}).items():
            assert how["condition"] == "service_healthy"
            # The image of the service has a check itself.
            assert other == "whisper" or SERVICES[other]["healthcheck"]["test"]


def test_only_what_everybody_needs_starts_by_itself() -> None:
    always = {name for name, service in SERVICES.items() if "profiles" not in service}
    assert always == {"whisper"}
    assert WHISPER["depends_on"]["postgres"]["required"] is False


def test_it_names_every_variable_that_it_reads() -> None:
    text = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
    head, body = text.split("\nname:", 1)
    assert set(re.findall(r"\$\{(\w+)", body)) == set(
        re.findall(r"^#   ([A-Z_]+) ", head, re.MULTILINE)
    )


# The service


def loaded(**environ: str) -> Any:
    service = compose(**environ)["services"]["whisper"]
    path = binds(service)["/etc/whisper_serve/config.json"]
    return load_config(path, service["environment"])


def test_the_service_can_use_the_configuration_that_it_is_given() -> None:
    config = loaded()
    require_keys(config)
    assert WHISPER["ports"] == [f"127.0.0.1:8000:{config.server.port}"]


def test_what_it_writes_is_on_a_volume() -> None:
    config = loaded()
    assert f"state:{STATE}" in WHISPER["volumes"]
    assert Path(config.jobs.database).parent == STATE
    assert config.auth.keys_file.parent == STATE


def test_one_variable_chooses_what_is_built_in_and_what_is_loaded() -> None:
    service = compose(WHISPER_MODEL="tiny.en")["services"]["whisper"]
    assert service["build"]["args"]["MODELS"] == "tiny.en"
    assert loaded(WHISPER_MODEL="tiny.en").model.size == "tiny.en"
    assert loaded().model.size == WHISPER["build"]["args"]["MODELS"] == "base"


def test_jobs_can_be_kept_by_the_postgresql_beside_it() -> None:
    config = loaded(WHISPER_JOBS="postgresql://whisper@postgres:5432/whisper")
    database = SERVICES["postgres"]["environment"]
    user, name = database["POSTGRES_USER"], database["POSTGRES_DB"]
    assert config.jobs.database == f"postgresql://{user}@postgres:5432/{name}"
    both = compose(**dict.fromkeys(["POSTGRES_PASSWORD"], "one"))["services"]
    given = {both["whisper"]["environment"]["PGPASSWORD"], *_passwords(both["postgres"])}
    assert given == {"one"}


def _passwords(service: dict[str, Any]) -> set[str]:
    return {value for name, value in service["environment"].items() if "PASSWORD" in name}


def test_it_is_killed_only_after_it_had_the_time_to_drain() -> None:
    assert seconds(WHISPER["stop_grace_period"]) >= loaded().server.drain_timeout_s + 40


@pytest.mark.parametrize(("file", "variant"), [*zip(FILES, ("cpu", "cuda"), strict=True)])
def test_the_image_is_named_for_what_it_is(file: str, variant: str) -> None:
    service = filled_in(read(DEPLOY / file), {})["services"]["whisper"]
    assert service["image"] == f"whisper-serve:{__version__}-{variant}"
    assert service["build"]["args"]["VARIANT"] == variant


def test_a_gpu_is_asked_for_where_there_is_one() -> None:
    service = read(DEPLOY / "compose.gpu.yaml")["services"]["whisper"]
    [device] = service["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]


# Monitoring


def test_prometheus_scrapes_as_everywhere_but_for_the_place() -> None:
    here = read(DEPLOY / "compose" / "prometheus.yaml")
    there = read(DEPLOY / "monitoring" / "prometheus" / "prometheus.yaml")
    [job], [other] = here["scrape_configs"], there["scrape_configs"]
    assert job["static_configs"] == [{"targets": [f"whisper:{loaded().server.port}"]}]
    other["static_configs"] = job["static_configs"]
    assert here == there


def test_prometheus_finds_its_files_and_its_key() -> None:
    prometheus = SERVICES["prometheus"]
    config = read(DEPLOY / "compose" / "prometheus.yaml")
    [job] = config["scrape_configs"]
    assert "--config.file=/etc/prometheus/prometheus.yaml" in prometheus["command"]
    assert {f"/etc/prometheus/{file}" for file in config["rule_files"]} < {*binds(prometheus)}
    [secret] = prometheus["secrets"]
    assert secret["target"] == job["authorization"]["credentials_file"]


def test_grafana_finds_prometheus_and_the_dashboard() -> None:
    grafana = SERVICES["grafana"]
    [source] = read(DEPLOY / "compose/grafana/datasources.yaml")["datasources"]
    assert (source["type"], source["isDefault"]) == ("prometheus", True)
    assert source["url"] == "http://prometheus:9090"
    [provider] = read(DEPLOY / "compose/grafana/dashboards.yaml")["providers"]
    folder = binds(grafana)[provider["options"]["path"]]
    home = Path(grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert home.parent == Path(provider["options"]["path"])
    assert (folder / home.name).is_file()


KNOWN = {
    "datasources": {"name", "uid", "type", "access", "url", "isDefault", "editable", "jsonData"},
    "providers": {
        *("name", "type", "disableDeletion", "allowUiUpdates", "updateIntervalSeconds", "options"),
    },
}


@pytest.mark.parametrize(("file", "key"), [*zip(("datasources", "dashboards"), KNOWN, strict=True)])
def test_grafana_knows_every_key_of_what_it_is_given(file: str, key: str) -> None:
    values = read(DEPLOY / "compose" / "grafana" / f"{file}.yaml")
    assert values.pop("apiVersion") == 1
    assert all(each.keys() <= KNOWN[key] for each in values.pop(key))
    assert values.keys() <= {"prune"}


def test_grafana_takes_its_password_from_a_file() -> None:
    grafana = SERVICES["grafana"]
    assert grafana["environment"]["GF_SECURITY_ADMIN_PASSWORD__FILE"] == (
        f"/run/secrets/{grafana['secrets'][0]}"
    )
