"""Opening connections, and what it means when one cannot be had or is lost."""

from __future__ import annotations

import asyncio
import json
import math
import ssl
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import SplitResult, urlsplit, urlunsplit

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from whisper_serve.errors import ConnectionLost, InvalidParameter, ServerRefused

# Failures after which another try may help.
LOST = (OSError, asyncio.TimeoutError, TimeoutError, WebSocketException)

SCHEMES = {"http": "ws", "https": "wss"}
CLOSE_TIMEOUT_S = 2.0
MAX_MESSAGE_BYTES = 2**22
GOING_AWAY, RESTART = 1001, 1012
WRONG_CONFIG, TOO_BIG, TOO_FAST = 1008, 1009, 4429
REFUSALS = {WRONG_CONFIG: "policy_violation", TOO_BIG: "too_big"}


class Loss(NamedTuple):
    """Why there is no connection.

    `retry_after_s`: how long the server wants to be left alone. `too_fast`: it closed because
    audio came too fast. `parting`: it or something before it went away, as on an update.
    `refused`: what it said when it let nobody in.
    """

    reason: str
    retry_after_s: float = 0.0
    too_fast: bool = False
    parting: bool = False
    refused: ServerRefused | None = None


def http_url(base_url: str, path: str) -> str:
    """`path` under a base such as `https://host:8000/prefix`. Raises `InvalidParameter`."""
    parts = urlsplit(base_url)
    if parts.scheme not in SCHEMES or not _has_host(parts) or parts.query or parts.fragment:
        raise InvalidParameter("base_url", f"{base_url!r} is not like http://127.0.0.1:8000")
    return urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/") + path, "", ""))


def _has_host(parts: SplitResult) -> bool:
    try:
        return bool(parts.hostname) and parts.port != 0
    except ValueError:  # no such port
        return False


def ws_url(base_url: str, path: str) -> str:
    scheme, rest = http_url(base_url, path).split(":", 1)
    return f"{SCHEMES[scheme]}:{rest}"


def dial(
    url: str, headers: Mapping[str, str], timeout_s: float, trust: ssl.SSLContext | None = None
) -> connect:
    """Opens a WebSocket when it is awaited, which raises one of `LOST`. `trust`: see `trusting`.

    Liveness is the stream's own affair: the library's pings would take a user who is slow to
    read for a server that is gone.
    """
    secure: dict[str, Any] = {} if trust is None else {"ssl": trust}
    return connect(
        url,
        **secure,
        additional_headers=headers,
        open_timeout=timeout_s,
        close_timeout=CLOSE_TIMEOUT_S,
        ping_interval=None,
        compression=None,
        max_size=MAX_MESSAGE_BYTES,
    )


def judge(
    failure: BaseException, refusal: tuple[str, str] | None, *, was_served: bool = False
) -> Loss:
    """What one of `LOST` means; `refusal`: code and message of the server's fatal `error`.
    `was_served`: whether this stream has been; a server that is being started again has no
    routes for a moment.

    Raises `ServerRefused` or `ConnectionLost` when another try would end like this one.
    """
    if isinstance(failure, InvalidStatus):
        return _judge_status(failure, was_served=was_served)
    if isinstance(failure, ConnectionClosed):
        return _judge_close(failure, refusal)
    if isinstance(failure, ssl.SSLCertVerificationError):
        raise ConnectionLost(f"the server cannot be trusted: {failure}") from failure
    if isinstance(failure, (asyncio.TimeoutError, TimeoutError)):
        return Loss(str(failure) or "the server did not answer in time")
    return Loss(getattr(failure, "strerror", None) or str(failure))


def _judge_status(failure: InvalidStatus, *, was_served: bool) -> Loss:
    response = failure.response
    refused = refusal_of(response.status_code, response.headers, bytes(response.body or b""))
    passes = {404, 429} if was_served else {429}
    if response.status_code not in passes and response.status_code < 500:
        raise refused from failure
    return Loss(str(refused), refused.retry_after_s or 0.0, refused=refused)


def _judge_close(failure: ConnectionClosed, refusal: tuple[str, str] | None) -> Loss:
    if failure.rcvd is None:
        return Loss("the connection broke off (1006)", parting=True)
    code, said = failure.rcvd.code, failure.rcvd.reason
    if code in REFUSALS:
        error_code, message = refusal or (REFUSALS[code], said or "the server refused")
        raise ServerRefused(code, error_code, message) from failure
    why = refusal[1] if refusal else said or "the server closed the connection"
    parting = code in {GOING_AWAY, RESTART}
    return Loss(f"{why} ({code})", too_fast=code == TOO_FAST, parting=parting)


def refusal_of(status: int, headers: Mapping[str, str], body: bytes) -> ServerRefused:
    """The failure that an HTTP answer tells."""
    code, message = "http_error", f"the server answered with status {status}"
    try:
        fields = json.loads(body)
        code, message = str(fields["code"]), str(fields["error"])
    except (ValueError, LookupError, TypeError):
        pass  # something between us and the service answered
    return ServerRefused(status, code, message, _seconds(headers.get("Retry-After")))


def _seconds(retry_after: str | None) -> float | None:
    try:
        seconds = float(retry_after or "")
    except ValueError:
        return None
    return seconds if 0 <= seconds < math.inf else None
