"""`python main.py` as a person starts and stops it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest
from whisper.normalizers import EnglishTextNormalizer

from tests.conftest import SAMPLE_WORDS
from tests.e2e.service import START_LIMIT_S, command, free_port, started, wait_for, write_config

pytestmark = pytest.mark.server

STOP_LIMIT_S = 40.0
normalize = EnglishTextNormalizer()


def refused(config: Path) -> str:
    """The one line that a start that cannot work ends with."""
    done = subprocess.run(
        command(config), capture_output=True, text=True, timeout=START_LIMIT_S, check=False
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    last: str = done.stderr.strip().splitlines()[-1]
    assert last.startswith("whisper-serve: error: ")
    return last


def test_a_port_in_use_is_one_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        port = taken.getsockname()[1]
        line = refused(write_config(tmp_path, server={"port": port}))
    assert f"port {port}" in line
    assert "Address already in use" in line


def test_a_wrong_configuration_is_one_line(tmp_path: Path) -> None:
    line = refused(write_config(tmp_path, server={"prot": 8000}))
    assert "server.prot" in line
    assert "known: host, port" in line


def test_a_missing_file_of_keys_is_one_line(tmp_path: Path) -> None:
    auth = {"open": False, "keys_file": "keys.json"}
    line = refused(write_config(tmp_path, server={"port": free_port()}, auth=auth))
    assert "auth.keys_file" in line
    assert "keys.json" in line


def test_missing_weights_are_one_line(tmp_path: Path) -> None:
    model = {"size": "small", "model_dir": "models", "sources": ["model_dir"]}
    line = refused(write_config(tmp_path, server={"port": free_port()}, model=model))
    assert "the weights of 'small' could not be had" in line
    assert "model_dir" in line


@pytest.mark.weights
def test_a_further_model_that_nobody_knows_is_one_line(
    tmp_path: Path, model_dir: Path, base_ctranslate2: Path
) -> None:
    model = {"model_dir": str(model_dir)}
    path = write_config(tmp_path, server={"port": free_port()}, model=model, models=["bass"])
    line = refused(path)
    assert "no model is called 'bass' and no such path exists; known models: tiny" in line


@pytest.mark.weights
def test_it_starts_serves_and_ends_with_everything_it_started(
    tmp_path: Path, model_dir: Path, base_ctranslate2: Path, sample: Path
) -> None:
    port = free_port()
    config = write_config(tmp_path, server={"port": port}, model={"model_dir": str(model_dir)})
    log = tmp_path / "output"
    with started(command(config), log) as process:
        address = f"http://127.0.0.1:{port}"
        output = wait_for(log, f"curl -F audio_file=@sample.wav {address}/transcribe", process)
        assert "loading base with ctranslate2 (int8) on cpu" in output
        assert f"ready at {address}" in output
        family = psutil.Process(process.pid).children(recursive=True)
        assert len(family) > 4
        with sample.open("rb") as file:
            answer = httpx.post(f"{address}/transcribe", files={"audio_file": file}, timeout=60)
        assert normalize(answer.json()["text"]) == SAMPLE_WORDS
        process.send_signal(signal.SIGTERM)
        assert process.wait(STOP_LIMIT_S) == 0
        assert "Traceback" not in log.read_text()
        assert log.read_text().rstrip().endswith("whisper_serve: stopped")
        _, alive = psutil.wait_procs(family, timeout=10)
        assert alive == []
    names = {re.sub(r"-\d+", "", path.name) for path in (tmp_path / "logs").iterdir()}
    assert names >= {
        "service.access.ingress.log",
        "service.asr.log",
        "service.ingress.log",
        "service.performance.asr.log",
        "service.performance.ingress.log",
        "service.server.log",
    }
    assert not any(name.startswith("service.error.") for name in names)


def test_ctrl_c_during_the_start_ends_it_cleanly(tmp_path: Path, model_dir: Path) -> None:
    """The whole process group gets the signal, as from a terminal."""
    config = write_config(
        tmp_path, server={"port": free_port()}, model={"model_dir": str(model_dir)}
    )
    log = tmp_path / "output"
    with started(command(config), log) as process:
        wait_for(log, "loading base", process)
        family = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(STOP_LIMIT_S) == 0
        assert "Traceback" not in log.read_text()
        _, alive = psutil.wait_procs(family, timeout=10)
        assert alive == []


@pytest.mark.weights
def test_serve_run_starts_the_same_application(
    tmp_path: Path, model_dir: Path, base_ctranslate2: Path, sample: Path
) -> None:
    config = write_config(tmp_path, model={"model_dir": str(model_dir)})
    serve = str(Path(sys.executable).with_name("serve"))
    target = ["whisper_serve.serving.app:build_app", f"config={config}"]
    log = tmp_path / "output"
    with started([serve, "run", "--name", "by-hand", *target], log) as process:
        output = wait_for(log, "is ready at", process)
        address = re.search(r"ready at (http://[0-9.:]+)", output)
        assert address is not None
        answer = httpx.post(
            f"{address[1]}/transcribe", files={"audio_file": sample.read_bytes()}, timeout=60
        )
        assert normalize(answer.json()["text"]) == SAMPLE_WORDS
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        process.wait(STOP_LIMIT_S)
        _, alive = psutil.wait_procs(family, timeout=20)
        assert alive == []


@pytest.mark.weights
@pytest.mark.parametrize("program", ["raylet", "gcs_server"])
def test_it_ends_when_ray_dies_under_it(
    program: str, tmp_path: Path, model_dir: Path, base_ctranslate2: Path
) -> None:
    port = free_port()
    config = write_config(tmp_path, server={"port": port}, model={"model_dir": str(model_dir)})
    log = tmp_path / "output"
    with started(command(config), log) as process:
        wait_for(log, "ready at", process)
        family = psutil.Process(process.pid).children(recursive=True)
        [rays] = [child for child in family if child.name() == program]
        rays.kill()
        assert process.wait(STOP_LIMIT_S) != 0
        psutil.wait_procs(family, STOP_LIMIT_S)
    assert program in log.read_text()
    assert [child for child in family if child.is_running()] == []
