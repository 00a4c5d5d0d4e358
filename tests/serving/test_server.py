"""The foreground process on a Ray that is there already."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
import ray
from whisper.normalizers import EnglishTextNormalizer

from tests.conftest import PROJECT, SAMPLE_WORDS

pytestmark = [pytest.mark.server, pytest.mark.weights]


def test_it_joins_a_cluster_and_leaves_it_as_it_was(
    serve_port: int, tmp_path: Path, model_dir: Path, sample: Path
) -> None:
    config = tmp_path / "config.json"
    address = ray.get_runtime_context().gcs_address
    sections = {
        "server": {"port": serve_port, "ray_address": address},
        "model": {"model_dir": str(model_dir)},
        "models": ["tiny.en"],
        "auth": {"open": True},
        "jobs": {"database": None},
        "deployment": {"cpu_per_replica": 2},
        "logging": {"file": None},
    }
    config.write_text(json.dumps(sections))
    log = tmp_path / "output"
    url = f"http://127.0.0.1:{serve_port}"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, str(PROJECT / "main.py"), "--config", str(config)], stderr=output
        )
    try:
        deadline = time.monotonic() + 90
        while "ready at" not in log.read_text() and time.monotonic() < deadline:
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        assert "loading base with ctranslate2 (int8) on cpu" in log.read_text()
        assert "when asked for also tiny.en, 1 at once" in log.read_text()
        assert f"ready at {url}" in log.read_text()
        for model in ("base", "tiny.en"):
            answer = httpx.post(
                f"{url}/transcribe",
                files={"audio_file": sample.read_bytes()},
                params={"model": model},
                timeout=60,
            )
            assert EnglishTextNormalizer()(answer.json()["text"]) == SAMPLE_WORDS
        process.send_signal(signal.SIGTERM)
        assert process.wait(40) == 0
    finally:
        process.kill()
    assert httpx.get(f"{url}/livez").status_code == 404
    assert httpx.get(f"{url}/-/healthz").status_code == 200
