"""The service as a person starts it: a process of its own, with a Ray of its own."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.conftest import PROJECT

START_LIMIT_S = 110.0


def free_port() -> int:
    """Below those that systems give to outgoing connections: Ray makes many, and one of them
    could have the port before the service does."""
    for port in random.sample(range(20_000, 32_000), 50):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


def write_config(folder: Path, **sections: object) -> Path:
    path = folder / "config.json"
    usual = {"logging": {"file": "logs/service.log"}, "auth": {"open": True}}
    path.write_text(json.dumps({**usual, **sections}))
    return path


def command(config: Path) -> list[str]:
    return [sys.executable, str(PROJECT / "main.py"), "--config", str(config)]


@contextmanager
def started(arguments: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The service in a process group of its own, as a terminal would start it."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            arguments, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def wait_for(log: Path, text: str, process: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline and process.poll() is None:
        if text in log.read_text():
            return log.read_text()
        time.sleep(0.1)
    raise AssertionError(f"{text!r} did not come:\n{log.read_text()}")
