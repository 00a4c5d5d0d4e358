"""Does any installed package have a known vulnerability? Part of `make check`.

Fails for one that is found. Where no database can be reached that is said in one line, and nothing
fails. pip-audit calls a package fine that its database has not heard of, so those are counted.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

SERVICES = ("pypi", "osv")
TIMEOUT_S = 300.0

Report = Sequence[dict[str, Any]]  # a package each, as pip-audit writes it


class Finding(NamedTuple):
    ok: bool
    text: str


def judged(report: Report) -> Finding | None:
    """What the report of one database says; None when it knows nothing of any package."""
    audited = [package for package in report if "skip_reason" not in package]
    if not audited:
        return None
    lines = [
        f"{package['name']} {package['version']}: {found['id']}, "
        f"repaired in {', '.join(found['fix_versions']) or 'no version yet'}"
        for package in audited
        for found in package["vulns"]
    ]
    if lines:
        return Finding(False, "\n".join(["vulnerable packages are installed:", *lines]))
    skipped = len(report) - len(audited)
    unknown = f", {skipped} are not in the database" if skipped else ""
    return Finding(True, f"no known vulnerability in {len(audited)} packages{unknown}")


def asked(service: str) -> Report | None:
    """What pip-audit reports; None when it cannot reach the database."""
    options = ["--format", "json", "--progress-spinner", "off", "--timeout", "10"]
    command = [sys.executable, "-m", "pip_audit", "--service", service, "--skip-editable", *options]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
        report: Report = json.loads(done.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, ValueError, KeyError):
        return None
    return report


def finding(ask: Callable[[str], Report | None] = asked) -> Finding:
    for service in SERVICES:
        report = ask(service)
        judgement = judged(report) if report else None
        if judgement is not None:
            return judgement
    return Finding(True, "no vulnerability database can be reached from here: nothing was audited")


def main() -> int:
    found = finding()
    print(f"dependencies: {found.text}")
    return 0 if found.ok else 1


if __name__ == "__main__":
    sys.exit(main())
