from __future__ import annotations

import pytest

from checks.dependencies import Report, finding, judged

FINE = {"name": "good", "version": "1.0", "vulns": []}
UNKNOWN = {"name": "new", "skip_reason": "Dependency not found"}
BAD = {
    "name": "bad",
    "version": "0.9",
    "vulns": [
        {"id": "PYSEC-2024-1", "fix_versions": ["1.0", "0.9.1"]},
        {"id": "PYSEC-2024-2", "fix_versions": []},
    ],
}


def test_packages_without_a_fault_pass_and_are_counted() -> None:
    found = judged([FINE, FINE, UNKNOWN])
    assert found == (True, "no known vulnerability in 2 packages, 1 are not in the database")


def test_every_vulnerability_is_told_with_what_repairs_it() -> None:
    found = judged([FINE, BAD])
    assert found is not None
    assert not found.ok
    assert found.text.splitlines()[1:] == [
        "bad 0.9: PYSEC-2024-1, repaired in 1.0, 0.9.1",
        "bad 0.9: PYSEC-2024-2, repaired in no version yet",
    ]


def test_a_database_that_knows_no_package_says_nothing() -> None:
    assert judged([UNKNOWN, UNKNOWN]) is None


@pytest.mark.parametrize("first", [None, [UNKNOWN], []])
def test_the_next_database_is_asked_then(first: Report | None) -> None:
    assert not finding(lambda service: first if service == "pypi" else [BAD]).ok


def test_where_none_can_be_reached_that_is_said_and_nothing_fails() -> None:
    found = finding(lambda _service: None)
    assert found.ok
    assert found.text.endswith("nothing was audited")
    assert "\n" not in found.text
