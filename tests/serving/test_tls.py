from __future__ import annotations

import ssl
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from tests.serving.certificate import Pair, encrypted, self_signed
from whisper_serve.config import Config, ServerConfig
from whisper_serve.errors import ServerStartError
from whisper_serve.serving.tls import (
    http_options,
    own_certificate,
    require_certificate,
    scheme_of,
)


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return self_signed(tmp_path)


def server(cert: Path, key: Path) -> ServerConfig:
    return ServerConfig(tls_cert=cert, tls_key=key)


def refused(config: ServerConfig) -> str:
    with pytest.raises(ServerStartError) as raised:
        require_certificate(config)
    return str(raised.value)


def test_without_a_certificate_nothing_is_said_of_tls() -> None:
    config = ServerConfig(host="127.0.0.1", port=8000)
    require_certificate(config)
    assert http_options(config) == {"host": "127.0.0.1", "port": 8000}
    assert scheme_of(config) == "http"
    assert own_certificate(config) is True


def test_serve_is_told_of_the_files(pair: Pair) -> None:
    config = server(*pair)
    require_certificate(config)
    options = http_options(config)
    assert (options["ssl_certfile"], options["ssl_keyfile"]) == (str(pair.cert), str(pair.key))
    assert scheme_of(config) == "https"


def test_the_service_s_own_certificate_is_trusted_under_any_name(pair: Pair) -> None:
    context = own_certificate(server(*pair))
    assert isinstance(context, ssl.SSLContext)
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, False)


@pytest.mark.parametrize("missing", ["cert", "key"])
def test_a_missing_file_is_named(pair: Pair, missing: str) -> None:
    path: Path = getattr(pair, missing)
    path.unlink()
    assert refused(server(*pair)) == f"cannot read {path} for TLS: No such file or directory"


@pytest.mark.parametrize("spoilt", ["cert", "key"])
def test_a_file_that_is_none_is_told(pair: Pair, spoilt: str) -> None:
    path: Path = getattr(pair, spoilt)
    path.write_text("no PEM")
    assert f"cannot use {pair.cert} and {pair.key} for TLS: " in refused(server(*pair))


def test_files_that_do_not_belong_together_are_told(pair: Pair, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = self_signed(tmp_path / "other")
    assert refused(server(pair.cert, other.key)).endswith("key values mismatch")


def test_an_encrypted_key_is_told_and_nobody_is_asked(pair: Pair) -> None:
    encrypted(pair)
    assert refused(server(*pair)).endswith("nobody is there to give the password")


def test_the_certificates_of_tests_are_over_soon(pair: Pair) -> None:
    told = ssl._ssl._test_decode_cert(str(pair.cert))  # type: ignore[attr-defined]
    ends = datetime.fromtimestamp(ssl.cert_time_to_seconds(told["notAfter"]), timezone.utc)
    assert ends < datetime.now(timezone.utc) + timedelta(days=2)


@pytest.mark.parametrize(("given", "missing"), [("tls_cert", "tls_key"), ("tls_key", "tls_cert")])
def test_neither_goes_without_the_other(given: str, missing: str) -> None:
    with pytest.raises(ValueError, match=f"{missing}: it is needed when {given} is set"):
        Config.model_validate({"server": {given: "some.pem"}})
