"""Engine replicas for Python programs: workers without the HTTP service around them.

They are a Serve application that no route leads to. Serve routes each job, replaces a worker
that is dead or stuck, and `ReplicaClient` asks again for what a worker took with it.
"""

# Torch is imported in functions only: processes that just send jobs load this module too.

from __future__ import annotations

import atexit
import math
import os
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import ray
from pydantic import ValidationError
from ray import serve
from ray.exceptions import RayError
from ray.serve import Application, RunTarget
from ray.serve.exceptions import RayServeException
from ray.serve.schema import ApplicationStatus
from ray.serve.schema import LoggingConfig as ServeLogging

from whisper_serve.config import Config
from whisper_serve.engines.catalog import known_model
from whisper_serve.errors import ConfigError, ConfigProblem, InvalidParameter, ServerStartError
from whisper_serve.serving.cluster import cluster_nodes, connect
from whisper_serve.serving.global_queue import GlobalAsrQueue
from whisper_serve.serving.plan import Node, Plan, make_plan
from whisper_serve.text.languages import language_code

if TYPE_CHECKING:
    from whisper_serve.serving.asr import EngineBuilder

# A decode that runs so long will never end.
STUCK_AFTER_S = 120.0
POLL_S = 0.1


class FasterWhisperWorkerCluster:
    """Workers that share their jobs among them: one for each GPU that Ray has, at most
    `max_worker_count`, or without GPUs one for each machine, which uses all of its CPUs.

    `lan`: language code or English name, None or "auto" to detect it. `cpus_per_worker` divides
    a machine without GPUs into several workers. `max_queued`: jobs that may wait in one worker.
    `ray_address`: the Ray to join where this process is connected to none. `build` makes the
    engine in each worker, in place of `build_engine`. Raises `InvalidParameter` or
    `ConfigError` for values that cannot be used.
    """

    def __init__(
        self,
        lan: str | None,
        model_size_or_path: str | Path,
        max_worker_count: int | None = None,
        *,
        model_dir: str | Path = "models",
        device: str = "auto",
        engine: str = "auto",
        compute_type: str = "auto",
        cpus_per_worker: float | None = None,
        max_queued: int = 64,
        ray_address: str | None = None,
        start_timeout_s: float = 600.0,
        build: EngineBuilder | None = None,
    ) -> None:
        if max_worker_count is not None and max_worker_count < 1:
            raise InvalidParameter("max_worker_count", "it must be 1 or more")
        self._language = _language(lan)
        self._max_worker_count = max_worker_count
        self._start_timeout_s = start_timeout_s
        self._build = build
        self._config = _config(
            server={"ray_address": ray_address or os.environ.get("RAY_ADDRESS")},
            model={
                "size": _absolute_model(str(model_size_or_path)),
                "model_dir": Path(model_dir).expanduser().absolute(),
                "device": device,
                "engine": engine,
                "compute_type": compute_type,
            },
            deployment={
                "cpu_per_replica": "auto" if cpus_per_worker is None else cpus_per_worker,
                "max_queued_windows": max_queued,
                "health_check_period_s": 1.0,
            },
            logging={"level": "WARNING", "file": None},
        )
        self._app: str | None = None
        self._plan: Plan | None = None
        self._connected = self._owns_ray = False

    @property
    def worker_count(self) -> int:
        """How many workers there are; 0 when they do not run."""
        return self._plan.replicas if self._plan else 0

    def plan(self, nodes: Sequence[Node]) -> Plan:
        """What `run` starts where Ray has these machines. Raises `ConfigError` when they have
        not what was asked for, and `ServerStartError` when there are none."""
        deployment = self._config.deployment
        plan = make_plan(self._config, nodes)
        room, cpus = plan.replicas, deployment.cpu_per_replica
        if plan.device == "cpu" and cpus != "auto":
            room = sum(int(node.cpus / cpus) for node in nodes)
        count = max(1, min(room, self._max_worker_count or room))
        exact = deployment.model_copy(update={"num_replicas": count})
        return make_plan(self._config.model_copy(update={"deployment": exact}), nodes)

    def run(self) -> None:
        """Start the workers and wait until each has loaded the model; does nothing when they
        run already.

        Joins the Ray that this process is connected to, else the one at `ray_address` or
        `RAY_ADDRESS`, else starts one. Raises `ServerStartError`, `ConfigError` or
        `WeightsError`; nothing is left running then.
        """
        if self._app is not None:
            return
        self._app = f"whisper_workers_{uuid.uuid4().hex[:12]}"
        try:
            self._start(self._app)
        except BaseException as exc:
            self.stop()
            if isinstance(exc, (RayError, RayServeException)):
                raise ServerStartError(f"the workers could not start: {exc}") from exc
            raise

    def get_global_asr_queue(self) -> GlobalAsrQueue:
        """Takes jobs for these workers. Raises `ServerStartError` when they do not run."""
        if self._app is None:
            raise ServerStartError("the workers do not run; call run() first")
        return GlobalAsrQueue(self._app, self._language)

    def stop(self) -> None:
        """End the workers; jobs that wait are given up. If `run` started Ray or joined it, that
        is undone too, unless something else is served there. The workers can be run again."""
        if self._app is None:
            return
        atexit.unregister(self.stop)
        app, self._app, self._plan = self._app, None, None
        if not ray.is_initialized():
            return
        _delete(app)
        if _is_serving():
            return
        if not self._owns_ray:
            _end_serve()
        if self._connected:
            ray.shutdown()

    def __enter__(self) -> FasterWhisperWorkerCluster:
        self.run()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _start(self, app: str) -> None:
        from whisper_serve.engines.build import fetch_weights  # noqa: PLC0415
        from whisper_serve.serving.app import engine_options  # noqa: PLC0415

        self._connected = not ray.is_initialized()
        self._owns_ray = self._connected and self._config.server.ray_address is None
        if self._connected:
            connect(self._config)
        if not self._owns_ray:
            # A Ray that lives longer than this program would keep the workers for ever.
            atexit.register(self.stop)
        nodes = cluster_nodes()
        plan = self.plan(nodes)
        if self._build is None and _is_all_here():
            # Where a person sees the progress; on a cluster each worker does it.
            fetch_weights(engine_options(self._config, plan), progress=True)
        quiet = ServeLogging(log_level="WARNING", enable_access_log=False)
        # Where Serve runs already it stays as it is; otherwise it needs no HTTP port.
        serve.start(proxy_location="Disabled", logging_config=quiet)
        target = _application(self._config, plan, len(nodes), self._build)
        serve.run_many(
            [RunTarget(target, name=app, route_prefix=None, logging_config=quiet)],
            wait_for_applications_running=False,
        )
        _wait_until_running(app, self._start_timeout_s)
        self._plan = plan


