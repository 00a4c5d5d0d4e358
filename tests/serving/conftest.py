"""One Ray, started once, with one HTTP port; each test module brings its own applications."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import ray
from ray import serve

from whisper_serve.config import Config
from whisper_serve.engines.build import build_engine
from whisper_serve.serving.app import make_app
from whisper_serve.serving.asr import EngineBuilder
from whisper_serve.serving.cluster import prepare_environment
from whisper_serve.serving.plan import Node, make_plan

# Ray only counts these; the machine may have fewer.
LOGICAL_CPUS = 16
REQUEST_TIMEOUT_S = 100.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(frozen=True)
class Service:
    """An application that runs: its name in Serve and a client for its routes."""

    name: str
    url: str
    client: httpx.Client


Deploy = Callable[..., Service]


@pytest.fixture(scope="session")
def serve_port() -> Iterator[int]:
    port = free_port()
    prepare_environment()
    # Else a test of Ray's exporter waits for ten seconds.
    os.environ.setdefault("RAY_metrics_report_interval_ms", "2000")
    ray.init(
        address="local",
        namespace="serve",
        num_cpus=LOGICAL_CPUS,
        object_store_memory=512 * 2**20,
        include_dashboard=False,
        log_to_driver=False,
    )
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    yield port
    serve.shutdown()
    ray.shutdown()


@pytest.fixture(scope="module")
def deploy(
    serve_port: int, model_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deploy]:
    """`deploy(name, settings, build)` starts an application under `/name`; all that a module
    started ends with it."""
    with ExitStack() as stack:

        def start(
            name: str,
            settings: dict[str, Any],
            build: EngineBuilder = build_engine,
        ) -> Service:
            config = _config(settings, model_dir, tmp_path_factory.mktemp(name))
            return stack.enter_context(_running(name, serve_port, config, build))

        yield start


@pytest.fixture(scope="session")
def real(
    serve_port: int, model_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """An application with real weights for all who only ask it something."""
    # However long an answer takes: what is heard must not depend on what else there is to do.
    settings = {"streaming": {"target_answer_s": None}}
    config = _config(settings, model_dir, tmp_path_factory.mktemp("real"))
    with _running("real", serve_port, config, build_engine) as service:
        yield service


def _config(settings: Mapping[str, Any], model_dir: Path, folder: Path) -> Config:
    log = {**settings.get("logging", {}), "file": str(folder / "service.log")}
    model = {"model_dir": str(model_dir), **settings.get("model", {})}
    open_to_all = {"auth": {"open": True}}
    # However much there is to do on this machine: nothing is refused that a test does not want so.
    streaming = {"max_answer_s": None, **settings.get("streaming", {})}
    settings = {**settings, "streaming": streaming}
    # A process less; tests of jobs give a database.
    no_jobs = {"jobs": {"database": None}}
    settings = {**open_to_all, **no_jobs, **settings}
    return Config.model_validate({**settings, "logging": log, "model": model})


@contextmanager
def _running(name: str, port: int, config: Config, build: EngineBuilder) -> Iterator[Service]:
    app = make_app(config, make_plan(config, [Node(cpus=2.0)]), build)
    serve.run(app, name=name, route_prefix=f"/{name}")
    url = f"http://127.0.0.1:{port}/{name}"
    try:
        with httpx.Client(base_url=url, timeout=REQUEST_TIMEOUT_S) as client:
            yield Service(name, url, client)
    finally:
        serve.delete(name)
