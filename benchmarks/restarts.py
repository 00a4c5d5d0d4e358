"""A service that is started again when it cannot live on, as an init system would do it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import psutil

from benchmarks.family import of_kind
from benchmarks.processes import KILL_LIMIT_S, Service, free_port, served

# Between two looks at a service that is expected back.
LOOK_EVERY_S = 0.2
ANSWER_LIMIT_S = 5.0
# So many good answers in a row, and it is well.
WELL_AFTER = 3


class Kept:
    """A service at one address through all its lives. `patience_s`: how long it may take to heal
    by itself, before it is started again."""

    def __init__(
        self, config: Path, settings: Mapping[str, object], port: int, patience_s: float
    ) -> None:
        self._config, self._settings = config, settings
        self._port, self._patience_s = port, patience_s
        self._life = ExitStack()
        self.starts = 0
        self.service = self._start()

    def kill(self, kind: str) -> bool:
        """SIGKILL for one process of this kind; false when there is none."""
        assert self.service.tree is not None
        self._family = self.service.tree.members()
        victims = of_kind(self.service.tree, kind)
        if victims:
            self._victim = victims[0]
            self._n_before = len(victims)
            self._victim.kill()
        return bool(victims)

    def heal(self, kind: str) -> float:
        """Wait until all is well behind the death of one of this kind; seconds from now until
        the first of the good answers that lasted."""
        began = time.monotonic()
        well_at = self._well_again(kind, began)
        if well_at is None:
            self._start_again()
            well_at = time.monotonic()
        return well_at - began

    def _well_again(self, kind: str, began: float) -> float | None:
        """None when it does not come by itself."""
        good_since, good = began, 0
        while time.monotonic() < began + self._patience_s and self._is_alive():
            at = time.monotonic()
            is_good = self._has(kind) and self._answers()
            good_since = good_since if good else at
            good = good + 1 if is_good else 0
            if good >= WELL_AFTER:
                return good_since
            time.sleep(LOOK_EVERY_S)
        return None

    def _is_alive(self) -> bool:
        """Whether the process is there that an init system looks after."""
        assert self.service.tree is not None
        return any(map(_runs, self.service.tree.members()[:1]))

    def _has(self, kind: str) -> bool:
        assert self.service.tree is not None
        living = [member for member in of_kind(self.service.tree, kind) if _runs(member)]
        return len(living) >= self._n_before and self._victim not in living

    def _answers(self) -> bool:
        with suppress(httpx.HTTPError):
            return httpx.get(f"{self.service.url}/health", timeout=ANSWER_LIMIT_S).is_success
        return False

    def _start_again(self) -> None:
        """What is left of the family goes first; where the eldest died, the others are found
        among those that were seen before."""
        self._life.close()
        for member in self._family:
            with suppress(psutil.Error):
                if member.is_running():
                    member.kill()
        psutil.wait_procs(self._family, timeout=KILL_LIMIT_S)
        self._life = ExitStack()
        self.service = self._start()

    def _start(self) -> Service:
        self.starts += 1
        return self._life.enter_context(served(self._config, self._settings, port=self._port))

    def close(self) -> None:
        self._life.close()


def _runs(process: psutil.Process) -> bool:
    """A dead one may wait for its parent to notice."""
    with suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


@contextmanager
def kept(config: Path, settings: Mapping[str, object], patience_s: float) -> Iterator[Kept]:
    service = Kept(config, settings, free_port(), patience_s)
    try:
        yield service
    finally:
        service.close()
