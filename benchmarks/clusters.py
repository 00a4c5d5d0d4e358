"""A cluster of machines that can die: its processes from outside, and the way in for clients."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks.processes import KILL_LIMIT_S, PROJECT
from benchmarks.relay import passed
from whisper_serve.serving.cluster import CLUSTER_ENVIRONMENT

# As a load balancer looks after those behind it.
LOOK_EVERY_S, LOOK_LIMIT_S = 0.5, 2.0
POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class Machine:
    """One of Ray's nodes. `pid` is its raylet's, from which all else on it descends."""

    name: str
    port: int
    pid: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def kill(self) -> None:
        """All at once, as when its power fails; but its connections are reset."""
        end(self.freeze())

    def freeze(self) -> list[psutil.Process]:
        """As when its network fails: it says nothing any more, and nothing is reset."""
        stopped: dict[int, psutil.Process] = {}
        while found := [each for each in self._processes() if each.pid not in stopped]:
            for process in found:
                stopped[process.pid] = process
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGSTOP)
        return list(stopped.values())

    def thaw(self) -> None:
        for process in self._processes():
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGCONT)

    def _processes(self) -> list[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            raylet = psutil.Process(self.pid)
            return [raylet, *raylet.children(recursive=True)]
        return []


def end(processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):  # `kill` takes no other with the same number
            process.kill()


@dataclass(frozen=True, slots=True)
class Replica:
    """Of a deployment, on the machine of that name; "" while it has none."""

    deployment: str
    replica: str
    state: str
    machine: str
    pid: int | None


class ClusterFault(Exception):
    """What the cluster says why it does not do as it was told."""


class Cluster:
    """`process` runs `benchmarks.machines`. The first machine is the head."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._one_at_a_time = threading.Lock()
        started = [Machine(**each) for each in self._answer()]
        self.machines = {each.name: each for each in started}
        self.head = started[0]

    def deploy(self, import_path: str, config: Path) -> float:
        """Seconds until it ran."""
        return float(self._ask("deploy", import_path, str(config)))

    def add(self) -> Machine:
        machine = Machine(**self._ask("add"))
        self.machines[machine.name] = machine
        return machine

    def replicas(self) -> list[Replica]:
        """As Serve knows them."""
        return [Replica(**each) for each in self._ask("replicas")]

    def running(self) -> list[Replica]:
        return [each for each in self.replicas() if each.state == "RUNNING"]

    def alive(self) -> set[str]:
        """As Ray knows it."""
        return set(self._ask("alive"))

    def where(self, deployment: str) -> Counter[str]:
        """How many replicas of it run on each machine."""
        return Counter(each.machine for each in self.running() if each.deployment == deployment)

    def _ask(self, what: str, *arguments: Any) -> Any:
        assert self._process.stdin is not None
        with self._one_at_a_time:
            self._process.stdin.write(json.dumps({"do": what, "with": arguments}) + "\n")
            self._process.stdin.flush()
            return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        said = json.loads(self._process.stdout.readline() or '{"fault": "it has ended"}')
        if "fault" in said:
            raise ClusterFault(said["fault"])
        return said["answer"]


@contextmanager
def cluster(
    log: Path, *, machines: int = 2, cpus: int = 2, settings: Mapping[str, str] | None = None
) -> Iterator[Cluster]:
    """A head and `machines` others, each with `cpus` in Ray's accounts. `settings` are in the
    environment of all of them, over `CLUSTER_ENVIRONMENT`."""
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}
    command = [sys.executable, "-m", "benchmarks.machines"]
    command += ["--machines", str(machines), "--cpus", str(cpus)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            text=True,
            cwd=PROJECT,
            env={**os.environ, **CLUSTER_ENVIRONMENT, **token, **(settings or {})},
            start_new_session=True,
        )
    try:
        yield Cluster(process)
    finally:
        _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    """At once: nothing on it is wanted any more, and half of it may be dead."""
    family = _family(process)
    end(family)
    psutil.wait_procs(family, timeout=KILL_LIMIT_S)
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    process.wait(KILL_LIMIT_S)


def _family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        eldest = psutil.Process(process.pid)
        return [eldest, *eldest.children(recursive=True)]
    return []


class Balancer:
    """Leads each connection to the next of the machines whose proxy says that it is well. Those
    that it has led to one stay there, whatever becomes of it."""

    def __init__(self, machines: Callable[[], list[Machine]]) -> None:
        self._machines = machines
        self._well: list[Machine] = []
        self._turn = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._well:
            writer.transport.abort()
            return
        self._turn += 1
        chosen = self._well[self._turn % len(self._well)]
        try:
            there, to_there = await asyncio.open_connection("127.0.0.1", chosen.port)
        except OSError:
            writer.transport.abort()
            return
        passing = [
            asyncio.create_task(passed(reader, to_there)),
            asyncio.create_task(passed(there, writer)),
        ]
        try:
            # Whichever side has ended, the other is not left waiting.
            await asyncio.wait(passing, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in passing:
                each.cancel()
            to_there.close()
            writer.close()

    async def look(self) -> None:
        async with httpx.AsyncClient(timeout=LOOK_LIMIT_S, trust_env=False) as http:
            while True:
                machines = self._machines()
                answers = await asyncio.gather(*(_is_well(http, each) for each in machines))
                self._well = [m for m, well in zip(machines, answers, strict=True) if well]
                await asyncio.sleep(LOOK_EVERY_S)


async def _is_well(http: httpx.AsyncClient, machine: Machine) -> bool:
    with suppress(httpx.HTTPError):
        return (await http.get(f"{machine.url}/-/healthz")).is_success
    return False


@asynccontextmanager
async def balanced(machines: Callable[[], list[Machine]]) -> AsyncIterator[str]:
    """The address at which clients reach one of `machines`, which are looked up again and again."""
    balancer = Balancer(machines)
    looking = asyncio.create_task(balancer.look())
    server = await asyncio.start_server(balancer.serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        looking.cancel()
        await asyncio.wait([looking])


def wait_until(is_so: Callable[[], bool], limit_s: float) -> float:
    """Seconds that it took. Raises `TimeoutError`."""
    began = time.monotonic()
    while not is_so():
        if time.monotonic() > began + limit_s:
            raise TimeoutError(f"not within {limit_s:g} s")
        time.sleep(POLL_S)
    return time.monotonic() - began
