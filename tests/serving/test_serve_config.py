"""What Serve would ignore in its config is found, and what is committed has no fault."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from whisper_serve.cli import main
from whisper_serve.config import Config
from whisper_serve.config_file import checked
from whisper_serve.errors import ConfigError
from whisper_serve.serving.app import make_app
from whisper_serve.serving.plan import Node, make_plan
from whisper_serve.serving.serve_config import BUILDER, DEPLOYMENTS, check_serve_config
from whisper_serve.serving.tls import http_options

DEPLOY = Path(__file__).parents[2] / "deploy"
POLICY = "ray.serve.autoscaling_policy:default_autoscaling_policy"


def application(**options: object) -> dict[str, object]:
    return {"name": "whisper_serve", "import_path": BUILDER, **options}


def deployed(**options: object) -> dict[str, object]:
    """With options of one deployment."""
    return {"applications": [application(deployments=[{"name": "WhisperASR", **options}])]}


def told(folder: Path, values: object) -> dict[str, str]:
    """The reason for each key that is a fault."""
    path = folder / "serve.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    try:
        check_serve_config(path)
    except ConfigError as exc:
        return {problem.key: problem.reason for problem in exc.problems}
    return {}


def test_a_config_without_a_fault_passes(tmp_path: Path) -> None:
    options = {"num_cpus": 1, "resources": {"anything": 1}}
    whole = deployed(
        max_ongoing_requests=10,
        user_config={"whatever": {"there": "is"}},
        ray_actor_options=options,
        autoscaling_config={"min_replicas": 1, "max_replicas": 3, "target_ongoing_requests": 2},
        logging_config={"log_level": "INFO"},
    )
    assert (
        told(tmp_path, {**whole, "http_options": {"port": 8000}, "proxy_location": "HeadOnly"})
        == {}
    )


@pytest.mark.parametrize("file", ["serve.yaml", "kuberay/rayservice.yaml"])
def test_the_committed_ones_pass(file: str) -> None:
    check_serve_config(DEPLOY / file)


# Each of these is in a file of an earlier system, parses without a word and does nothing.
@pytest.mark.parametrize(
    ("key", "value", "right"),
    [
        ("max_concurrent_queries", 10, "max_ongoing_requests"),
        ("max_outgoing_requests", 10, "max_ongoing_requests"),
    ],
)
def test_an_option_of_earlier_times_is_told_with_its_name_of_today(
    tmp_path: Path, key: str, value: object, right: str
) -> None:
    assert ServeDeploySchema.model_validate(deployed(**{key: value}))
    assert told(tmp_path, deployed(**{key: value})) == {
        f"applications.0.deployments.0.{key}": f"unknown key; it is called {right}"
    }


@pytest.mark.parametrize(
    ("key", "right"),
    [
        ("target_num_ongoing_requests_per_replica", "target_ongoing_requests"),
        ("target_outgoing_requests", "target_ongoing_requests"),
    ],
)
def test_so_is_one_of_autoscaling(tmp_path: Path, key: str, right: str) -> None:
    values = deployed(autoscaling_config={"min_replicas": 1, key: 5})
    assert ServeDeploySchema.model_validate(values)
    assert told(tmp_path, values) == {
        f"applications.0.deployments.0.autoscaling_config.{key}": (
            f"unknown key; it is called {right}"
        )
    }


def test_what_is_misspelt_is_told_with_what_is_like_it(tmp_path: Path) -> None:
    values = {
        "proxy_locaton": "EveryNode",
        "http_options": {"prot": 8000},
        **deployed(ray_actor_options={"num_gpu": 1}, max_replicas_per_nodes=1),
    }
    assert ServeDeploySchema.model_validate(values)
    assert told(tmp_path, values) == {
        "proxy_locaton": "unknown key; did you mean proxy_location?",
        "http_options.prot": "unknown key; did you mean port?",
        "applications.0.deployments.0.ray_actor_options.num_gpu": (
            "unknown key; did you mean num_gpus?"
        ),
        "applications.0.deployments.0.max_replicas_per_nodes": (
            "unknown key; did you mean max_replicas_per_node?"
        ),
    }


def test_what_is_like_nothing_is_told_with_all_that_there_is(tmp_path: Path) -> None:
    [reason] = told(tmp_path, deployed(ray_actor_options={"dedicated": True})).values()
    assert reason.startswith("unknown key; known: runtime_env, num_cpus, num_gpus")


@pytest.mark.parametrize(
    "place",
    [
        {"grpc_options": {"zz": 1}},
        {"logging_config": {"zz": 1}},
        {"tracing_config": {"zz": 1}},
        {"controller_options": {"zz": 1}},
        {"applications": [application(zz=1)]},
        {"applications": [application(args={"zz": 1})]},
        {"applications": [application(autoscaling_policy={"policy_function": POLICY, "zz": 1})]},
        deployed(logging_config={"zz": 1}),
        deployed(backpressure_config={"zz": 1}),
        deployed(request_router_config={"zz": 1}),
        deployed(autoscaling_config={"policy": {"policy_function": POLICY, "zz": 1}}),
    ],
    ids=str,
)
def test_every_part_of_the_config_is_looked_at(tmp_path: Path, place: dict[str, Any]) -> None:
    [key] = told(tmp_path, {"applications": [application()], **place})
    assert key.endswith(".zz")


def test_every_fault_is_told_at_once(tmp_path: Path) -> None:
    options = {"max_concurrent_queries": 3, "num_replicas": 2, "autoscaling_config": {"x": 1}}
    found = told(tmp_path, {"http_option": {}, **deployed(**options)})
    assert len(found) == 4
    assert "num_replicas is not allowed" in found["applications.0.deployments.0"]


def test_a_number_of_replicas_beside_autoscaling_is_a_fault(tmp_path: Path) -> None:
    values = deployed(num_replicas=2, autoscaling_config={"min_replicas": 1})
    [reason] = told(tmp_path, values).values()
    assert "num_replicas is not allowed" in reason


def test_a_value_that_serve_refuses_is_a_fault(tmp_path: Path) -> None:
    assert told(tmp_path, deployed(max_queued_requests="many")).keys() == {
        "applications.0.deployments.0.max_queued_requests"
    }


def test_code_that_cannot_be_imported_is_a_fault(tmp_path: Path) -> None:
    policy = {"policy_function": "no_such_module:scale"}
    [reason] = told(tmp_path, deployed(autoscaling_config={"policy": policy})).values()
    assert "no_such_module" in reason


def test_a_deployment_that_the_application_has_not_is_a_fault(tmp_path: Path) -> None:
    values = {"applications": [application(deployments=[{"name": "ASR"}])]}
    assert told(tmp_path, values) == {
        "applications.0.deployments.0.name": (
            "there is none of this name; known: Ingress, WhisperASR, JobRunner"
        )
    }


def test_other_applications_may_have_any(tmp_path: Path) -> None:
    other = {"name": "b", "route_prefix": "/b", "import_path": "b:app", "args": {"any": 1}}
    values = {"applications": [application(), {**other, "deployments": [{"name": "B"}]}]}
    assert told(tmp_path, values) == {}


def test_a_time_out_that_would_end_live_sockets_is_a_fault(tmp_path: Path) -> None:
    values = {"applications": [application()], "http_options": {"request_timeout_s": 60}}
    assert told(tmp_path, values).keys() == {"http_options.request_timeout_s"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: [", "not YAML"),
        ("- a\n", "neither a Serve config nor a RayService"),
        ("", "neither a Serve config nor a RayService"),
        ("kind: Service\n", "neither a Serve config nor a RayService"),
        ("kind: RayService\n", "neither a Serve config nor a RayService"),
        ("kind: RayService\nspec: {serveConfigV2: 'a: ['}\n", "not YAML"),
    ],
)
def test_what_is_no_config_is_told(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "serve.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=reason):
        check_serve_config(path)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        check_serve_config(tmp_path / "none.yaml")


def test_the_command_tells_and_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-serve-config", str(DEPLOY / "serve.yaml")]) == 0
    path = tmp_path / "serve.yaml"
    path.write_text(yaml.safe_dump(deployed(max_concurrent_queries=3)), encoding="utf-8")
    assert main(["check-serve-config", str(path)]) == 2
    assert "max_ongoing_requests" in capsys.readouterr().err


def test_the_names_are_those_of_the_application() -> None:
    config = checked({"auth": {"open": True}, "jobs": {"database": "postgresql://h/d"}}, "test")
    app = make_app(config, make_plan(config, [Node(cpus=2.0)]))
    assert names(app) == set(DEPLOYMENTS)


def names(app: Any) -> set[str]:
    """Of all deployments that are bound in it."""
    bound = app._bound_deployment
    inner = [*bound.init_args, *bound.init_kwargs.values()]
    return {
        bound.name,
        *(name for each in inner if hasattr(each, "_bound_deployment") for name in names(each)),
    }


# deploy/serve.yaml


def committed() -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((DEPLOY / "serve.yaml").read_text(encoding="utf-8"))
    return values


def test_what_is_deployed_is_said_by_the_configuration_alone() -> None:
    [only] = committed()["applications"]
    assert only["import_path"] == BUILDER
    assert only["args"] == {"config": "/etc/whisper_serve/config.json"}
    assert "deployments" not in only


def test_the_address_is_told_as_the_command_tells_it() -> None:
    """`whisper-serve serve` gives Serve the same keys."""
    assert http_options(Config().server).keys() <= committed()["http_options"].keys()
    assert "request_timeout_s" not in committed()["http_options"]
