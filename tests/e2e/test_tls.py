"""The service with a certificate of its own: HTTPS and WSS, and nothing else."""

from __future__ import annotations

import signal
import socket
import ssl
from pathlib import Path

import httpx
import psutil
import pytest
from whisper.normalizers import EnglishTextNormalizer

from tests.conftest import SAMPLE_WORDS
from tests.e2e.service import command, free_port, started, wait_for, write_config
from tests.serving.certificate import Pair, self_signed
from whisper_serve.client import AsyncClient

pytestmark = pytest.mark.server

STOP_LIMIT_S = 40.0
normalize = EnglishTextNormalizer()


def config_of(folder: Path, pair: Pair, port: int, model_dir: Path) -> Path:
    return write_config(
        folder,
        # Relative to the file, as a person would write them.
        server={"port": port, "tls_cert": pair.cert.name, "tls_key": pair.key.name},
        auth={"open": True},
        model={"model_dir": str(model_dir)},
    )


@pytest.mark.weights
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
async def test_files_and_streams_go_over_tls_and_nothing_goes_without(
    tmp_path: Path, model_dir: Path, base_ctranslate2: Path, sample: Path
) -> None:
    pair, port = self_signed(tmp_path), free_port()
    log = tmp_path / "output"
    url = f"https://127.0.0.1:{port}"
    with started(command(config_of(tmp_path, pair, port, model_dir)), log) as process:
        assert f"ready at {url}" in wait_for(log, "press Ctrl+C to stop", process)
        # A client that wants its stream ended is not asked.
        hostile = {"x-request-timeout-seconds": "0.5"}
        async with AsyncClient(url, ca_file=pair.cert, headers=hostile) as client:
            assert normalize((await client.transcribe(sample)).text) == SAMPLE_WORDS
            assert normalize(await client.transcribe_stream(sample)) == SAMPLE_WORDS
        async with httpx.AsyncClient() as other:
            with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                await other.get(f"{url}/livez")
            with pytest.raises(httpx.TransportError):
                await other.get(f"http://127.0.0.1:{port}/livez")
        assert handshake(port, pair.cert, ssl.TLSVersion.TLSv1_2) == "TLSv1.2"
        with pytest.raises((ssl.SSLError, ConnectionError)):
            handshake(port, pair.cert, ssl.TLSVersion.TLSv1_1)
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        assert process.wait(STOP_LIMIT_S) == 0
        _, alive = psutil.wait_procs(family, timeout=10)
        assert alive == []


def handshake(port: int, trusted: Path, version: ssl.TLSVersion) -> str | None:
    """The version that was agreed on with a client that knows this one only."""
    context = ssl.create_default_context(cafile=str(trusted))
    context.verify_flags &= ~ssl.VerifyFlags.VERIFY_X509_STRICT
    context.set_ciphers("DEFAULT:@SECLEVEL=0")  # which allows the old ones
    context.minimum_version = context.maximum_version = version
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as secured,
    ):
        return secured.version()


def test_a_certificate_that_cannot_be_read_is_one_line(tmp_path: Path, model_dir: Path) -> None:
    pair = self_signed(tmp_path)
    pair.key.unlink()
    config = config_of(tmp_path, pair, free_port(), model_dir)
    log = tmp_path / "output"
    with started(command(config), log) as process:
        assert process.wait(STOP_LIMIT_S) == 2
    last = log.read_text().strip().splitlines()[-1]
    assert last.startswith(f"whisper-serve: error: cannot read {pair.key} for TLS")
