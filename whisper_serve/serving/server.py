"""The service as one foreground process: bring it up, tell how to use it, take it down."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import sys
import threading
from contextlib import suppress
from pathlib import Path
from types import FrameType

import httpx
import ray
from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.schema import LoggingConfig as ServeLogging

from whisper_serve.api.auth.startup import require_keys
from whisper_serve.api.auth.watched_keys import WatchedKeys
from whisper_serve.api.models import ServedModels
from whisper_serve.config import Config
from whisper_serve.config_file import load_config
from whisper_serve.engines.build import fetch_weights
from whisper_serve.errors import ServerStartError
from whisper_serve.observability.logs import configure_logging, stop_logging
from whisper_serve.serving.app import engine_options, further_options, make_app
from whisper_serve.serving.cluster import LocalRay, cluster_nodes, connect, count_machines
from whisper_serve.serving.job_runner import require_storage
from whisper_serve.serving.plan import Plan, make_plan
from whisper_serve.serving.stopping import drain
from whisper_serve.serving.tls import (
    http_options,
    own_certificate,
    require_certificate,
    scheme_of,
)

APP_NAME = "whisper_serve"
ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 - only compared with

PROBE_TIMEOUT_S = 10.0
# For the end of Ray, after which there is nothing to wait for.
LOOK_EVERY_S = 2.0


class Stopped(BaseException):
    """SIGINT or SIGTERM came. Not an Exception, so that nothing on the way swallows it."""


def run_server(config_path: Path | None) -> None:
    """Serve until SIGINT or SIGTERM, let what is under way end, then end everything that was
    started. A second signal ends it at once.

    Raises `ConfigError`, `WeightsError` or `ServerStartError` when the service cannot start, and
    `ServerBroken` when the Ray that it started dies under it.
    """
    config = load_config(config_path, os.environ)
    configure_logging(config.logging, "server")
    try:
        _run(config)
    finally:
        stop_logging()


def _run(config: Config) -> None:
    require_keys(config)
    require_certificate(config.server)
    if config.server.ray_address is None:
        WatchedKeys(config.auth)  # is the file there, before anything is started
        _require_free_port(config)
    _stop_on_signals()
    at_once = True
    try:
        _start(config)
        _serve_until_told(config)
        at_once = False
    except (Stopped, SystemExit):  # SystemExit: Ray's own handler, while Ray starts
        _ignore_signals()
        _say("stopping at once")
    finally:
        _ignore_signals()
        _shut_down(config, at_once=at_once)
    _say("stopped")


def _serve_until_told(config: Config) -> None:
    ours = LocalRay() if config.server.ray_address is None else None
    _say(ready_text(config))
    try:
        while not threading.Event().wait(LOOK_EVERY_S):
            if ours is not None:
                ours.require()
    except Stopped:
        timeout_s = config.server.drain_timeout_s
        _say(f"draining for {timeout_s:g} s at most (again to stop at once)")
    drain(APP_NAME, timeout_s)
    _say("stopping")


def ready_text(config: Config) -> str:
    """Where the service answers. A cluster's Serve may have been started by somebody else,
    with another address, which Serve does not change."""
    host = ANY_ADDRESS.get(config.server.host, config.server.host)
    address = f"{scheme_of(config.server)}://{host}:{config.server.port}"
    if not _answers(address, own_certificate(config.server)):
        return (
            f"running, but not at {address}: Serve was started in this cluster with another "
            "address (press Ctrl+C to stop)"
        )
    return (
        f"ready at {address} (press Ctrl+C to stop); open it in a browser, or try\n"
        f"  curl -F audio_file=@sample.wav {address}/transcribe"
    )


def loading_text(config: Config, plan: Plan) -> str:
    """What is served, and by what."""
    workers = "1 worker" if plan.workers == 1 else f"{plan.workers} workers"
    text = (
        f"loading {config.model.size} with {plan.engine} ({plan.compute_type}) on {plan.device}: "
        f"replicas {_replicas_text(config, plan)}, each {workers}"
    )
    further = ", ".join(ServedModels(config).further)
    at_once = config.deployment.further_models
    return f"{text}; when asked for also {further}, {at_once} at once" if further else text


def _replicas_text(config: Config, plan: Plan) -> str:
    least, most = config.autoscaling.engine_replicas or (plan.replicas, plan.replicas)
    return str(most) if least == most else f"{least} to {most}"


def _start(config: Config) -> None:
    _say("starting Ray")
    connect(config)
    _stop_on_signals()  # Ray has set a handler of its own
    nodes = cluster_nodes()
    require_storage(config, count_machines())
    plan = make_plan(config, nodes, grows=config.server.ray_address is not None)
    if config.server.ray_address is None:
        # Here, where a person sees the progress; on a cluster each replica does it.
        _fetch_weights(config, plan)
    _say(loading_text(config, plan))
    quiet = ServeLogging(log_level="WARNING", enable_access_log=False)
    try:
        serve.start(http_options=http_options(config.server), logging_config=quiet)
        serve.run(make_app(config, plan), name=APP_NAME, logging_config=quiet)
    except RuntimeError as exc:
        raise ServerStartError(_deploy_failure(exc)) from exc


def _fetch_weights(config: Config, plan: Plan) -> None:
    further = further_options(config, plan).values()
    for options in (engine_options(config, plan), *further):
        weights = fetch_weights(options, progress=True)
        _say(f"weights: {weights.path}")


def _deploy_failure(exc: RuntimeError) -> str:
    """Why the engines did not come up, as their replicas told it, in one line."""
    status = serve.status().applications.get(APP_NAME)
    deployments = status.deployments.values() if status else []
    messages = [line for d in deployments for line in d.message.strip().splitlines() if line]
    return f"the engines could not start: {messages[-1] if messages else exc}"


def _answers(address: str, trusted: ssl.SSLContext | bool) -> bool:
    try:
        url = f"{address}/livez"
        return httpx.get(url, timeout=PROBE_TIMEOUT_S, verify=trusted).is_success
    except httpx.HTTPError:
        return False


def _shut_down(config: Config, *, at_once: bool) -> None:
    """Take the application down, and Ray with it if it was ours. `at_once`: without waiting for
    anything; a cluster's Serve is waited for, as it would serve on."""
    if ray.is_initialized():
        if config.server.ray_address is not None or not at_once:
            with suppress(RayError, RayServeException, TimeoutError):
                serve.delete(APP_NAME)
        ray.shutdown()


def _require_free_port(config: Config) -> None:
    host, port = config.server.host, config.server.port
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except OSError as exc:
        reason = f"cannot listen on {host}, port {port}: {exc.strerror}"
        raise ServerStartError(reason) from exc


def _stop_on_signals() -> None:
    def stop(_signum: int, _frame: FrameType | None) -> None:
        raise Stopped

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)


def _ignore_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _say(text: str) -> None:
    print(f"whisper_serve: {text}", file=sys.stderr, flush=True)  # noqa: T201
