"""The Ray that everything runs on: joined or started, and what it has to give."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from typing import Any

import psutil
import ray

from whisper_serve.config import Config
from whisper_serve.errors import ServerBroken, ServerStartError
from whisper_serve.serving import proxy
from whisper_serve.serving.plan import Node

NAMESPACE = "serve"
# With which Serve asks for more than it does by itself in each HTTP proxy.
PROXY_CALLBACK = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
# A proxy that dies is replaced when it was found dead three times.
PROXY_LOOKED_AFTER, PROXY_LOOK_S = "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S", "2"
# What every machine of a cluster has to have in its environment when its Ray starts there, the head
# included; `prepare_environment` sets what of it is for a Ray of our own. By default Ray looks at
# a machine every 3 s, waits 10 s for it, and takes it for dead after 5 times.
CLUSTER_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    PROXY_CALLBACK: f"{proxy.__name__}:{proxy.guards.__name__}",
    PROXY_LOOKED_AFTER: PROXY_LOOK_S,
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "5",
}
OF_MACHINES = "RAY_health_check_"
PROGRAMS = frozenset({"raylet", "gcs_server"})
# Windows of 30 s are 1 MB each and gone when they are decoded.
OBJECT_STORE_BYTES = 512 * 2**20
LOCAL: dict[str, Any] = {"object_store_memory": OBJECT_STORE_BYTES, "include_dashboard": False}


def connect(config: Config) -> None:
    """Join the Ray at `server.ray_address`, or start one here. Raises `ServerStartError`."""
    prepare_environment()
    address = config.server.ray_address
    try:
        ray.init(
            address=address or "local",
            namespace=NAMESPACE,
            logging_level=logging.ERROR,
            **({} if address else LOCAL),
        )
    except (ConnectionError, ValueError, RuntimeError) as exc:
        reason = str(exc).strip().partition("\n")[0]
        raise ServerStartError(f"cannot use Ray at {address or 'local'!r}: {reason}") from exc


def prepare_environment() -> None:
    """What a Ray that is started from here has to find in its environment. It has one machine,
    and nobody gains when that one is taken for dead."""
    for name, value in CLUSTER_ENVIRONMENT.items():
        if not name.startswith(OF_MACHINES):
            os.environ.setdefault(name, value)


class LocalRay:
    """The programs of a Ray that this process has started, without which nothing works; Ray does
    not start them again."""

    def __init__(self) -> None:
        self._family = psutil.Process().children(recursive=True)
        self._programs = {each.name(): each for each in self._family if each.name() in PROGRAMS}

    def require(self) -> None:
        """Raises `ServerBroken` when one has ended."""
        for name, program in self._programs.items():
            if not program.is_running() or program.status() == psutil.STATUS_ZOMBIE:
                self._end()
                raise ServerBroken(f"Ray's {name} has ended; start the service again")

    def _end(self) -> None:
        """What is left of Ray would wait for the rest of it, some of it for ever."""
        for process in {*self._family, *psutil.Process().children(recursive=True)}:
            with suppress(psutil.NoSuchProcess):
                process.kill()


def count_machines() -> int:
    """Those without CPUs too: where there is such a head, machines come and go."""
    return sum(node["Alive"] for node in ray.nodes())


def cluster_nodes() -> list[Node]:
    """What each machine of the connected Ray can give."""
    resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [Node(found["CPU"], found.get("GPU", 0.0)) for found in resources if "CPU" in found]
