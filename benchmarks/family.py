"""The processes of a service: what each of them is, what it holds, and the end of one."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import psutil

from benchmarks.processes import MIB, ProcessTree

ENGINE, INGRESS, JOBS = "engine replica", "ingress replica", "job runner"
PROXY, CONTROLLER, DRIVER = "HTTP proxy", "Serve controller", "driver"
RAYLET, GCS = "raylet", "GCS"
DECODER = "audio decoder"
REPLICA = re.compile(r"ray::ServeReplica:[^:]+:(\w+)")
DEPLOYMENTS = {"WhisperASR": ENGINE, "Ingress": INGRESS, "JobRunner": JOBS}
ACTORS = {
    "ray::ProxyActor": PROXY,
    "ray::HTTPProxyActor": PROXY,
    "ray::ServeController": CONTROLLER,
}
PROGRAMS = {"raylet": RAYLET, "gcs_server": GCS}
OTHER = "Ray, all else"


@dataclass(frozen=True, slots=True)
class Sample:
    """A process at the monotonic time `at`. `uss_mib` is what only it holds."""

    at: float
    kind: str
    pid: int
    rss_mib: float
    uss_mib: float
    threads: int
    files: int


def kind_of(command: list[str], name: str) -> str:
    """What a process is, by its command line and its name."""
    title = command[0] if command else name
    replica = REPLICA.match(title)
    if replica:
        return DEPLOYMENTS.get(replica[1], replica[1])
    if any(part.endswith(("main.py", "whisper-serve")) for part in command[:3]):
        return DRIVER
    if "whisper_serve.audio.isolated" in command:
        return DECODER
    actor = next((kind for start, kind in ACTORS.items() if title.startswith(start)), None)
    return actor or PROGRAMS.get(name, OTHER)


def members_by_kind(tree: ProcessTree) -> Iterator[tuple[str, psutil.Process]]:
    for member in tree.members():
        with suppress(psutil.Error):
            yield kind_of(member.cmdline(), member.name()), member


def of_kind(tree: ProcessTree, kind: str) -> list[psutil.Process]:
    return [member for found, member in members_by_kind(tree) if found == kind]


def samples(tree: ProcessTree) -> list[Sample]:
    """All processes now; those that end meanwhile are left out."""
    found = []
    for kind, member in members_by_kind(tree):
        with suppress(psutil.Error):
            found.append(_sample(kind, member))
    return found


def _sample(kind: str, process: psutil.Process) -> Sample:
    memory = process.memory_full_info()
    return Sample(
        time.monotonic(),
        kind,
        process.pid,
        memory.rss / MIB,
        memory.uss / MIB,
        process.num_threads(),
        process.num_fds(),
    )
