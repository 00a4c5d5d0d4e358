"""The keys of the configuration and of `auth.keys_file`, which is read again when it changes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from whisper_serve.api.auth.keyring import Keyring
from whisper_serve.config import AuthConfig
from whisper_serve.errors import ConfigError
from whisper_serve.keys.file import read_keys, require_distinct

logger = logging.getLogger(__name__)

CHECK_EVERY_S = 5.0


class Stamp(NamedTuple):
    """What differs between two versions of a file."""

    inode: int
    modified_ns: int
    size: int


class WatchedKeys:
    """Raises `ConfigError` at first when the file cannot be used. Later a file that cannot be
    used is told in the log, and the keys that were known still hold.

    The file is looked at when somebody asks for the keys and the last look is more than
    `check_every_s` ago; who asks waits for the look, so a revoked key never opens anything later
    than that. `now`: monotonic seconds.
    """

    def __init__(
        self,
        auth: AuthConfig,
        *,
        check_every_s: float = CHECK_EVERY_S,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._auth = auth
        self._check_every_s = check_every_s
        self._now = now
        self._checked_at = now()
        self._looking = asyncio.Lock()
        self._stamp = _stamp(auth.keys_file) if auth.keys_file else None
        self._keyring = self._read()

    async def keyring(self) -> Keyring:
        if self._auth.keys_file is not None and self._is_due:
            async with self._looking:
                if self._is_due:
                    await asyncio.to_thread(self._look, self._auth.keys_file)
                    self._checked_at = self._now()
        return self._keyring

    @property
    def _is_due(self) -> bool:
        return self._now() - self._checked_at >= self._check_every_s

    def _look(self, file: Path) -> None:
        stamp = _stamp(file)
        if stamp == self._stamp:
            return
        self._stamp = stamp  # a broken file is told once
        try:
            self._keyring = self._read()
        except ConfigError as exc:
            logger.error("the keys stay as they were: %s", exc)  # noqa: TRY400 - it says all
        else:
            logger.info("the keys were read again")

    def _read(self) -> Keyring:
        file = self._auth.keys_file
        if file is None:
            return Keyring(self._auth.keys)
        keys = (*self._auth.keys, *read_keys(file))
        require_distinct(keys, str(file))
        return Keyring(keys)


def _stamp(file: Path) -> Stamp | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return Stamp(found.st_ino, found.st_mtime_ns, found.st_size)
