"""From configuration and machine to what is deployed: a decision without side effects."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from whisper_serve.config import Config
from whisper_serve.engines.base import CPU_ROWS, GPU_ROWS
from whisper_serve.errors import ConfigError, ConfigProblem, ServerStartError

MAX_THREADS = 4


@dataclass(frozen=True, slots=True)
class Node:
    """What Ray can give on one machine."""

    cpus: float
    gpus: float = 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What is deployed. In each of `replicas`, `workers` decode side by side, each on
    `threads_per_worker` CPUs and up to `rows` windows together."""

    device: str
    engine: str
    compute_type: str
    # With `autoscaling.engine_replicas` the most that there may be.
    replicas: int
    workers: int
    threads_per_worker: int
    rows: int
    cpus_per_replica: float
    gpus_per_replica: float
    front_cpus: float


def make_plan(config: Config, nodes: Sequence[Node], *, grows: bool = False) -> Plan:
    """`grows`: machines may come that are not there yet. A configuration that leaves nothing open
    is planned without a look at any then.

    Raises `ConfigError` when `nodes` have not what the configuration asks for, or when it leaves
    open what only machines can tell that are not there yet; else `ServerStartError` when there are
    none.
    """
    if grows:
        left_open = _left_open(config)
        if not left_open:
            return _stated(config)
        _require_what_tells(config, nodes, left_open)
    if not nodes:
        raise ServerStartError("Ray has no machine with CPUs")
    device = _device(config, nodes)
    gpus = config.deployment.gpu_per_replica if device == "cuda" else 0.0
    hosts = _hosts(nodes, gpus)
    replicas = _replicas(config, hosts, gpus)
    cpus = _cpus_per_replica(config, hosts, replicas, gpus, _front_cpus(config))
    return _plan(config, device, replicas, cpus)


def _stated(config: Config) -> Plan:
    """Of a configuration that leaves nothing open."""
    device, deployment = config.model.device, config.deployment
    replicas, cpus = _stated_replicas(config), deployment.cpu_per_replica
    assert replicas != "auto"
    assert cpus != "auto"
    if device == "cuda" and not deployment.gpu_per_replica:
        raise _no_share(deployment.gpu_per_replica)
    return _plan(config, device, replicas, cpus)


def _plan(config: Config, device: str, replicas: int, cpus: float) -> Plan:
    engine = config.model.engine
    if engine == "auto":
        engine = "torch" if device == "cuda" else "ctranslate2"
    workers, threads = _workers(engine, max(1, int(cpus)))
    return Plan(
        device=device,
        engine=engine,
        compute_type=_compute_type(config, device, engine),
        replicas=replicas,
        workers=workers,
        threads_per_worker=threads,
        rows=_rows(config, device),
        cpus_per_replica=cpus,
        gpus_per_replica=config.deployment.gpu_per_replica if device == "cuda" else 0.0,
        front_cpus=_front_cpus(config),
    )


def _left_open(config: Config) -> list[str]:
    """The settings that machines would have to tell."""
    model = config.model
    settings = {
        "model.device": model.device,
        "model.engine": model.engine,
        "model.compute_type": model.compute_type,
        "deployment.cpu_per_replica": config.deployment.cpu_per_replica,
        "deployment.num_replicas": _stated_replicas(config),
    }
    return [key for key, value in settings.items() if value == "auto"]


def _require_what_tells(config: Config, nodes: Sequence[Node], left_open: Sequence[str]) -> None:
    needs_gpu = config.model.device == "cuda"
    if any(node.gpus or not needs_gpu for node in nodes):
        return
    machine = "with a GPU" if needs_gpu else "with CPUs"
    reason = f"Ray has no machine {machine} yet that would tell; say it, or let one be there"
    raise ConfigError("configuration", [ConfigProblem(key, "auto", reason) for key in left_open])


def _front_cpus(config: Config) -> float:
    return config.server.num_cpus if config.server.dedicated_cpu else 0.0


def _stated_replicas(config: Config) -> int | Literal["auto"]:
    scaled = config.autoscaling.engine_replicas
    return config.deployment.num_replicas if scaled is None else scaled[1]


