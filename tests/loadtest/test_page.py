from __future__ import annotations

from pathlib import Path

from loadtest.page import Page, Picture, Table, html_of, write_page
from tests.loadtest.html_pages import parsed

TABLE = Table("Delays", ("figure", "p50"), [("first word", "0.3"), ("final", "n=7")], "Seconds.")


def test_a_table_is_one_with_all_its_cells() -> None:
    page = parsed(html_of(Page("Load", {}, tables=[TABLE])))
    assert page.tables == [[["figure", "p50"], ["first word", "0.3"], ["final", "n=7"]]]
    assert page.texts["h2"] == ["Delays"]


def test_whatever_a_server_says_is_text() -> None:
    nasty = '<script src="x">&amp;"'
    page = parsed(
        html_of(Page(nasty, {nasty: nasty}, [nasty], [Table(nasty, (nasty,), [(nasty,)], nasty)]))
    )
    assert page.tables == [[[nasty], [nasty]]]
    assert page.texts["dt"] == page.texts["dd"] == page.texts["li"] == page.texts["h1"] == [nasty]
    assert page.addresses == []


def test_the_verdict_is_in_words() -> None:
    assert parsed(html_of(Page("Load", {}))).texts["strong"] == ["Passed."]
    failed = parsed(html_of(Page("Load", {}, ["3 of 20 failed", "late"])))
    assert failed.texts["strong"] == ["Not passed:"]
    assert failed.texts["li"] == ["3 of 20 failed", "late"]


def test_a_page_is_a_file_that_needs_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.html"
    write_page(path, Page("Grüße", {}, pictures=[Picture("a", "<svg></svg>")]))
    page = parsed(path)
    assert page.texts["h1"] == ["Grüße"]
    assert page.svgs == 1
    assert page.addresses == []
