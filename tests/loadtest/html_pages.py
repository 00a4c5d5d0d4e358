"""HTML as a browser reads it."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

VOID = {"meta"}


class Parsed(HTMLParser):
    """`tables`: rows of cells. `addresses`: whatever would be fetched from elsewhere."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.texts: dict[str, list[str]] = {}
        self.addresses: list[str] = []
        self.svgs = 0
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == [], f"never closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self._open.append(tag)
        self.addresses += [str(value) for name, value in attrs if name in {"src", "href"}]
        self.svgs += tag == "svg"
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in {"td", "th"}:
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self._open:
            return
        if self._open[-1] in {"td", "th"}:
            self.tables[-1][-1][-1] += data
        else:
            self.texts.setdefault(self._open[-1], []).append(data)


def parsed(html: str | Path) -> Parsed:
    return Parsed(html.read_text(encoding="utf-8") if isinstance(html, Path) else html)
