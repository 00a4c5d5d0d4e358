"""Several machines as Ray sees them, all on this one, with the service on them.

    python -m benchmarks.machines --config config.json --import-path ... --machines 2

For `benchmarks.clusters`, which starts this and talks to it: a line of JSON in, a line of JSON
out. The head has no CPUs, so that only what is pinned to it runs there: Serve's controller and a
proxy. Each machine has a raylet of its own, its own workers, object store and HTTP port. The
application comes about as Serve makes it from a configuration file: a task somewhere in the
cluster calls the builder.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

import psutil
import ray
from ray import serve
from ray.cluster_utils import Cluster
from ray.serve._private.api import serve_start
from ray.serve.config import HTTPOptions, ProxyLocation
from ray.serve.context import _get_global_client
from ray.serve.schema import ServeDeploySchema

from benchmarks.processes import PROJECT, free_port
from whisper_serve.serving.cluster import NAMESPACE, prepare_environment

APP_NAME = "whisper_serve"
OBJECT_STORE_BYTES = 128 * 2**20
# Where a worker machine's proxy listens; on a machine of its own it is the port of them all.
PROXY_PORT = "RAY_SERVE_WORKER_PROXY_HTTP_PORT"
HEAD = "head"
RUNNING_S = 120.0
LOOK_EVERY_S = 0.1


class Machines:
    """The head, and those that were added to it, by name."""

    def __init__(self, cpus: int) -> None:
        self._cpus = cpus
        self._port = free_port()
        self._cluster = Cluster()
        self._names: dict[str, str] = {}  # by Ray's id
        self._nodes: dict[str, Any] = {}
        self.head = self._start(HEAD, num_cpus=0)

    def add(self) -> dict[str, Any]:
        """A machine more. What tells it from others: name, HTTP port, process id of its raylet."""
        return self._start(f"machine{len(self._nodes)}", num_cpus=self._cpus)

    def _start(self, name: str, **options: Any) -> dict[str, Any]:
        port = self._port if name == HEAD else free_port()
        os.environ[PROXY_PORT] = str(port)
        node = self._cluster.add_node(
            object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=False,
            dashboard_agent_listen_port=free_port(),
            include_log_monitor=False,
            **options,
        )
        self._nodes[name] = node
        self._names[node.node_id] = name
        (raylet,) = node.all_processes["raylet"]
        return {"name": name, "port": port, "pid": raylet.process.pid}

    def deploy(self, import_path: str, config: str) -> float:
        """Seconds until it ran. Raises `RuntimeError`."""
        began = time.monotonic()
        if not ray.is_initialized():
            ray.init(
                address=self._cluster.address,
                namespace=NAMESPACE,
                logging_level="ERROR",
                log_to_driver=False,
            )
            listen = HTTPOptions(host="127.0.0.1", port=self._port)
            serve_start(http_options=listen, proxy_location=ProxyLocation.EveryNode)
        client = _get_global_client()
        assert client is not None
        client.deploy_apps(_as_file(import_path, config))
        while (status := serve.status().applications[APP_NAME]).status != "RUNNING":
            if status.status == "DEPLOY_FAILED" or time.monotonic() > began + RUNNING_S:
                raise RuntimeError(f"{status.status}: {status.message}")
            time.sleep(LOOK_EVERY_S)
        return time.monotonic() - began

    def replicas(self) -> list[dict[str, Any]]:
        """What Serve says of them."""
        client = _get_global_client()
        assert client is not None
        app = client.get_serve_details()["applications"].get(APP_NAME, {"deployments": {}})
        return [
            {
                "deployment": name,
                "replica": replica["replica_id"],
                "state": str(getattr(replica["state"], "value", replica["state"])),
                "machine": self._names.get(replica.get("node_id") or "", ""),
                "pid": replica.get("pid"),
            }
            for name, deployment in app["deployments"].items()
            for replica in deployment["replicas"]
        ]

    def alive(self) -> list[str]:
        """As Ray knows it."""
        return [self._names[node["NodeID"]] for node in ray.nodes() if node["Alive"]]

    def close(self) -> None:
        serve.shutdown()
        ray.shutdown()
        self._cluster.shutdown()


def _as_file(import_path: str, config: str) -> ServeDeploySchema:
    """What `serve deploy` would be given."""
    app = {"name": APP_NAME, "route_prefix": "/", "import_path": import_path}
    return ServeDeploySchema.model_validate({"applications": [{**app, "args": {"config": config}}]})


def obey(machines: Machines, out: TextIO) -> None:
    """Until nobody says anything any more."""
    commands: dict[str, Callable[..., Any]] = {
        "add": machines.add,
        "deploy": machines.deploy,
        "replicas": machines.replicas,
        "alive": machines.alive,
    }
    for line in sys.stdin:
        command = json.loads(line)
        try:
            answer = {"answer": commands[command["do"]](*command.get("with", []))}
        except Exception as exc:  # noqa: BLE001 - whoever asked is told
            answer = {"fault": f"{type(exc).__name__}: {exc}"}
        print(json.dumps(answer), file=out, flush=True)


def _only_answers_on_stdout() -> TextIO:
    """Ray and what it starts print there too."""
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return out


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--machines", type=int, default=2)
    parser.add_argument("--cpus", type=int, default=2, help="of each, which Ray only counts")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    out = _only_answers_on_stdout()
    prepare_environment()
    os.environ["PYTHONPATH"] = str(PROJECT)
    machines = Machines(options.cpus)
    started = [machines.head, *(machines.add() for _ in range(options.machines))]
    print(json.dumps({"answer": started}), file=out, flush=True)
    try:
        obey(machines, out)
    finally:
        machines.close()
        for child in psutil.Process().children(recursive=True):
            child.kill()
    return 0


if __name__ == "__main__":
    sys.exit(main())
