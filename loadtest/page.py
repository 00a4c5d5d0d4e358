"""A report as one HTML file that needs nothing else: tables and pictures, for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 62rem; padding: 0 1rem;
       color: #1a1a1a; background: #fff }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { border-bottom: 1px solid #ddd; padding: .3rem .7rem; text-align: right }
th:first-child, td:first-child { text-align: left }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem }
dt { color: #666 } dd { margin: 0 }
.passed { color: #0a6b2d } .failed { color: #a40e0e }
figure { margin: 1.5rem 0 } figure svg { max-width: 100%; height: auto }
p.note { color: #666 }
"""


@dataclass(frozen=True, slots=True)
class Table:
    """`rows` have as many cells as `columns`."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Picture:
    """`svg`: one element, which is trusted."""

    caption: str
    svg: str


@dataclass(frozen=True, slots=True)
class Page:
    """`faults`: why it did not pass, in words; none when it did."""

    title: str
    facts: Mapping[str, str]
    faults: Sequence[str] = ()
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = field(default=())


def write_page(path: Path, page: Page) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(html_of(page), encoding="utf-8")


def html_of(page: Page) -> str:
    title = escape(page.title)
    body = [
        f"<h1>{title}</h1>",
        *_verdict(page.faults),
        f"<dl>{''.join(_fact(*fact) for fact in page.facts.items())}</dl>",
        *(_table(table) for table in page.tables),
        *(_picture(picture) for picture in page.pictures),
    ]
    head = f'<meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>'
    lines = "\n".join(body)
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head><body>\n{lines}\n</body></html>\n'


def _verdict(faults: Sequence[str]) -> Iterable[str]:
    if not faults:
        yield '<p class="passed"><strong>Passed.</strong></p>'
        return
    reasons = "".join(f"<li>{escape(fault)}</li>" for fault in faults)
    yield f'<div class="failed"><strong>Not passed:</strong><ul>{reasons}</ul></div>'


def _fact(name: str, value: str) -> str:
    return f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>"


def _table(table: Table) -> str:
    heading = "".join(f"<th>{escape(name)}</th>" for name in table.columns)
    rows = "".join(f"<tr>{_cells(row)}</tr>" for row in table.rows)
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    return (
        f"<h2>{escape(table.title)}</h2>"
        f"<table><thead><tr>{heading}</tr></thead><tbody>{rows}</tbody></table>{note}"
    )


def _cells(row: Sequence[object]) -> str:
    return "".join(f"<td>{escape(str(cell))}</td>" for cell in row)


def _picture(picture: Picture) -> str:
    return f"<figure>{picture.svg}<figcaption>{escape(picture.caption)}</figcaption></figure>"
