"""The Ray that everything runs on: joined or started, and what it has to give."""

from __future__ import annotations

import logging
import os
from typing import Any

import ray

from whisper_serve.config import Config
from whisper_serve.errors import ServerStartError
from whisper_serve.serving import proxy
from whisper_serve.serving.plan import Node

NAMESPACE = "serve"
# With which Serve asks for more than it does by itself in each HTTP proxy.
PROXY_CALLBACK = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
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
    """What a Ray that is started from here has to find in its environment."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault(PROXY_CALLBACK, f"{proxy.__name__}:{proxy.guards.__name__}")


def cluster_nodes() -> list[Node]:
    """What each machine of the connected Ray can give."""
    resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [Node(found["CPU"], found.get("GPU", 0.0)) for found in resources if "CPU" in found]
