from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from whisper_serve.config import Config
from whisper_serve.errors import ConfigError, ServerStartError
from whisper_serve.serving.plan import Node, Plan, make_plan

LAPTOP = [Node(cpus=8)]
ONE_GPU = [Node(cpus=8, gpus=1)]
FOUR_GPUS = [Node(cpus=32, gpus=4)]


def plan_for(nodes: list[Node], **sections: dict[str, Any]) -> Plan:
    return make_plan(Config.model_validate(sections), nodes)


def refused(nodes: list[Node], **sections: dict[str, Any]) -> tuple[str, object, str]:
    with pytest.raises(ConfigError) as caught:
        plan_for(nodes, **sections)
    [problem] = caught.value.problems
    return problem.key, problem.value, problem.reason


# One machine without a GPU


def test_a_laptop_gets_one_replica_that_uses_all_its_cpus() -> None:
    assert plan_for(LAPTOP) == Plan(
        device="cpu",
        engine="ctranslate2",
        compute_type="int8",
        replicas=1,
        workers=2,
        threads_per_worker=4,
        rows=8,
        cpus_per_replica=8.0,
        gpus_per_replica=0.0,
        front_cpus=0.0,
    )


def test_torch_decodes_one_window_on_all_cpus() -> None:
    plan = plan_for(LAPTOP, model={"engine": "torch"})
    assert (plan.workers, plan.threads_per_worker) == (1, 8)
    assert plan.compute_type == "float32"


def test_a_gpu_decodes_more_windows_together_than_a_cpu() -> None:
    assert plan_for(FOUR_GPUS).rows > plan_for(LAPTOP).rows


def test_how_many_windows_are_decoded_together_can_be_said() -> None:
    assert plan_for(FOUR_GPUS, deployment={"batch_windows": 3}).rows == 3


def test_replicas_share_the_cpus() -> None:
    plan = plan_for(LAPTOP, deployment={"num_replicas": 3})
    assert (plan.replicas, plan.cpus_per_replica, plan.workers) == (3, 2.0, 2)


def test_more_replicas_than_cpus_get_a_part_of_one() -> None:
    plan = plan_for([Node(cpus=2)], deployment={"num_replicas": 3})
    assert plan.cpus_per_replica == 0.666
    assert (plan.workers, plan.threads_per_worker) == (1, 1)


def test_a_dedicated_cpu_is_left_free() -> None:
    plan = plan_for(LAPTOP, server={"dedicated_cpu": True, "num_cpus": 2})
    assert (plan.front_cpus, plan.cpus_per_replica, plan.workers) == (2.0, 6.0, 2)


def test_without_dedication_the_front_takes_what_is_left_over() -> None:
    plan = plan_for(LAPTOP, server={"dedicated_cpu": False, "num_cpus": 2})
    assert (plan.front_cpus, plan.cpus_per_replica) == (0.0, 8.0)


def test_the_cpus_of_a_replica_can_be_chosen() -> None:
    plan = plan_for(LAPTOP, deployment={"num_replicas": 2, "cpu_per_replica": 2.5})
    assert (plan.cpus_per_replica, plan.workers) == (2.5, 2)


def test_a_part_of_a_cpu_still_decodes() -> None:
    plan = plan_for(LAPTOP, deployment={"cpu_per_replica": 0.5})
    assert (plan.cpus_per_replica, plan.workers, plan.threads_per_worker) == (0.5, 1, 1)


def test_the_wish_for_gpus_means_nothing_without_one() -> None:
    plan = plan_for(LAPTOP, deployment={"gpu_per_replica": 4})
    assert (plan.device, plan.gpus_per_replica) == ("cpu", 0.0)


# GPUs


def test_a_gpu_runs_torch_in_half_precision() -> None:
    plan = plan_for(ONE_GPU)
    assert (plan.device, plan.engine, plan.compute_type) == ("cuda", "torch", "float16")
    assert (plan.replicas, plan.workers, plan.gpus_per_replica) == (1, 1, 1.0)


