from __future__ import annotations

import os

import pytest

from benchmarks.family import (
    CONTROLLER,
    DECODER,
    DRIVER,
    ENGINE,
    INGRESS,
    JOBS,
    OTHER,
    PROXY,
    RAYLET,
    kind_of,
    of_kind,
    samples,
)
from benchmarks.processes import ProcessTree


@pytest.mark.parametrize(
    ("command", "name", "kind"),
    [
        (["ray::ServeReplica:whisper_serve:WhisperASR"], "ray::ServeReplica", ENGINE),
        (["ray::ServeReplica:whisper_serve:Ingress.handle"], "ray::ServeReplica", INGRESS),
        (["ray::ServeReplica:whisper_serve:JobRunner"], "ray::ServeReplica", JOBS),
        (["ray::ServeReplica:whisper_serve:Another"], "ray::ServeReplica", "Another"),
        (["ray::ProxyActor"], "ray::ProxyActor", PROXY),
        (["ray::ServeController.run"], "ray::ServeController", CONTROLLER),
        (["/usr/bin/python", "/srv/main.py", "--config", "x"], "python", DRIVER),
        (["/usr/bin/python", "/srv/bin/whisper-serve", "serve"], "python", DRIVER),
        (["/usr/bin/python", "-m", "whisper_serve.audio.isolated"], "python", DECODER),
        (["/x/raylet/raylet", "--socket"], "raylet", RAYLET),
        (["/usr/bin/python", "-u", "/x/log_monitor.py"], "python", OTHER),
        ([], "python", OTHER),
    ],
)
def test_processes_are_told_by_what_they_call_themselves(
    command: list[str], name: str, kind: str
) -> None:
    assert kind_of(command, name) == kind


def test_a_process_is_looked_at() -> None:
    tree = ProcessTree(os.getpid())
    (own,) = (sample for sample in samples(tree) if sample.pid == os.getpid())
    assert 1 < own.uss_mib <= own.rss_mib
    assert own.threads >= 1
    assert own.files >= 1
    assert next(process.pid for process in of_kind(tree, own.kind)) == os.getpid()
