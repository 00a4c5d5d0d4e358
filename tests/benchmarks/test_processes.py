from __future__ import annotations

import os
import subprocess
import sys

import psutil
import pytest

from benchmarks.processes import NotStarted, ProcessTree, free_port, started

SERVICE = """
import http.server, os, subprocess, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""

BUSY = """
import time
while time.process_time() < 0.2:
    pass
print("x", flush=True)
time.sleep(600)
"""


def lives(process: psutil.Process) -> bool:
    """A dead process may wait for its parent to notice."""
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def test_a_service_is_measured_with_its_family_and_leaves_nobody_behind() -> None:
    port = free_port()
    with started([sys.executable, "-c", SERVICE, str(port)], port) as service:
        assert service.tree is not None
        family = service.tree.members()
        assert len(family) == 2
        assert service.tree.cpu_s() > 0
        assert service.tree.memory_mib() > 1
        assert service.socket_url == f"ws://127.0.0.1:{port}/stream"
    assert not any(lives(member) for member in family)


def test_a_service_that_ends_at_once_says_why() -> None:
    with (
        pytest.raises(NotStarted, match="no such model"),
        started([sys.executable, "-c", "raise SystemExit('no such model')"], free_port()),
    ):
        pass


def test_time_of_processes_that_ended_is_kept() -> None:
    tree = ProcessTree(os.getpid())
    own_s = tree.cpu_s()
    with subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.read(1)  # it has worked
        with_child_s = tree.cpu_s()
        child.kill()
    assert with_child_s - own_s > 0.15
    assert tree.cpu_s() >= with_child_s
