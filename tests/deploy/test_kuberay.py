"""KubeRay takes what the chart renders, and makes of it what is meant."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import yaml

from tests.deploy.rendering import (
    ROOT,
    VARIANTS,
    Document,
    groups,
    pods,
    ray_cluster,
    ray_service,
)
from tests.deploy.schemas import faults

EKS, KIND = "values-eks.yaml", "values-kind.yaml"
KUBERAY = ROOT / "deploy" / "kuberay"
# Of KubeRay 1.7.0, as its chart lists them.
GATES = {
    *("RayClusterStatusConditions", "RayJobDeletionPolicy", "RayMultiHostIndexing"),
    *("RayServiceIncrementalUpgrade", "RayCronJob", "RayClusterMTLS"),
    *("RayClusterNetworkPolicy", "RayClusterHistoryServer"),
}
# Which the schema still has, and which do nothing or ask for a gate that is off.
WITHOUT_EFFECT = {
    *("serviceUnhealthySecondThreshold", "deploymentUnhealthySecondThreshold"),
    *("networkPolicy", "tlsOptions", "historyServerOptions"),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_kuberay_knows_every_key(variant: str) -> None:
    assert faults(ray_service(variant)) == []


def changed(document: Document, path: str, value: object) -> Document:
    """A copy with `value` at the dotted path."""
    copied = copy.deepcopy(document)
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    target: Any = copied
    for part in parents:
        target = target[part]
    target[last] = value
    return copied


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("spec.serveConfig", "", "'serveConfig' was unexpected"),
        ("spec.rayClusterConfig.enableInTreeAutoscaler", True, "was unexpected"),
        ("spec.rayClusterConfig.autoscalerOptions.idleTimeoutS", 60, "was unexpected"),
        ("spec.rayClusterConfig.authOptions.mode", "tokens", "is not one of"),
        ("spec.rayClusterConfig.workerGroupSpecs.0.maxReplica", 3, "was unexpected"),
        ("spec.rayClusterConfig.workerGroupSpecs.0.replicas", "3", "is not of type 'integer'"),
        (
            "spec.rayClusterConfig.headGroupSpec.template.spec.containers.0.recources",
            {},
            "was unexpected",
        ),
    ],
)
def test_the_check_can_fail(path: str, value: object, told: str) -> None:
    [fault] = faults(changed(ray_service(EKS), path, value))
    assert told in fault


@pytest.mark.parametrize("variant", VARIANTS)
def test_nothing_is_set_that_has_no_effect(variant: str) -> None:
    service = ray_service(variant)["spec"]
    assert not WITHOUT_EFFECT & {*service, *service["rayClusterConfig"]}


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_replica_belongs_to_the_head(variant: str) -> None:
    assert groups(variant)["head"]["rayStartParams"]["num-cpus"] == "0"
    assert ray_service(variant)["spec"]["excludeHeadPodFromServeSvc"] is True


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_ray_is_told_of_a_pod_is_text(variant: str) -> None:
    for group in groups(variant).values():
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        assert int(group["rayStartParams"]["object-store-memory"]) >= 75 * 2**20


@pytest.mark.parametrize("variant", VARIANTS)
def test_ray_gives_away_no_more_than_the_pod_has(variant: str) -> None:
    for name, group in groups(variant).items():
        [container] = group["template"]["spec"]["containers"]
        cpus = container["resources"]["requests"]["cpu"]
        if name != "head" and variant != KIND:
            assert int(group["rayStartParams"]["num-cpus"]) == int(cpus)


def test_a_cluster_that_grows_leaves_restarts_to_the_operator() -> None:
    # Its autoscaler, version 2, takes nothing but Never, which KubeRay sets.
    assert ray_cluster(EKS)["autoscalerOptions"]["version"] == "v2"
    assert all("restartPolicy" not in pod["spec"] for pod in pods(EKS).values())


def test_one_that_does_not_grow_has_no_autoscaler() -> None:
    cluster = ray_cluster(KIND)
    assert cluster["enableInTreeAutoscaling"] is False
    assert "autoscalerOptions" not in cluster
    assert pods(KIND)["head"]["spec"]["serviceAccountName"] == "whisper-serve"
    assert all("idleTimeoutSeconds" not in group for group in cluster["workerGroupSpecs"])


def test_the_head_of_one_that_grows_has_the_account_that_kuberay_makes() -> None:
    assert "serviceAccountName" not in pods(EKS)["head"]["spec"]


def test_sockets_go_through_fronts_only() -> None:
    """KubeRay's Service selects all workers that are ready, whatever its template says."""
    for name, pod in pods(EKS).items():
        gates = pod["spec"].get("readinessGates", [])
        assert bool(gates) == (name == "gpu")
    assert pods(EKS)["front"]["metadata"]["labels"]["whisper-serve/front"] == "true"


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_front_is_ready_while_its_proxy_takes_what_is_new(variant: str) -> None:
    [container] = pods(variant)["front"]["spec"]["containers"]
    probe = container["readinessProbe"]
    assert probe["httpGet"] == {"path": "/-/healthz", "port": 8000}
    assert probe["periodSeconds"] * probe["failureThreshold"] <= 10


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_pod_hands_over_before_ray_ends_in_it(variant: str) -> None:
    for name, pod in pods(variant).items():
        [container] = pod["spec"]["containers"]
        if name != "head":
            command = container["lifecycle"]["preStop"]["exec"]["command"]
            assert command[:3] == ["python", "-m", "whisper_serve.serving.leaving"]
            assert float(command[3]) < pod["spec"]["terminationGracePeriodSeconds"]


def test_the_control_store_outlives_the_head_in_production() -> None:
    options = ray_cluster(EKS)["gcsFaultToleranceOptions"]
    assert options["backend"] == "redis"
    assert options["redisPassword"]["valueFrom"]["secretKeyRef"]["key"] == "password"
    assert "gcsFaultToleranceOptions" not in ray_cluster("values-cpu.yaml")


# The operator


def operator_values() -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((KUBERAY / "operator-values.yaml").read_text())
    return values


def test_the_operator_is_told_of_all_its_gates_by_name() -> None:
    gates = operator_values()["featureGates"]
    assert {gate["name"] for gate in gates} == GATES
    assert len(gates) == len(GATES)


def test_the_operator_is_the_version_that_the_guide_installs() -> None:
    tag = operator_values()["image"]["tag"]
    guide = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
    assert tag == "v1.7.0"
    assert "--version 1.7.0" in guide
    script = (ROOT / "deploy" / "scripts" / "deploy.sh").read_text(encoding="utf-8")
    assert "KUBERAY_VERSION:-1.7.0" in script


def test_ray_is_the_version_of_the_requirements() -> None:
    pinned = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    assert f"ray[serve]=={ray_cluster(EKS)['rayVersion']}" in pinned
