"""The Serve application: which deployments there are, and how large.

`serve run whisper_serve.serving.app:build_app config=config.json` starts the same application
as `python main.py`; the address then comes from Serve's own options.
"""

# No `from __future__ import annotations` here: Serve looks at the annotation of `build_app`'s
# argument, and would not make the model of a mere string.

import os
import secrets
from dataclasses import replace
from pathlib import Path

import ray
from pydantic import BaseModel, ConfigDict
from ray import serve
from ray.serve import Application

from whisper_serve.api.auth.startup import require_keys
from whisper_serve.api.models import ServedModels
from whisper_serve.config import Config, ServerConfig
from whisper_serve.config_file import load_config
from whisper_serve.engines.build import EngineOptions, build_engine
from whisper_serve.engines.padding import Padding
from whisper_serve.serving.asr import EngineBuilder, WhisperASR
from whisper_serve.serving.autoscaling import engine_scale, ingress_scale
from whisper_serve.serving.cluster import cluster_nodes, connect, count_machines
from whisper_serve.serving.ingress import Ingress
from whisper_serve.serving.job_runner import JobRunner, require_storage
from whisper_serve.serving.models import Choice, most_windows
from whisper_serve.serving.plan import Plan, make_plan

# Far above what the application admits by itself: beyond Serve's own limit a request hangs
# or is refused without our error, and probes could not pass.
INGRESS_ONGOING = 10_000
ASR_ONGOING_BEYOND_QUEUE = 64
# A decode that has outlived its deadline this often will never end.
STUCK_AFTER_TIMEOUTS = 2.0
# Behind the drain of an ingress replica that Serve stops: it has to notice, to settle its streams
# and to say goodbye.
STOP_S = 30.0
# In percent of the replicas: a new version is there before the old one goes.
ALL_AT_ONCE = 100
# What each job runner takes, in Ray's accounts, of the CPUs that are set aside for the front:
# hardly anything, but it keeps them off machines without CPUs, such as the head of a cluster.
RUNNER_CPUS = 0.001
# To give jobs back.
RUNNER_STOP_S = 10.0
# A model that did not load three times will not load.
START_ATTEMPTS = 3


class AppArguments(BaseModel):
    """What `serve run` and a Serve config file may pass: the path of a `config.json`."""

    model_config = ConfigDict(extra="forbid")

    config: Path | None = None


def build_app(arguments: AppArguments) -> Application:
    """Raises `ConfigError` or `ServerStartError`. Connects to Ray, if that has not been done
    yet, to see what machines there are."""
    config = load_config(arguments.config, os.environ)
    require_keys(config)
    is_cluster = ray.is_initialized()
    if not is_cluster:
        connect(config)
    nodes = cluster_nodes()
    require_storage(config, count_machines())
    grows = is_cluster or config.server.ray_address is not None
    return make_app(config, make_plan(config, nodes, grows=grows))


def make_app(config: Config, plan: Plan, build: EngineBuilder = build_engine) -> Application:
    """The application as configured; `build` makes the engines in each replica."""
    asr = engine_deployment(
        config,
        plan,
        build,
        num_cpus=plan.cpus_per_replica,
        stuck_after_s=_stuck_after_s(config),
        max_replicas_per_node=config.deployment.replicas_per_machine,
    )
    return (
        serve.deployment(serve.ingress()(Ingress))
        .options(
            ray_actor_options={"num_cpus": _ingress_cpus(config, plan)},
            max_replicas_per_node=config.deployment.replicas_per_machine,
            max_ongoing_requests=INGRESS_ONGOING,
            max_surge_percent=ALL_AT_ONCE if _can_surge(config, plan) else 0,
            health_check_period_s=config.deployment.health_check_period_s,
            graceful_shutdown_timeout_s=_longest_end_s(config.server) + STOP_S,
            graceful_shutdown_wait_loop_s=0.2,
            **ingress_scale(config),
        )
        .bind(config, asr, _signing_key(config), _runners(config, plan, asr))
    )


def _can_surge(config: Config, plan: Plan) -> bool:
    """Whether a new version may begin while the old one is there: on machines of which the plan
    sets CPUs aside for as many ingress replicas as there are, or which may have no more of them,
    it would wait for ever."""
    if config.deployment.replicas_per_machine is not None:
        return False
    least, most = config.autoscaling.ingress_replicas
    return not plan.front_cpus or least < most


