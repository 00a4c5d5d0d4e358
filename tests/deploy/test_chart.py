"""What the chart renders is what Kubernetes takes and the service can be run with."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from checks.chart_schema import definitions
from tests.deploy.rendering import (
    CHART,
    ROOT,
    VARIANTS,
    Document,
    groups,
    helm,
    helm_program,
    of_kind,
    pods,
    ray_cluster,
    ray_service,
    refusal,
    rendered,
    template,
)
from tests.deploy.schemas import validate
from whisper_serve.api.auth.startup import require_keys
from whisper_serve.config import Config
from whisper_serve.config_file import load_config
from whisper_serve.serving.cluster import CLUSTER_ENVIRONMENT
from whisper_serve.serving.plan import make_plan

# Kinds that others define; what they take is asked in tests of their own.
OF_OTHERS = {
    *("RayService", "NodePool", "EC2NodeClass"),
    *("PodMonitor", "ScrapeConfig", "PrometheusRule"),
}
EKS, CPU, KIND = "values-eks.yaml", "values-cpu.yaml", "values-kind.yaml"


def configuration(variant: str, folder: Path) -> Config:
    """As a pod reads it."""
    [found] = [
        document["data"]["config.json"]
        for document in of_kind(rendered(variant), "ConfigMap")
        if document["metadata"]["name"] == "whisper-serve-config"
    ]
    path = folder / "config.json"
    path.write_text(found, encoding="utf-8")
    return load_config(path, {})


def containers(variant: str) -> list[Document]:
    return [each for pod in pods(variant).values() for each in pod["spec"]["containers"]]


@pytest.mark.parametrize("variant", VARIANTS)
def test_helm_finds_no_fault_in_the_chart(variant: str) -> None:
    done = helm("lint", "--strict", str(CHART), "--values", str(CHART / variant))
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("variant", VARIANTS)
def test_kubernetes_knows_every_key(variant: str) -> None:
    for document in rendered(variant):
        if document["kind"] not in OF_OTHERS:
            validate(document)


@pytest.mark.parametrize("variant", VARIANTS)
def test_kubernetes_knows_every_key_of_the_pods(variant: str) -> None:
    for pod in pods(variant).values():
        metadata = {"name": "a-pod", **pod["metadata"]}
        validate({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod["spec"]})


@pytest.mark.parametrize("variant", VARIANTS)
def test_nothing_has_the_name_of_another_thing(variant: str) -> None:
    names = [(document["kind"], document["metadata"]["name"]) for document in rendered(variant)]
    assert len(set(names)) == len(names)


# The configuration


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_service_takes_the_configuration(variant: str, tmp_path: Path) -> None:
    config = configuration(variant, tmp_path)
    require_keys(config)
    assert config.jobs.database is None
    assert config.logging.file is None


@pytest.mark.parametrize("variant", VARIANTS)
def test_nothing_is_left_to_what_machines_there_happen_to_be(variant: str, tmp_path: Path) -> None:
    config = configuration(variant, tmp_path)
    plan = make_plan(config, [], grows=True)
    assert plan.front_cpus == config.server.num_cpus
    assert config.autoscaling.engine_replicas
    assert plan.replicas == config.autoscaling.engine_replicas[1]
    assert plan.gpus_per_replica == (1.0 if variant == EKS else 0.0)


def ingress_room(group: Document, config: Config) -> int:
    return int(int(group["rayStartParams"]["num-cpus"]) // config.server.num_cpus)


def engine_room(group: Document, config: Config) -> int:
    """How many engines a pod holds."""
    wanted = config.deployment
    assert isinstance(wanted.cpu_per_replica, float)
    by_cpus = int(group["rayStartParams"]["num-cpus"]) / wanted.cpu_per_replica
    if config.model.device != "cuda":
        return int(by_cpus)
    return int(min(by_cpus, int(group["rayStartParams"]["num-gpus"]) / wanted.gpu_per_replica))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("end", [0, 1], ids=["least", "most"])
def test_the_pods_hold_all_replicas(variant: str, end: int, tmp_path: Path) -> None:
    config = configuration(variant, tmp_path)
    workers = {name: group for name, group in groups(variant).items() if name != "head"}
    engines = config.autoscaling.engine_replicas
    assert engines is not None
    count = "maxReplicas" if end else "minReplicas"
    engine_pods = sum(engine_room(group, config) * group[count] for group in workers.values())
    assert engine_pods >= engines[end]
    cpus = sum(
        int(group["rayStartParams"]["num-cpus"]) * group[count] for group in workers.values()
    )
    taken = config.server.num_cpus * config.autoscaling.ingress_replicas[end]
    assert cpus >= taken + engines[end] * float(config.deployment.cpu_per_replica)


def test_no_ingress_lands_beside_a_gpu(tmp_path: Path) -> None:
    config = configuration(EKS, tmp_path)
    gpu = groups(EKS)["gpu"]
    used = engine_room(gpu, config) * float(config.deployment.cpu_per_replica)
    assert int(gpu["rayStartParams"]["num-cpus"]) - used < config.server.num_cpus


def test_the_fronts_hold_their_streams_in_memory(tmp_path: Path) -> None:
    config, front = configuration(EKS, tmp_path), groups(EKS)["front"]
    [container] = front["template"]["spec"]["containers"]
    gib = int(container["resources"]["limits"]["memory"].removesuffix("Gi"))
    streams = config.autoscaling.streams_per_ingress * ingress_room(front, config)
    # As docs/operations.md has it: for each ingress, for each stream, and for Ray's own.
    assert 0.23 * ingress_room(front, config) + 0.045 * streams + 1.3 < gib


def test_another_configuration_asks_for_other_pods() -> None:
    def digests(*settings: str) -> set[str]:
        found = pods(EKS, *settings).values()
        return {pod["metadata"]["annotations"]["checksum/config"] for pod in found}

    assert len(digests()) == 1
    assert digests() != digests("config.model.beam_size=1")


# Time to end


def test_nothing_is_ended_before_its_sessions(tmp_path: Path) -> None:
    for variant in VARIANTS:
        server = configuration(variant, tmp_path).server
        service, front = ray_service(variant)["spec"], pods(variant)["front"]["spec"]
        [container] = front["containers"]
        told_s = float(container["lifecycle"]["preStop"]["exec"]["command"][-1])
        needed_s = server.handover_timeout_s + server.drain_timeout_s
        assert needed_s < told_s < front["terminationGracePeriodSeconds"]
        assert needed_s < service["rayClusterDeletionDelaySeconds"]


def test_a_machine_outlives_its_pods() -> None:
    longest_s = max(pod["spec"]["terminationGracePeriodSeconds"] for pod in pods(EKS).values())
    for pool in of_kind(rendered(EKS), "NodePool"):
        grace = pool["spec"]["template"]["spec"]["terminationGracePeriod"]
        assert int(grace.removesuffix("s")) > longest_s


def attribute(name: str) -> float:
    """One of the load balancer's, which the Ingress asks for."""
    [ingress] = of_kind(rendered(EKS), "Ingress")
    asked = ",".join(ingress["metadata"]["annotations"].values()).split(",")
    [value] = [text.partition("=")[2] for text in asked if text.startswith(f"{name}=")]
    return float(value)