def _workers(engine: str, cpus: int) -> tuple[int, int]:
    """How many windows are decoded at once, and the CPUs of each.

    Torch decodes one window with all its CPUs. CTranslate2 decodes most in all with a worker
    for each CPU, but then a single file has to do with one; so two workers come first, then
    threads for them, and more than `MAX_THREADS` hardly make a window faster.
    """
    if engine == "torch":
        return 1, cpus
    threads = min(MAX_THREADS, max(1, cpus // 2))
    return cpus // threads, threads


def _rows(config: Config, device: str) -> int:
    rows = config.deployment.batch_windows
    if rows == "auto":
        return GPU_ROWS if device == "cuda" else CPU_ROWS
    return rows


def _device(config: Config, nodes: Sequence[Node]) -> str:
    has_gpu = any(node.gpus for node in nodes)
    share = config.deployment.gpu_per_replica
    if config.model.device == "auto":
        return "cuda" if has_gpu and share else "cpu"
    if config.model.device == "cuda" and not has_gpu:
        raise _not_here("model.device", "cuda", "there is no CUDA device here")
    if config.model.device == "cuda" and not share:
        raise _no_share(share)
    return config.model.device


def _compute_type(config: Config, device: str, engine: str) -> str:
    chosen = config.model.compute_type
    if chosen == "auto":
        if device == "cuda":
            return "float16"
        return "int8" if engine == "ctranslate2" else "float32"
    if engine == "torch" and chosen.startswith("int8"):
        reason = "engine 'torch' computes in float32, float16 or bfloat16"
        raise _not_here("model.compute_type", chosen, reason)
    if device == "cpu" and chosen not in {"float32", "int8"}:
        raise _not_here("model.compute_type", chosen, "a CPU computes in float32 or int8")
    return chosen


def _hosts(nodes: Sequence[Node], gpus: float) -> list[Node]:
    """The machines that an engine can run on."""
    hosts = [node for node in nodes if not gpus or _shares(node, gpus)]
    if not hosts:
        reason = f"the largest machine has {max(node.gpus for node in nodes):g}"
        raise _not_here("deployment.gpu_per_replica", gpus, reason)
    return hosts


def _shares(node: Node, gpus: float) -> int:
    """How many replicas the machine's GPUs hold; a fraction is one of a single GPU."""
    if gpus < 1:
        return int(node.gpus) * int(1 / gpus + 1e-6)
    return int(node.gpus / gpus)


def _replicas(config: Config, hosts: Sequence[Node], gpus: float) -> int:
    """As configured, or one for each share of a GPU, or one for each machine without."""
    room = sum(_shares(node, gpus) for node in hosts) if gpus else len(hosts)
    wanted = _stated_replicas(config)
    if wanted == "auto":
        return room
    if gpus and wanted > room:
        reason = f"the GPUs that are there hold {room}, each with {gpus:g}"
        scaled = config.autoscaling.engine_replicas
        key = "autoscaling.engine_replicas" if scaled else "deployment.num_replicas"
        raise _not_here(key, scaled or wanted, reason)
    return wanted


def _cpus_per_replica(
    config: Config, hosts: Sequence[Node], replicas: int, gpus: float, front_cpus: float
) -> float:
    """As configured, or a share that every replica can have wherever Ray puts it and the
    front: whole CPUs where there are enough."""
    smallest = min(node.cpus for node in hosts)
    if smallest <= front_cpus:
        reason = f"the smallest machine has {smallest:g} CPUs, and an engine needs some"
        raise _not_here("server.num_cpus", front_cpus, reason)
    per_cpu_host = math.ceil(replicas / len(hosts))
    share = min(
        (node.cpus - front_cpus) / (min(_shares(node, gpus), replicas) if gpus else per_cpu_host)
        for node in hosts
    )
    cpus = config.deployment.cpu_per_replica
    if cpus == "auto":
        return float(int(share)) if share >= 1 else math.floor(share * 1000) / 1000
    if cpus > share:
        reason = f"{replicas} replicas have {share:g} CPUs each at the most"
        raise _not_here("deployment.cpu_per_replica", cpus, reason)
    return cpus


def _no_share(share: float) -> ConfigError:
    return _not_here("deployment.gpu_per_replica", share, "device 'cuda' needs a share of a GPU")


def _not_here(key: str, value: object, reason: str) -> ConfigError:
    return ConfigError("configuration", [ConfigProblem(key, value, reason)])
