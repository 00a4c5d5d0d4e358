"""Services under test: started, measured from outside, and stopped."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

PROJECT = Path(__file__).parent.parent
START_LIMIT_S = 180.0
STOP_LIMIT_S = 60.0
KILL_LIMIT_S = 5.0
MIB = 2**20


class ProcessTree:
    """A process and all that it started, as long as it is their ancestor."""

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)
        self._cpu_s: dict[tuple[int, float], float] = {}

    def members(self) -> list[psutil.Process]:
        try:
            return [self._root, *self._root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def cpu_s(self) -> float:
        """User and system time of all members; those that ended count as last seen."""
        for member in self.members():
            with suppress(psutil.Error):
                times = member.cpu_times()
                self._cpu_s[member.pid, member.create_time()] = times.user + times.system
        return sum(self._cpu_s.values())

    def memory_mib(self) -> float:
        """Memory that would be free without them; what they share counts once."""
        return sum(_memory(member) for member in self.members()) / MIB


def _memory(process: psutil.Process) -> int:
    try:
        used = process.memory_full_info()
    except psutil.Error:
        return 0
    proportional: int = getattr(used, "pss", used.uss)
    return proportional


@dataclass(frozen=True, slots=True)
class Service:
    """A running service; `tree` is None when it was started by somebody else."""

    url: str
    tree: ProcessTree | None = None

    @property
    def socket_url(self) -> str:
        return f"ws{self.url.removeprefix('http')}/stream"

    def engine(self) -> str:
        """Model, engine, compute type and device."""
        health: dict[str, Any] = httpx.get(f"{self.url}/health").raise_for_status().json()
        return " ".join(health[key] for key in ("model", "engine", "compute_type", "device"))


class NotStarted(Exception):
    """A service did not come up; the text is what it printed."""


@contextmanager
def served(
    config: Path, settings: Mapping[str, object], *, port: int | None = None
) -> Iterator[Service]:
    """`python main.py` with `config` and over it `settings`, by their dotted names. Everybody may
    use it."""
    port = port or free_port()
    arguments = [sys.executable, str(PROJECT / "main.py"), "--config", str(config.resolve())]
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        log = Path(folder, "service.log")
        ours = {"server.port": port, "logging.file": log, "auth.open": "true"}
        environ = _environ({**ours, **settings})
        with started(arguments, port, environ=environ) as service:
            yield service


def _environ(settings: Mapping[str, object]) -> dict[str, str]:
    return {
        f"WHISPER_SERVE__{name.upper().replace('.', '__')}": str(value)
        for name, value in settings.items()
    }


@contextmanager
def started(
    arguments: Sequence[str], port: int, *, environ: Mapping[str, str] | None = None
) -> Iterator[Service]:
    """Run a service until the end of the block. Raises `NotStarted` when it is not healthy at
    `port` in time."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            arguments,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=PROJECT,
            env={**os.environ, **(environ or {})},
            start_new_session=True,
        )
        tree = ProcessTree(process.pid)
        try:
            service = Service(f"http://127.0.0.1:{port}", tree)
            if not _comes_up(service, process):
                output.seek(0)
                raise NotStarted(output.read().decode(errors="replace"))
            yield service
        finally:
            _stop(process, tree)


def _comes_up(service: Service, process: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(httpx.HTTPError):
            if httpx.get(f"{service.url}/health", timeout=5.0).is_success:
                return True
        time.sleep(0.3)
    return False


def _stop(process: subprocess.Popen[bytes], tree: ProcessTree) -> None:
    """As a terminal would, and what is left of its family then by force."""
    members = tree.members()
    process.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_LIMIT_S)
    for member in members:
        with suppress(psutil.Error):
            if member.is_running():  # false for another process with the same number
                member.kill()
    process.wait()
    psutil.wait_procs(members, timeout=KILL_LIMIT_S)


def free_port() -> int:
    """Below those that systems give to outgoing connections, of which Ray makes many."""
    for port in random.sample(range(20_000, 32_000), 50):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError("no port is free")
