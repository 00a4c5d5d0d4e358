from __future__ import annotations

import pytest

from tests.fuzz.tally import tried


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if tried:
        parts = ", ".join(f"{kind} {count:,}" for kind, count in sorted(tried.items()))
        terminalreporter.write_line(f"fuzz: {tried.total():,} cases were tried ({parts})")