def test_the_load_balancer_leaves_sockets_alone(tmp_path: Path) -> None:
    config = configuration(EKS, tmp_path)
    assert attribute("deregistration_delay.timeout_seconds") >= config.server.handover_timeout_s
    assert attribute("idle_timeout.timeout_seconds") >= config.limits.request_timeout_s
    serve = yaml.safe_load(ray_service(EKS)["spec"]["serveConfigV2"])
    kept_s = serve["http_options"]["keep_alive_timeout_s"]
    assert kept_s > attribute("idle_timeout.timeout_seconds")


# Who may do what


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_container_has_rights_that_it_does_not_need(variant: str) -> None:
    for pod in pods(variant).values():
        assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
        assert pod["spec"]["securityContext"]["runAsUser"] == 10001
        assert pod["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    options = ray_cluster(variant).get("autoscalerOptions")
    for container in [*containers(variant), *([options] if options else [])]:
        rights = container["securityContext"]
        assert rights["allowPrivilegeEscalation"] is False
        assert rights["readOnlyRootFilesystem"] is True
        assert rights["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_has_to_be_written_can_be_written(variant: str) -> None:
    for pod in pods(variant).values():
        disks = {each["name"] for each in pod["spec"]["volumes"] if "emptyDir" in each}
        [container] = pod["spec"]["containers"]
        writable = {
            mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] in disks
        }
        assert {"/tmp", "/var/lib/whisper_serve"} <= writable  # noqa: S108
        assert {"name": "HOME", "value": "/var/lib/whisper_serve"} in container["env"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_only_the_autoscaler_is_given_a_token_of_kubernetes(variant: str) -> None:
    for pod in pods(variant).values():
        assert pod["spec"]["automountServiceAccountToken"] is False
    for container in containers(variant):
        assert "autoscaler-token" not in [mount["name"] for mount in container["volumeMounts"]]
    for account in of_kind(rendered(variant), "ServiceAccount"):
        assert account["automountServiceAccountToken"] is False
    options = ray_cluster(variant).get("autoscalerOptions", {"volumeMounts": []})
    mounts = {mount["name"]: mount["mountPath"] for mount in options["volumeMounts"]}
    assert mounts.get("autoscaler-token") in {None, "/var/run/secrets/kubernetes.io/serviceaccount"}


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_secret_is_written_down(variant: str) -> None:
    assert of_kind(rendered(variant), "Secret") == []


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_process_shows_ray_its_token(variant: str) -> None:
    options = ray_cluster(variant)["authOptions"]
    assert options == {"mode": "token", "secretName": "whisper-serve-ray"}


def matches(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    wanted: dict[str, str] = selector.get("matchLabels", {})
    return wanted.items() <= labels.items()


def reaches(peer: dict[str, Any], source: dict[str, Any]) -> bool:
    """A peer of a policy; `source`: {pod} of the same namespace, {namespace} or {cidr}."""
    if "ipBlock" in peer:
        return bool(peer["ipBlock"]["cidr"] == source.get("cidr"))
    if "namespaceSelector" in peer:
        return matches(peer["namespaceSelector"], source.get("namespace", {}))
    return matches(peer["podSelector"], source.get("pod", {})) and "pod" in source


def is_let_in(variant: str, source: dict[str, Any], target: str, port: int) -> bool:
    """Whether a NetworkPolicy lets it through; a pod that one selects gets nothing else."""
    labels = pods(variant)[target]["metadata"]["labels"]
    policies = [
        policy["spec"]
        for policy in of_kind(rendered(variant), "NetworkPolicy")
        if matches(policy["spec"]["podSelector"], labels)
    ]
    assert policies
    return any(
        ("from" not in rule or any(reaches(peer, source) for peer in rule["from"]))
        and ("ports" not in rule or port in [each["port"] for each in rule["ports"]])
        for policy in policies
        for rule in policy["ingress"]
    )


MONITORING = {"namespace": {"kubernetes.io/metadata.name": "monitoring"}}
OPERATOR = {"namespace": {"kubernetes.io/metadata.name": "kuberay-system"}}
STRANGER = {"namespace": {"kubernetes.io/metadata.name": "other"}}
VPC = {"cidr": "10.0.0.0/16"}
INSIDE = {"pod": {"app.kubernetes.io/part-of": "whisper-serve"}}


@pytest.mark.parametrize(
    ("source", "target", "port", "expected"),
    [
        (VPC, "front", 8000, True),
        (MONITORING, "front", 8000, True),
        (MONITORING, "front", 8080, True),
        (MONITORING, "gpu", 8080, True),
        (OPERATOR, "head", 8265, True),
        (VPC, "gpu", 8000, False),
        (VPC, "head", 8000, False),
        (VPC, "front", 8265, False),
        (VPC, "head", 6379, False),
        (OPERATOR, "front", 8000, False),
        (MONITORING, "head", 8265, False),
        (STRANGER, "head", 8265, False),
        (STRANGER, "front", 8000, False),
        (STRANGER, "front", 8080, False),
    ],
)
def test_only_those_who_have_to_reach_a_port_do(
    source: dict[str, Any], target: str, port: int, expected: bool
) -> None:
    assert is_let_in(EKS, source, target, port) is expected


@pytest.mark.parametrize("port", [6379, 8265, 10001, 30123])
def test_the_pods_of_the_cluster_reach_each_other(port: int) -> None:
    for source in pods(EKS).values():
        inside = {"pod": source["metadata"]["labels"]}
        assert all(is_let_in(EKS, inside, target, port) for target in pods(EKS))


def test_the_cluster_of_another_release_is_a_stranger() -> None:
    assert not is_let_in(EKS, INSIDE, "head", 6379)


# Pods


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_pod_says_what_it_needs_and_gets_no_more_memory(variant: str) -> None:
    for container in containers(variant):
        asked = container["resources"]
        assert {"cpu", "memory"} <= asked["requests"].keys()
        assert "memory" in asked["limits"]
        assert not container["image"].endswith(":latest")
        assert ":0.1.0-" in container["image"]


def test_gpus_are_asked_for_and_have_the_image_for_them() -> None:
    for name, pod in pods(EKS).items():
        [container] = pod["spec"]["containers"]
        gpus = container["resources"]["limits"].get("nvidia.com/gpu", 0)
        assert (gpus, container["image"].rpartition("-")[2]) == (
            (1, "cuda") if name == "gpu" else (0, "cpu")
        )
        assert gpus == int(groups(EKS)[name]["rayStartParams"].get("num-gpus", 0))


@pytest.mark.parametrize("variant", VARIANTS)
def test_ray_finds_what_it_has_to_in_its_environment(variant: str) -> None:
    for container in containers(variant):
        given = {each["name"]: each["value"] for each in container["env"]}
        assert CLUSTER_ENVIRONMENT.items() <= given.items()


def test_what_is_in_front_is_believed_whom_a_request_comes_from() -> None:
    [policy] = [
        each["spec"]
        for each in of_kind(rendered(EKS), "NetworkPolicy")
        if each["metadata"]["name"] == "whisper-serve-clients"
    ]
    networks = [
        peer["ipBlock"]["cidr"] for peer in policy["ingress"][0]["from"] if "ipBlock" in peer
    ]
    for container in containers(EKS):
        given = {each["name"]: each["value"] for each in container["env"]}
        assert given["FORWARDED_ALLOW_IPS"].split(",") == networks


def test_a_budget_leaves_all_fronts_but_one() -> None:
    [budget] = of_kind(rendered(EKS), "PodDisruptionBudget")
    # The disruption controller cannot count the pods of a RayCluster for anything else.
    assert budget["spec"].keys() == {"minAvailable", "selector"}
    assert budget["spec"]["minAvailable"] == groups(EKS)["front"]["minReplicas"] - 1
    labels = pods(EKS)["front"]["metadata"]["labels"]
    assert matches(budget["spec"]["selector"], labels)
    assert of_kind(rendered(KIND), "PodDisruptionBudget") == []


def test_keys_come_from_a_secret_into_the_folder_of_the_configuration(tmp_path: Path) -> None:
    config = configuration(EKS, tmp_path)
    assert config.auth.keys_file == tmp_path / "keys" / "keys.json"
    for pod in pods(EKS).values():
        [volume] = [each for each in pod["spec"]["volumes"] if each["name"] == "config"]
        [secret] = [each["secret"] for each in volume["projected"]["sources"] if "secret" in each]
        assert secret["items"] == [{"key": "keys.json", "path": "keys/keys.json"}]


def test_weights_can_be_mounted() -> None:
    claim = "models.volume.persistentVolumeClaim.claimName=weights"
    for pod in pods(EKS, claim).values():
        [container] = pod["spec"]["containers"]
        mounts = {each["name"]: each for each in container["volumeMounts"]}
        assert mounts["models"] == {"name": "models", "mountPath": "/models", "readOnly": True}


# Ways in


def test_the_ingress_leads_to_kuberay_s_service() -> None:
    [ingress] = of_kind(rendered(EKS), "Ingress")
    [rule] = ingress["spec"]["rules"]
    [path] = rule["http"]["paths"]
    assert path["backend"]["service"] == {
        "name": "whisper-serve-serve-svc",
        "port": {"number": 8000},
    }


def test_a_route_of_a_gateway_has_no_time_out() -> None:
    parent = "gateway.parentRefs[0].name=outer"
    [route] = of_kind(rendered(CPU, "gateway.enabled=true", parent), "HTTPRoute")
    [rule] = route["spec"]["rules"]
    assert rule["timeouts"] == {"request": "0s", "backendRequest": "0s"}
    assert rule["backendRefs"] == [{"name": "whisper-serve-serve-svc", "port": 8000}]
    assert route["spec"]["parentRefs"] == [{"name": "outer"}]


# What is monitored

MONITORING_FILES = ROOT / "deploy" / "monitoring"


def test_the_service_is_asked_once_and_ray_pod_by_pod() -> None:
    [scrape] = of_kind(rendered(EKS), "ScrapeConfig")
    assert scrape["spec"]["staticConfigs"] == [
        {"targets": ["whisper-serve-serve-svc.whisper-serve.svc:8000"]}
    ]
    shown = scrape["spec"]["authorization"]["credentials"]
    assert shown == {"name": "whisper-serve-metrics-key", "key": "key"}
    monitors = of_kind(rendered(EKS), "PodMonitor")
    assert {each["spec"]["selector"]["matchLabels"]["ray.io/node-type"] for each in monitors} == {
        *("head", "worker")
    }


def test_nothing_is_counted_twice(tmp_path: Path) -> None:
    assert configuration(EKS, tmp_path).metrics.ray is False
    for monitor in of_kind(rendered(EKS), "PodMonitor"):
        for endpoint in monitor["spec"]["podMetricsEndpoints"]:
            [rule] = endpoint["metricRelabelings"]
            assert (rule["action"], rule["regex"]) == ("drop", "ray_whisper_serve_.*")


def test_monitors_ask_ports_that_pods_have() -> None:
    kinds = {"head": ["head"], "worker": ["front", "gpu"]}
    for monitor in of_kind(rendered(EKS), "PodMonitor"):
        selector = monitor["spec"]["selector"]["matchLabels"]
        ports = {each["port"] for each in monitor["spec"]["podMetricsEndpoints"]}
        for name in kinds[selector["ray.io/node-type"]]:
            pod = pods(EKS)[name]
            [container] = pod["spec"]["containers"]
            # KubeRay sets the type of the node.
            labels = {**pod["metadata"]["labels"], "ray.io/node-type": selector["ray.io/node-type"]}
            assert selector.items() <= labels.items()
            assert ports <= {each["name"] for each in container["ports"]}


def test_alerts_and_dashboard_are_those_of_the_project() -> None:
    [rules] = of_kind(rendered(EKS), "PrometheusRule")
    written = yaml.safe_load((MONITORING_FILES / "prometheus" / "alerts.yaml").read_text())
    assert rules["spec"] == written
    maps = of_kind(rendered(EKS), "ConfigMap")
    [dashboard] = [each for each in maps if "whisper_serve.json" in each["data"]]
    shown = json.loads(dashboard["data"]["whisper_serve.json"])
    assert shown == json.loads((MONITORING_FILES / "grafana" / "whisper_serve.json").read_text())
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"


# Wrong values


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("config.server.handover=3", "additional properties 'handover' not allowed"),
        ("config.autoscaling.engine_replicas=3", "/config/autoscaling/engine_replicas"),
        ("config.model.device=tpu", "/config/model/device"),
        ("imgae.tag=1", "additional properties 'imgae' not allowed"),
        ("image.variant=rocm", "/image/variant"),
        ("workerGroups.gpu.maxReplica=3", "additional properties 'maxReplica' not allowed"),
        ("workerGroups.front.minReplicas=9", "workerGroups.front.minReplicas: it is above"),
        ("workerGroups.front.front=false", "workerGroups: one of them has to be the front"),
        ("karpenter.amiAlias=bottlerocket@latest", "/karpenter/amiAlias"),
        ("karpenter.clusterName=", "karpenter.clusterName: it is needed"),
        ("gcsFaultTolerance.redisAddress=", "gcsFaultTolerance.redisAddress: it is needed"),
        ("ingress.host=", "ingress.host: it is needed"),
        ("secrets.keysSecret=", "secrets.keysSecret: it is needed"),
        ("monitoring.keySecret=", "monitoring.keySecret: it is needed"),
        ("config.server.tls_cert=a.pem", "TLS ends at the Ingress"),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(setting: str, told: str) -> None:
    assert told in refusal(EKS, setting)


def test_a_release_whose_name_kuberay_does_not_take_is_refused() -> None:
    done = helm("template", "w" * 41, str(CHART))
    assert done.returncode != 0
    assert "longer than 40 characters" in done.stderr


def test_the_schema_knows_the_configuration_of_today() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    assert schema["$defs"] == definitions(), "run: python -m checks.chart_schema"


def test_every_value_is_in_the_schema() -> None:
    """Else it could be misspelt: a section that is not closed takes anything."""
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    assert values.keys() <= schema["properties"].keys()
    assert schema["additionalProperties"] is False


# What is rendered and committed


def test_the_committed_manifests_are_what_the_chart_renders() -> None:
    done = subprocess.run(
        [ROOT / "deploy" / "scripts" / "render.sh", "--check"],
        env={**os.environ, "HELM": helm_program()},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_whoever_installs_it_is_told_how_to_reach_it() -> None:
    done = helm(
        *("install", "whisper-serve", str(CHART), "--dry-run=client"),
        *("--values", str(CHART / EKS), "--namespace", "whisper-serve"),
    )
    assert "https://speech.example.org" in done.stdout, done.stderr
    assert "rayservice/whisper-serve" in done.stdout


def test_what_only_render_sh_asks_for_is_alone() -> None:
    done = template(EKS, "printServeConfig=true")
    [only] = [document for document in yaml.safe_load_all(done.stdout) if document]
    assert "applications" in only