def test_every_gpu_gets_a_replica_and_its_share_of_the_cpus() -> None:
    plan = plan_for(FOUR_GPUS)
    assert (plan.replicas, plan.gpus_per_replica, plan.cpus_per_replica) == (4, 1.0, 8.0)


@pytest.mark.parametrize(
    ("share", "replicas"), [(0.5, 8), (0.25, 16), (1 / 3, 12), (0.3, 12), (2, 2), (3, 1), (4, 1)]
)
def test_a_gpu_is_shared_and_gpus_are_joined(share: float, replicas: int) -> None:
    plan = plan_for(FOUR_GPUS, deployment={"gpu_per_replica": share})
    assert (plan.replicas, plan.gpus_per_replica) == (replicas, share)


def test_fewer_replicas_than_gpus_have_more_cpus() -> None:
    plan = plan_for(FOUR_GPUS, deployment={"num_replicas": 2})
    assert (plan.replicas, plan.cpus_per_replica) == (2, 16.0)


def test_a_gpu_that_is_not_wanted_stays_idle() -> None:
    assert plan_for(ONE_GPU, model={"device": "cpu"}).gpus_per_replica == 0.0
    assert plan_for(ONE_GPU, deployment={"gpu_per_replica": 0}).device == "cpu"


def test_ctranslate2_runs_on_a_gpu_when_it_is_chosen() -> None:
    plan = plan_for(ONE_GPU, model={"engine": "ctranslate2"})
    assert (plan.engine, plan.device, plan.compute_type) == ("ctranslate2", "cuda", "float16")


@pytest.mark.parametrize(
    ("cpus", "workers", "threads"),
    [(1, 1, 1), (2, 2, 1), (3, 3, 1), (4, 2, 2), (6, 2, 3), (8, 2, 4), (16, 4, 4), (64, 16, 4)],
)
def test_cpus_become_two_workers_then_threads_then_more_workers(
    cpus: int, workers: int, threads: int
) -> None:
    plan = plan_for([Node(cpus=cpus)])
    assert (plan.workers, plan.threads_per_worker) == (workers, threads)


@pytest.mark.parametrize("compute_type", ["float32", "float16", "bfloat16"])
def test_a_compute_type_that_fits_is_taken(compute_type: str) -> None:
    assert plan_for(ONE_GPU, model={"compute_type": compute_type}).compute_type == compute_type


# Several machines


def test_every_machine_gets_a_replica_of_the_same_size() -> None:
    plan = plan_for([Node(cpus=16), Node(cpus=4)])
    assert (plan.replicas, plan.cpus_per_replica) == (2, 4.0)


def test_replicas_are_spread_over_machines() -> None:
    plan = plan_for([Node(cpus=8), Node(cpus=8)], deployment={"num_replicas": 3})
    assert (plan.replicas, plan.cpus_per_replica) == (3, 4.0)


def test_machines_without_a_gpu_hold_no_replica() -> None:
    plan = plan_for([Node(cpus=2), Node(cpus=32, gpus=4)])
    assert (plan.replicas, plan.cpus_per_replica) == (4, 8.0)


def test_many_gpus_in_one_machine_are_not_promised_the_cpus_of_others() -> None:
    plan = plan_for([Node(cpus=8), Node(cpus=8), Node(cpus=8), Node(cpus=8, gpus=4)])
    assert (plan.replicas, plan.cpus_per_replica) == (4, 2.0)


def test_a_machine_with_too_few_gpus_holds_no_replica() -> None:
    nodes = [Node(cpus=4, gpus=1), Node(cpus=16, gpus=4)]
    plan = plan_for(nodes, deployment={"gpu_per_replica": 2})
    assert (plan.replicas, plan.cpus_per_replica) == (2, 8.0)


# Wishes that no machine grants


def test_no_machine_at_all_is_an_error() -> None:
    with pytest.raises(ServerStartError, match="no machine"):
        plan_for([])


def test_cuda_needs_a_gpu() -> None:
    key, value, _ = refused(LAPTOP, model={"device": "cuda"})
    assert (key, value) == ("model.device", "cuda")


