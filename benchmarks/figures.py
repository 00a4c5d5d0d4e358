"""Figures as people read them: quantiles, tables, and what they were measured on."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

CPU_FACTS = Path("/proc/cpuinfo")


def quantile(values: Sequence[float], share: float) -> float | None:
    """None where no sample would lie beyond it: a p99 needs 100 samples, a p95 20."""
    if len(values) * (1 - share) < 1 - 1e-9:
        return None
    return float(np.quantile(values, share))


def shown(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def shown_quantiles(values: Sequence[float], shares: Iterable[float], digits: int = 2) -> str:
    """Divided by slashes."""
    return " / ".join(shown(quantile(values, share), digits) for share in shares)


def percent(rate: float) -> str:
    return f"{100 * rate:.2f} %"


def row(cells: Iterable[object]) -> str:
    """One line of a markdown table."""
    return f"| {' | '.join(str(cell) for cell in cells)} |"


def heading(names: Sequence[str]) -> str:
    """The two lines that begin a markdown table."""
    return f"{row(names)}\n{row('---' for _ in names)}"


def machine() -> str:
    """The hardware in a few words."""
    return f"{os.cpu_count()} cores, {_processor()}, Python {platform.python_version()}"


def _processor() -> str:
    if CPU_FACTS.exists():
        for line in CPU_FACTS.read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name" and value.strip() != "unknown":
                return value.strip()
    return platform.processor() or platform.machine()


def write_json(path: Path | None, results: dict[str, Any]) -> None:
    """Keep raw results, dataclasses among them; None keeps nothing."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"machine": machine(), **results}, default=vars_of, indent=1))


def vars_of(record: Any) -> dict[str, Any]:
    """Of a dataclass. `asdict` makes something that is no JSON of its counters."""
    return {each.name: getattr(record, each.name) for each in fields(record)}
