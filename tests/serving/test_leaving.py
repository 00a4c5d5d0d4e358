"""A machine that is told to go lets Ray move everything off it, and ends by itself."""

from __future__ import annotations

import json
import subprocess
import sys

import psutil
import pytest

from whisper_serve.serving import leaving
from whisper_serve.serving.leaving import GONE, NOT_ASKED, leave

# In a process of its own, so that no other Ray of the tests is met.
TWO_MACHINES = """
import json, os, psutil
from ray.cluster_utils import Cluster
from whisper_serve.serving.leaving import leave

small = {"object_store_memory": 80 * 2**20, "include_dashboard": False}
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **small})
machine = cluster.add_node(num_cpus=1, **small)

def raylet(node):
    return psutil.Process(node.all_processes["raylet"][0].process.pid)

going, staying = raylet(machine), raylet(cluster.head_node)
which = ["--address", cluster.address, "--node-id", machine.node_id]
code = leave(40.0, which, raylets=[going])
print(json.dumps([code, going.is_running() and going.status() != "zombie", staying.is_running()]))
cluster.shutdown()
"""


@pytest.mark.server
def test_a_machine_without_work_ends_alone() -> None:
    done = subprocess.run(
        [sys.executable, "-c", TWO_MACHINES],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    code, is_there, others_are = json.loads(done.stdout.splitlines()[-1])
    assert (code, is_there, others_are) == (0, False, True)


def test_where_there_is_no_ray_any_more_nothing_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(leaving, "ASK_S", 3.0)
    some = psutil.Process()
    assert leave(60.0, ["--address", "127.0.0.1:9"], raylets=[some]) == NOT_ASKED


def test_a_machine_on_which_ray_has_ended_is_left_at_once() -> None:
    assert leave(60.0, raylets=[]) == GONE