def test_cuda_needs_a_share_of_a_gpu() -> None:
    wish = {"gpu_per_replica": 0}
    key, value, _ = refused(ONE_GPU, model={"device": "cuda"}, deployment=wish)
    assert (key, value) == ("deployment.gpu_per_replica", 0)


def test_a_replica_fits_into_one_machine() -> None:
    nodes = [Node(cpus=8, gpus=1), Node(cpus=8, gpus=1)]
    key, value, reason = refused(nodes, deployment={"gpu_per_replica": 2})
    assert (key, value) == ("deployment.gpu_per_replica", 2)
    assert reason == "the largest machine has 1"


def test_replicas_need_gpus() -> None:
    key, value, reason = refused(FOUR_GPUS, deployment={"num_replicas": 5})
    assert (key, value) == ("deployment.num_replicas", 5)
    assert reason == "the GPUs that are there hold 4, each with 1"


def test_replicas_need_the_cpus_that_they_are_promised() -> None:
    deployment = {"num_replicas": 2, "cpu_per_replica": 5}
    key, value, reason = refused(LAPTOP, deployment=deployment)
    assert (key, value) == ("deployment.cpu_per_replica", 5)
    assert reason == "2 replicas have 4 CPUs each at the most"


@pytest.mark.parametrize("front", [8, 9])
def test_the_front_leaves_something_for_the_engines(front: float) -> None:
    key, value, _ = refused(LAPTOP, server={"dedicated_cpu": True, "num_cpus": front})
    assert (key, value) == ("server.num_cpus", front)


def test_the_front_and_the_replicas_fit_together() -> None:
    front, wish = {"dedicated_cpu": True}, {"cpu_per_replica": 8}
    assert refused(LAPTOP, server=front, deployment=wish)[0] == "deployment.cpu_per_replica"


@pytest.mark.parametrize(
    ("nodes", "model"),
    [
        (LAPTOP, {"compute_type": "float16"}),
        (LAPTOP, {"compute_type": "bfloat16", "engine": "torch"}),
        (LAPTOP, {"compute_type": "int8_float16"}),
        (ONE_GPU, {"compute_type": "int8"}),
    ],
)
def test_the_engine_that_was_chosen_can_compute_so(
    nodes: list[Node], model: dict[str, str]
) -> None:
    key, value, _ = refused(nodes, model=model)
    assert (key, value) == ("model.compute_type", model["compute_type"])


# Whatever is planned can be placed

machines = st.lists(
    st.builds(Node, cpus=st.integers(1, 16).map(float), gpus=st.integers(0, 4).map(float)),
    min_size=1,
    max_size=4,
)


def placed(plan: Plan, nodes: list[Node], order: list[int]) -> int:
    """Replicas that find room when machines are filled up one after the other."""
    count = 0
    for index in order:
        cpus, gpus = nodes[index].cpus, [1.0] * int(nodes[index].gpus)
        while count < plan.replicas and cpus + 1e-9 >= plan.cpus_per_replica:
            if not took_gpus(gpus, plan.gpus_per_replica):
                break
            cpus -= plan.cpus_per_replica
            count += 1
    return count


def took_gpus(gpus: list[float], share: float) -> bool:
    """Takes `share` from `gpus`, what is left of each; a fraction comes from a single one."""
    if share < 1:
        fitting = [index for index, left in enumerate(gpus) if left + 1e-6 >= share]
        for index in fitting[:1]:
            gpus[index] -= share
        return not share or bool(fitting)
    whole = [index for index, left in enumerate(gpus) if left == 1]
    for index in whole[: int(share)]:
        gpus[index] = 0.0
    return len(whole) >= share


