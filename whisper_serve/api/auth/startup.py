"""Whether a service may start as it is configured."""

from __future__ import annotations

import ipaddress
import logging

from whisper_serve.config import Config
from whisper_serve.errors import ConfigError, ConfigProblem

logger = logging.getLogger(__name__)

CLOSED = (
    "there are no keys: make one with `whisper-serve keys new NAME` and set auth.keys_file or "
    "auth.keys, or set auth.open to true to serve everybody"
)


def require_keys(config: Config) -> None:
    """Raises `ConfigError` when nobody could use the service; warns when everybody can who
    reaches this machine."""
    auth = config.auth
    if not (auth.open or auth.keys or auth.keys_file):
        raise ConfigError("configuration", [ConfigProblem("auth", None, CLOSED)])
    if auth.open and not is_loopback(config.server.host):
        logger.warning(
            "the service is open: whoever reaches %s can use it without a key (auth.open)",
            config.server.host,
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
