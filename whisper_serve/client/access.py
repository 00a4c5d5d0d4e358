"""What a client shows the service, and which certificates it trusts."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from whisper_serve.errors import InvalidParameter

KEY_VARIABLE = "WHISPER_SERVE_API_KEY"
VISIBLE = re.compile(r"[\x21-\x7e]+")


def headers_with(
    api_key: str | None, headers: Mapping[str, str] | None, base_url: str
) -> httpx.Headers:
    """`headers` and the key, which is that of the environment when `api_key` is None. An
    `Authorization` among `headers`, or a user in `base_url`, goes before the latter.

    Raises `InvalidParameter`, also when `api_key` is not all that is to be shown.
    """
    shown = httpx.Headers(headers)
    has_other = "Authorization" in shown or "@" in urlsplit(base_url).netloc
    if api_key and has_other:
        raise InvalidParameter("api_key", "headers or base_url name another authorization")
    key = os.environ.get(KEY_VARIABLE, "") if api_key is None and not has_other else api_key
    if key:
        shown["Authorization"] = f"Bearer {_checked(key.strip())}"
    return shown


def _checked(key: str) -> str:
    # What is wrong with it is told without it: errors are logged.
    if not VISIBLE.fullmatch(key):
        raise InvalidParameter("api_key", "it has characters that no key has, or none")
    return key


def key_in(path: Path) -> str:
    """The key that a file holds. Raises `InvalidParameter`."""
    try:
        return _checked(path.read_text(encoding="utf-8").strip())
    except (OSError, UnicodeDecodeError) as exc:
        why = getattr(exc, "strerror", None) or "it is no text"
        raise InvalidParameter("api_key_file", f"{path} cannot be read: {why}") from exc


def trusting(ca_file: str | Path | None, base_url: str) -> ssl.SSLContext | None:
    """Trusts the certificates in `ca_file` and no others; None: those that the system trusts.

    Raises `InvalidParameter` when it holds none, or when `base_url` is not https.
    """
    if ca_file is None:
        return None
    if not base_url.startswith("https:"):
        raise InvalidParameter("ca_file", f"{base_url!r} is not https")
    try:
        context = ssl.create_default_context(cafile=str(ca_file))
    except OSError as exc:  # which an SSLError is too
        why = "it holds no certificate" if isinstance(exc, ssl.SSLError) else exc.strerror
        raise InvalidParameter("ca_file", f"{ca_file} cannot be used: {why}") from exc
    # Python 3.13 refuses certificates that people make themselves with older tools for the
    # extensions that these leave out; whoever names a file has decided to trust it.
    context.verify_flags &= ~ssl.VerifyFlags.VERIFY_X509_STRICT
    return context