@settings(deadline=None)
@given(
    nodes=machines,
    front=st.sampled_from([0, 0.5, 1, 2]),
    replicas=st.one_of(st.just("auto"), st.integers(1, 12)),
    share=st.sampled_from([0, 0.25, 0.3, 0.5, 1, 2]),
    data=st.data(),
)
def test_every_replica_of_a_plan_finds_room(
    nodes: list[Node], front: float, replicas: int | str, share: float, data: st.DataObject
) -> None:
    sections: dict[str, dict[str, Any]] = {
        "server": {"dedicated_cpu": front > 0, "num_cpus": front or 1},
        "deployment": {"num_replicas": replicas, "gpu_per_replica": share},
    }
    try:
        plan = plan_for(nodes, **sections)
    except ConfigError:
        assume(False)
    # The front is wherever it fits, as Ray likes it.
    fitting = [index for index, node in enumerate(nodes) if node.cpus >= front]
    host = data.draw(st.sampled_from(fitting))
    left = [
        Node(node.cpus - front if index == host else node.cpus, node.gpus)
        for index, node in enumerate(nodes)
    ]
    order = data.draw(st.permutations(range(len(nodes))))
    assert placed(plan, left, order) == plan.replicas


# Machines that are not there yet

STATED: dict[str, dict[str, Any]] = {
    "model": {"device": "cuda", "engine": "torch", "compute_type": "float16"},
    "deployment": {"cpu_per_replica": 3, "gpu_per_replica": 1},
    "autoscaling": {"engine_replicas": [1, 8]},
}


def grown(nodes: list[Node], **sections: dict[str, Any]) -> Plan:
    return make_plan(Config.model_validate(sections), nodes, grows=True)


@pytest.mark.parametrize("nodes", [[], LAPTOP, ONE_GPU, FOUR_GPUS])
def test_what_is_stated_is_planned_whatever_is_there(nodes: list[Node]) -> None:
    plan = grown(nodes, **STATED)
    assert plan == grown([], **STATED)
    assert (plan.device, plan.engine, plan.compute_type) == ("cuda", "torch", "float16")
    assert (plan.replicas, plan.cpus_per_replica, plan.gpus_per_replica) == (8, 3.0, 1.0)
    assert (plan.workers, plan.threads_per_worker) == (1, 3)


def test_a_fixed_number_of_replicas_is_stated_too() -> None:
    fixed = {"cpu_per_replica": 3, "num_replicas": 2}
    assert grown([], **{**STATED, "deployment": fixed, "autoscaling": {}}).replicas == 2


def test_what_is_left_open_is_named_while_no_machine_tells_it() -> None:
    with pytest.raises(ConfigError) as caught:
        grown([], model={"device": "cpu"}, deployment={"cpu_per_replica": 2})
    assert [problem.key for problem in caught.value.problems] == [
        "model.engine",
        "model.compute_type",
        "deployment.num_replicas",
    ]
    assert {problem.value for problem in caught.value.problems} == {"auto"}
    assert "no machine with CPUs yet" in str(caught.value)


def test_cpus_do_not_tell_of_gpus() -> None:
    with pytest.raises(ConfigError, match="no machine with a GPU yet") as caught:
        grown(LAPTOP, **{**STATED, "deployment": {}})
    assert [problem.key for problem in caught.value.problems] == ["deployment.cpu_per_replica"]


def test_what_machines_can_tell_need_not_be_stated() -> None:
    assert grown(LAPTOP) == plan_for(LAPTOP)
    assert grown(FOUR_GPUS) == plan_for(FOUR_GPUS)


def test_what_is_stated_has_to_be_possible() -> None:
    with pytest.raises(ConfigError, match=r"deployment\.gpu_per_replica"):
        grown([], **{**STATED, "deployment": {"cpu_per_replica": 3, "gpu_per_replica": 0}})


def test_machines_that_are_all_there_hold_the_most_that_there_may_be() -> None:
    key, value, _ = refused(FOUR_GPUS, autoscaling={"engine_replicas": [1, 5]})
    assert (key, value) == ("autoscaling.engine_replicas", (1, 5))
    plan = plan_for(LAPTOP, autoscaling={"engine_replicas": [1, 4]})
    assert (plan.replicas, plan.cpus_per_replica) == (4, 2.0)
