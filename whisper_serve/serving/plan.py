"""From configuration and machine to what is deployed: a decision without side effects."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from whisper_serve.config import Config
from whisper_serve.errors import ConfigError, ConfigProblem


@dataclass(frozen=True, slots=True)
class Node:
    """What Ray can give on one machine."""

    cpus: float
    gpus: float = 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What is deployed. `workers` windows are decoded at once in each of `replicas`."""

    device: str
    engine: str
    compute_type: str
    replicas: int
    workers: int
    cpus_per_replica: float
    gpus_per_replica: float
    front_cpus: float


def make_plan(config: Config, nodes: Sequence[Node]) -> Plan:
    """Raises `ConfigError` when `nodes` have not what the configuration asks for."""
    device = _device(config, nodes)
    engine = config.model.engine
    if engine == "auto":
        engine = "torch" if device == "cuda" else "ctranslate2"
    front_cpus = config.server.num_cpus if config.server.dedicated_cpu else 0.0
    gpus = config.deployment.gpu_per_replica if device == "cuda" else 0.0
    replicas = _replicas(config, nodes, gpus)
    cpus = _cpus_per_replica(config, nodes, replicas, front_cpus)
    return Plan(
        device=device,
        engine=engine,
        compute_type=_compute_type(config, device, engine),
        replicas=replicas,
        workers=1 if engine == "torch" else max(1, round(cpus)),
        cpus_per_replica=cpus,
        gpus_per_replica=gpus,
        front_cpus=front_cpus,
    )


def _device(config: Config, nodes: Sequence[Node]) -> str:
    has_gpu = any(node.gpus for node in nodes)
    if config.model.device == "auto":
        return "cuda" if has_gpu and config.deployment.gpu_per_replica > 0 else "cpu"
    if config.model.device == "cuda" and not has_gpu:
        raise _not_here("model.device", "cuda", "there is no CUDA device here")
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


def _replicas(config: Config, nodes: Sequence[Node], gpus: float) -> int:
    """As configured, or one for each share of a GPU, or one for each machine without."""
    room = sum(int(node.gpus / gpus + 1e-6) for node in nodes) if gpus else len(nodes)
    if config.deployment.num_replicas == "auto":
        return max(1, room)
    wanted = config.deployment.num_replicas
    if gpus and wanted > room:
        reason = f"the GPUs that are there hold {room} of {wanted} replicas"
        raise _not_here("deployment.gpu_per_replica", gpus, reason)
    return wanted


def _cpus_per_replica(
    config: Config, nodes: Sequence[Node], replicas: int, front_cpus: float
) -> float:
    """As configured, or an equal share of the smallest machine, whole CPUs if it has them."""
    smallest = min(node.cpus for node in nodes)
    free = smallest - front_cpus
    if free <= 0:
        reason = f"the smallest machine has {smallest:g} CPUs, and an engine needs some"
        raise _not_here("server.num_cpus", front_cpus, reason)
    share = free / math.ceil(replicas / len(nodes))
    cpus = config.deployment.cpu_per_replica
    if cpus == "auto":
        return float(int(share)) if share >= 1 else round(share, 3)
    if cpus > share:
        reason = f"{replicas} replicas have {share:g} CPUs each at the most"
        raise _not_here("deployment.cpu_per_replica", cpus, reason)
    return cpus


def _not_here(key: str, value: object, reason: str) -> ConfigError:
    return ConfigError("configuration", [ConfigProblem(key, value, reason)])
