"""What generators of load share: their event loop, their own cost, and the service they ask."""

from __future__ import annotations

import argparse
import asyncio
import resource
import time
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.processes import ProcessTree, Service, served

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """On uvloop where it is installed, which costs the machine less."""
    try:
        import uvloop  # noqa: PLC0415
    except ImportError:
        return asyncio.run(work)
    return uvloop.run(work)


def allow_many_sockets() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


@dataclass(frozen=True, slots=True)
class Used:
    """User and system time in `seconds` of the clock: `cpu_s` of the service, None when it is
    not ours to look at, and `own_cpu_s` of this process."""

    seconds: float
    cpu_s: float | None
    own_cpu_s: float

    @property
    def cores(self) -> float | None:
        return None if self.cpu_s is None else self.cpu_s / self.seconds

    @property
    def own_cores(self) -> float:
        return self.own_cpu_s / self.seconds


class Meter:
    """Looks at `service` and at this process from now on."""

    def __init__(self, service: Service) -> None:
        self._tree = service.tree
        self._began = self._look()

    def read(self) -> Used:
        now, began = self._look(), self._began
        cpu_s = None if now.cpu_s is None or began.cpu_s is None else now.cpu_s - began.cpu_s
        return Used(now.seconds - began.seconds, cpu_s, now.own_cpu_s - began.own_cpu_s)

    def _look(self) -> Used:
        cpu_s = self._tree.cpu_s() if self._tree else None
        return Used(time.monotonic(), cpu_s, time.process_time())


def numbers(text: str) -> list[int]:
    """`1,8,16` as an argument."""
    return [int(number) for number in text.split(",")]


def add_service(parser: argparse.ArgumentParser) -> None:
    """The options that `asked_service` reads."""
    parser.add_argument("--url", help="a service that runs, http:// or ws://")
    parser.add_argument("--pid", type=int, help="its process, when its CPU and memory count too")
    parser.add_argument(
        "--serve",
        type=Path,
        metavar="CONFIG",
        help="start the service with this configuration, and stop it (default: config.json)",
    )


def base_url(url: str) -> str:
    """The service's HTTP address, from that or from the one of its streams."""
    address = url.removesuffix("/").removesuffix("/stream").removesuffix("/")
    return f"http{address[2:]}" if address.startswith("ws") else address


@contextmanager
def asked_service(options: argparse.Namespace, settings: Mapping[str, object]) -> Iterator[Service]:
    """The one at `--url`, or one that is started here with `settings` over its configuration."""
    if options.url:
        tree = ProcessTree(options.pid) if options.pid else None
        yield Service(base_url(options.url), tree)
    else:
        with served(options.serve or Path("config.json"), settings) as service:
            yield service