def _longest_end_s(server: ServerConfig) -> float:
    """How long a replica that is taken away may go on."""
    return max(server.drain_timeout_s, server.handover_timeout_s)


def _runners(config: Config, plan: Plan, asr: Application) -> Application | None:
    """Those who work on jobs, if there are any. What they do goes beside the ingress."""
    if config.jobs.database is None:
        return None
    return (
        serve.deployment(JobRunner)
        .options(
            num_replicas=config.jobs.runners,
            ray_actor_options={"num_cpus": min(plan.front_cpus, RUNNER_CPUS)},
            max_replicas_per_node=config.deployment.replicas_per_machine,
            health_check_period_s=config.deployment.health_check_period_s,
            graceful_shutdown_timeout_s=RUNNER_STOP_S,
            graceful_shutdown_wait_loop_s=0.2,
        )
        .bind(config, asr)
    )


def _ingress_cpus(config: Config, plan: Plan) -> float:
    """What is set aside for the front, less what job runners have of it."""
    runners = config.jobs.runners if config.jobs.database else 0
    return max(0.0, plan.front_cpus - runners * RUNNER_CPUS)


def _signing_key(config: Config) -> str:
    """Shared by all processes that answer for the service."""
    configured = config.auth.signing_key
    return configured.get_secret_value() if configured else secrets.token_hex(32)


def engine_deployment(
    config: Config,
    plan: Plan,
    build: EngineBuilder,
    *,
    num_cpus: float,
    stuck_after_s: float,
    max_replicas_per_node: int | None = None,
) -> Application:
    """The engine replicas. `num_cpus`: what each takes of Ray's accounts. A decode that runs
    longer than `stuck_after_s` will never end."""
    options = engine_options(config, plan)
    choice = Choice(further_options(config, plan), config.deployment.further_models)
    return (
        serve.deployment(WhisperASR)
        .options(
            ray_actor_options={"num_cpus": num_cpus, "num_gpus": plan.gpus_per_replica},
            max_replicas_per_node=max_replicas_per_node,
            max_constructor_retry_count=START_ATTEMPTS,
            max_ongoing_requests=most_requests(options, choice),
            health_check_period_s=config.deployment.health_check_period_s,
            graceful_shutdown_timeout_s=5,
            graceful_shutdown_wait_loop_s=0.2,
            **engine_scale(config, plan.replicas),
        )
        .bind(
            options,
            config.logging,
            stuck_after_s,
            build,
            choice,
            metrics=config.metrics,
            max_memory_gib=config.deployment.max_replica_memory_gib,
            tracing=config.tracing,
        )
    )


def most_requests(options: EngineOptions, choice: Choice) -> int:
    """How many requests a replica may have at once: windows for each of its models, with one
    that leaves while it is asked for again, and what does not wait for an engine."""
    models = 1 + (len(choice.options) + 1 if choice.options else 0)
    return models * most_windows(options) + ASR_ONGOING_BEYOND_QUEUE


def _stuck_after_s(config: Config) -> float:
    longest_s = max(config.limits.window_timeout_s, config.streaming.window_timeout_s)
    return STUCK_AFTER_TIMEOUTS * longest_s


def engine_options(config: Config, plan: Plan) -> EngineOptions:
    return EngineOptions(
        model=config.model.size,
        model_dir=config.model.model_dir,
        sources=config.model.sources,
        engine=plan.engine,
        device=plan.device,
        compute_type=plan.compute_type,
        workers=plan.workers,
        threads_per_worker=plan.threads_per_worker,
        rows=plan.rows,
        device_share=min(1.0, plan.gpus_per_replica) / _engines_at_once(config),
        padding=Padding(margin_s=config.model.padding_s),
        max_queued=config.deployment.max_queued_windows,
    )


def further_options(config: Config, plan: Plan) -> dict[str, EngineOptions]:
    """How each of `models` is loaded, by its name."""
    options = engine_options(config, plan)
    listed = ServedModels(config).further
    return {name: replace(options, model=listing) for name, listing in listed.items()}


def _engines_at_once(config: Config) -> int:
    """What shares the GPU memory of one replica."""
    return 1 + min(len(config.models), config.deployment.further_models)
