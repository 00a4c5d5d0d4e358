"""How many cases were really tried: each is counted when it has run to its end."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings

from whisper_serve.observability.logs import LOGGER_NAME

# Of this run of the tests, by what was tried.
tried: Counter[str] = Counter()


def cases(count: int) -> settings:
    """So many, and the same in each run."""
    return settings(
        max_examples=count,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


class Complaints(logging.Handler):
    """Errors in any log: what nobody handled ends there."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def require_none(self) -> None:
        """Fails with the first complaint, and forgets them all."""
        records, self.records = self.records, []
        if records:
            told = logging.Formatter().format(records[0])
            raise AssertionError(f"{len(records)} errors in the log, the first:\n{told}")


class Tally:
    """Tells at the end of the tests how many cases there were, in all processes together
    (pytest-xdist)."""

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput["tried"] = dict(tried)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        tried.update(getattr(node, "workeroutput", {}).get("tried", {}))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if tried:
            parts = ", ".join(f"{kind} {count:,}" for kind, count in sorted(tried.items()))
            terminalreporter.write_line(f"fuzz: {tried.total():,} cases were tried ({parts})")


@contextmanager
def complaints() -> Iterator[Complaints]:
    """What is logged meanwhile, by this package or by those under it. Nobody else is told:
    pytest would keep all records, with all that their errors hold, also those of a logger that a
    test before has cut off from the root."""
    handler, root, ours = Complaints(), logging.getLogger(), logging.getLogger(LOGGER_NAME)
    others = root.handlers, ours.handlers, ours.propagate
    root.handlers, ours.handlers, ours.propagate = [handler], [], True
    try:
        yield handler
    finally:
        root.handlers, ours.handlers, ours.propagate = others