def _application(
    config: Config, plan: Plan, hosts: int, build: EngineBuilder | None
) -> Application:
    """Of Ray's accounts workers take GPUs but no CPUs: if they did, the tasks that wait for
    their answers would find none left on a small machine."""
    from whisper_serve.engines.build import build_engine  # noqa: PLC0415
    from whisper_serve.serving.app import engine_deployment  # noqa: PLC0415

    return engine_deployment(
        config,
        plan,
        build or build_engine,
        num_cpus=0,
        stuck_after_s=STUCK_AFTER_S,
        max_replicas_per_node=None if plan.gpus_per_replica else _per_host(plan, hosts),
    )


def _is_all_here() -> bool:
    """Whether Ray has no machine but this one."""
    here = ray.get_runtime_context().get_node_id()
    return all(node["NodeID"] == here for node in ray.nodes() if node["Alive"])


def _per_host(plan: Plan, hosts: int) -> int:
    return math.ceil(plan.replicas / hosts)


def _wait_until_running(app: str, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while (status := serve.status().applications.get(app)) is not None:
        if status.status == ApplicationStatus.RUNNING:
            return
        lines = [line for d in status.deployments.values() for line in d.message.splitlines()]
        reason = next((line for line in reversed(lines) if line.strip()), status.message)
        if status.status == ApplicationStatus.DEPLOY_FAILED:
            raise ServerStartError(f"the workers could not start: {reason}")
        if time.monotonic() >= deadline:
            raise ServerStartError(f"the workers did not start within {timeout_s:g} s: {reason}")
        time.sleep(POLL_S)
    raise ServerStartError("the workers were taken down while they started")


def _delete(app: str) -> None:
    with suppress(RayError, RayServeException):
        serve.delete(app)


def _is_serving() -> bool:
    with suppress(RayError, RayServeException):
        return bool(serve.status().applications)
    return False


def _end_serve() -> None:
    """Unless it has HTTP ports: then it was not started for workers like these."""
    with suppress(RayError, RayServeException):
        if not serve.status().proxies:
            serve.shutdown()


def _config(**sections: dict[str, Any]) -> Config:
    try:
        return Config.model_validate(sections)
    except ValidationError as exc:
        problems = [
            ConfigProblem(".".join(map(str, e["loc"])), e["input"], e["msg"]) for e in exc.errors()
        ]
        raise ConfigError("the workers' options", problems) from exc


def _language(lan: str | None) -> str | None:
    if lan is None or lan.strip().lower() == "auto":
        return None
    try:
        return language_code(lan)
    except ValueError as exc:
        raise InvalidParameter("lan", str(exc)) from exc


def _absolute_model(name_or_path: str) -> str:
    """Workers have another working directory."""
    path = Path(name_or_path).expanduser()
    is_path = known_model(name_or_path) is None and name_or_path != "" and path.exists()
    return str(path.absolute()) if is_path else name_or_path
