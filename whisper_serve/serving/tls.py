"""HTTPS and WSS with a certificate of the configuration."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

from whisper_serve.config import ServerConfig
from whisper_serve.errors import ServerStartError

ENCRYPTED = "the key is encrypted, and nobody is there to give the password"


class _Encrypted(Exception):
    """A password is asked for."""


def http_options(server: ServerConfig) -> dict[str, Any]:
    """What Serve is told of the address, as `serve.start` takes it."""
    options: dict[str, Any] = {"host": server.host, "port": server.port}
    if server.tls_cert and server.tls_key:
        options["ssl_certfile"] = str(server.tls_cert)
        options["ssl_keyfile"] = str(server.tls_key)
    return options


def scheme_of(server: ServerConfig) -> str:
    return "https" if server.tls_cert else "http"


def require_certificate(server: ServerConfig) -> None:
    """Raises `ServerStartError` when the files cannot be read or do not belong together. What Serve
    makes of them shows in the log of its proxy only, and it would try again and again."""
    if not (server.tls_cert and server.tls_key):
        return
    _require_readable(server.tls_cert)
    _require_readable(server.tls_key)
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(server.tls_cert, server.tls_key, _no_password)
    except (ssl.SSLError, _Encrypted) as exc:
        why = ENCRYPTED if isinstance(exc, _Encrypted) else _reason(exc)
        found = f"{server.tls_cert} and {server.tls_key}"
        raise ServerStartError(f"cannot use {found} for TLS: {why}") from exc


def own_certificate(server: ServerConfig) -> ssl.SSLContext | bool:
    """What to trust when asking this very service: its certificate, whoever it is made out to."""
    if not server.tls_cert:
        return True
    context = ssl.create_default_context(cafile=str(server.tls_cert))
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def _require_readable(path: Path) -> None:
    try:
        path.read_bytes()
    except OSError as exc:
        raise ServerStartError(f"cannot read {path} for TLS: {exc.strerror}") from exc


def _reason(exc: Exception) -> str:
    reason = getattr(exc, "reason", None) or "it is no PEM file"
    return str(reason).lower().replace("_", " ")


def _no_password() -> str:
    raise _Encrypted
