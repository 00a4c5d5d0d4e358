"""Karpenter takes the pools, and they are such that the pods land where they should."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest

from tests.deploy.rendering import Document, of_kind, pods, rendered
from tests.deploy.schemas import faults

EKS = "values-eks.yaml"
# Of the smallest machine that each pool may choose, and of those what Kubernetes keeps for itself
# and its daemons: vCPUs, GiB.
SMALLEST = {"general": (4, 8), "gpu": (4, 16)}
KEPT_CPUS = 0.6


def pools() -> dict[str, Document]:
    found = of_kind(rendered(EKS), "NodePool")
    return {pool["metadata"]["name"].removeprefix("whisper-serve-"): pool for pool in found}


def requirement(pool: Document, key: str) -> list[str]:
    [found] = [
        each["values"]
        for each in pool["spec"]["template"]["spec"]["requirements"]
        if each["key"] == key
    ]
    values: list[str] = found
    return values


def test_there_is_a_pool_for_gpus_and_one_for_all_else() -> None:
    assert pools().keys() == {"general", "gpu"}


@pytest.mark.parametrize("kind", ["NodePool", "EC2NodeClass"])
def test_karpenter_knows_every_key(kind: str) -> None:
    for document in of_kind(rendered(EKS), kind):
        assert faults(document) == []


@pytest.mark.parametrize("kind", ["NodePool", "EC2NodeClass"])
def test_the_check_can_fail(kind: str) -> None:
    document = of_kind(rendered(EKS), kind)[0]
    [fault] = faults({**document, "spec": {**document["spec"], "expireAfter": "720h"}})
    assert "was unexpected" in fault


def test_every_pool_has_a_class_of_its_own() -> None:
    classes = {each["metadata"]["name"] for each in of_kind(rendered(EKS), "EC2NodeClass")}
    for name, pool in pools().items():
        reference = pool["spec"]["template"]["spec"]["nodeClassRef"]
        assert reference == {
            "group": "karpenter.k8s.aws",
            "kind": "EC2NodeClass",
            "name": f"whisper-serve-{name}",
        }
        assert reference["name"] in classes


def tolerates(pod: Document, taint: dict[str, str]) -> bool:
    return any(
        toleration["key"] == taint["key"] and toleration["effect"] == taint["effect"]
        for toleration in pod["spec"].get("tolerations", [])
    )


def pool_of(pod: Document) -> str:
    """The only one whose machines it may have."""
    [name] = [
        name
        for name, pool in pools().items()
        if pod["spec"]["nodeSelector"].items()
        <= pool["spec"]["template"]["metadata"]["labels"].items()
        and all(tolerates(pod, taint) for taint in pool["spec"]["template"]["spec"]["taints"])
    ]
    return name


def test_every_pod_has_a_pool() -> None:
    assert {name: pool_of(pod) for name, pod in pods(EKS).items()} == {
        "head": "general",
        "front": "general",
        "gpu": "gpu",
    }


def test_nothing_else_lands_on_these_machines() -> None:
    for pool in pools().values():
        assert pool["spec"]["template"]["spec"]["taints"]


def test_a_pod_fits_onto_the_smallest_machine_of_its_pool() -> None:
    for pod in pods(EKS).values():
        [container] = pod["spec"]["containers"]
        cpus, gib = SMALLEST[pool_of(pod)]
        asked = container["resources"]["requests"]
        assert float(asked["cpu"]) <= cpus - KEPT_CPUS
        if pool_of(pod) == "gpu":  # the others may choose a machine with more memory
            assert int(asked["memory"].removesuffix("Gi")) <= gib - 2


def test_sessions_are_on_machines_that_nobody_takes_back() -> None:
    assert requirement(pools()["general"], "karpenter.sh/capacity-type") == ["on-demand"]
    for name in ("head", "front"):
        annotations = pods(EKS)[name]["metadata"]["annotations"]
        assert annotations["karpenter.sh/do-not-disrupt"] == "true"


def test_a_pool_cannot_grow_without_end() -> None:
    for pool in pools().values():
        assert {"cpu", "memory"} <= pool["spec"]["limits"].keys()
    # Two clusters for the time of an upgrade, each with all its engines.
    assert int(pools()["gpu"]["spec"]["limits"]["nvidia.com/gpu"]) == 2 * 8


def duration(text: str) -> timedelta:
    units = {"s": "seconds", "m": "minutes", "h": "hours"}
    parts = re.findall(r"(\d+)([smh])", text)
    return timedelta(**{units[unit]: int(count) for count, unit in parts})


def test_only_empty_machines_are_taken_away_and_few_at_once() -> None:
    for pool in pools().values():
        disruption = pool["spec"]["disruption"]
        assert disruption["consolidationPolicy"] == "WhenEmpty"
        assert duration(disruption["consolidateAfter"]) >= timedelta(minutes=5)
        assert {"nodes": "1"} in disruption["budgets"]
        for budget in disruption["budgets"]:
            assert ("schedule" in budget) == ("duration" in budget)


def classes() -> list[dict[str, Any]]:
    return [each["spec"] for each in of_kind(rendered(EKS), "EC2NodeClass")]


def test_machines_start_from_one_image_that_is_pinned() -> None:
    for spec in classes():
        [term] = spec["amiSelectorTerms"]
        assert re.fullmatch(r"bottlerocket@v\d+\.\d+\.\d+", term["alias"])


def test_pods_cannot_ask_for_the_machine_s_credentials() -> None:
    for spec in classes():
        assert spec["metadataOptions"]["httpTokens"] == "required"
        assert spec["metadataOptions"]["httpPutResponseHopLimit"] == 1


def test_disks_are_encrypted_and_hold_the_images() -> None:
    for spec in classes():
        disks = {each["deviceName"]: each["ebs"] for each in spec["blockDeviceMappings"]}
        assert all(disk["encrypted"] and disk["volumeType"] == "gp3" for disk in disks.values())
        # Bottlerocket has its system on the first and everything else on the second.
        assert int(disks["/dev/xvdb"]["volumeSize"].removesuffix("Gi")) >= 60


def test_amazon_linux_has_one_disk_for_everything() -> None:
    other = rendered(EKS, "karpenter.amiAlias=al2023@v20261001")
    for document in of_kind(other, "EC2NodeClass"):
        assert faults(document) == []
        [disk] = document["spec"]["blockDeviceMappings"]
        assert disk["deviceName"] == "/dev/xvda"
        assert int(disk["ebs"]["volumeSize"].removesuffix("Gi")) >= 60


def test_subnets_and_groups_are_found_by_the_tag_of_the_cluster() -> None:
    for spec in classes():
        for terms in (spec["subnetSelectorTerms"], spec["securityGroupSelectorTerms"]):
            assert terms == [{"tags": {"karpenter.sh/discovery": "whisper-serve"}}]
