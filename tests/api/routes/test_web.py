from __future__ import annotations

import re
from fnmatch import fnmatch
from html.parser import HTMLParser

import httpx
import pytest

from tests.api.fakes import app_with, client_of, is_failure
from tests.conftest import PROJECT
from whisper_serve.api.routes.web import FOLDER, TYPES, wants_page

# As Firefox and Chromium send it.
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"
FILES = sorted(path.name for path in FOLDER.iterdir())


async def get(path: str, **headers: str) -> httpx.Response:
    async with client_of(app_with()) as client:
        return await client.get(path, headers=headers)


# Who gets the page


async def test_a_browser_gets_the_page() -> None:
    answer = await get("/", accept=BROWSER)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.text == (FOLDER / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("accept", ["*/*", "application/json", "application/json, text/html;q=0.9"])
async def test_a_program_gets_json(accept: str) -> None:
    answer = await get("/", accept=accept)
    assert answer.json()["service"] == "whisper_serve"


async def test_caches_keep_the_two_apart() -> None:
    answers = [await get("/", accept=accept) for accept in (BROWSER, "*/*")]
    assert [answer.headers["vary"] for answer in answers] == ["Accept", "Accept"]


@pytest.mark.parametrize(
    ("accept", "page"),
    [
        ("text/html", True),
        ("Text/HTML ; Q=0.5", True),
        ("text/html, application/json", True),
        ("text/html;q=0.5, application/json;q=0.4", True),
        ("text/html;q=0.4, application/json;q=0.5", False),
        ("text/html;q=0", False),
        ("text/html;q=much", False),
        ("text/html;q=nan", False),
        ("text/*", False),
        ("*/*", False),
        ("", False),
        (",;,;q=1,", False),
    ],
)
def test_the_page_is_for_those_who_name_html(accept: str, page: bool) -> None:
    assert wants_page(accept) is page


# Files


@pytest.mark.parametrize("name", FILES)
async def test_each_file_is_served_with_its_type(name: str) -> None:
    answer = await get(f"/web/{name}")
    assert answer.content == (FOLDER / name).read_bytes()
    assert answer.headers["content-type"] == TYPES[(FOLDER / name).suffix]


@pytest.mark.parametrize("path", ["/", "/web/app.js"])
async def test_what_is_known_is_not_sent_again(path: str) -> None:
    first = await get(path, accept=BROWSER)
    assert first.headers["cache-control"] == "no-cache"
    etag = first.headers["etag"]
    again = await get(path, accept=BROWSER, **{"if-none-match": etag})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)


@pytest.mark.parametrize(
    "path",
    [
        "/web/",
        "/web/none.js",
        "/web/..%2Fcli.py",
        "/web/%2Fetc%2Fpasswd",
        "/web/a%00b",
        "/web/x" * 99,
    ],
)
async def test_there_is_nothing_else(path: str) -> None:
    assert is_failure(await get(path), 404, "not_found")


def test_every_file_is_shipped() -> None:
    patterns = re.findall(r'"(web/[^"]*)"', (PROJECT / "setup.py").read_text(encoding="utf-8"))
    assert all(any(fnmatch(f"web/{name}", pattern) for pattern in patterns) for name in FILES)


# What the page may do


@pytest.mark.parametrize("path", ["/", "/web/app.js"])
async def test_a_browser_is_told_to_trust_nothing_else(path: str) -> None:
    headers = (await get(path, accept=BROWSER)).headers
    policy = dict(rule.split(" ", 1) for rule in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["frame-ancestors"] == "'none'"
    assert {policy[f"{kind}-src"] for kind in ("script", "style", "connect", "img")} == {"'self'"}
    assert headers["x-content-type-options"] == "nosniff"
    assert "microphone=(self)" in headers["permissions-policy"]


class Page(HTMLParser):
    """What a page refers to, and what a strict policy would forbid."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.inline: list[str] = []
        self.feed((FOLDER / "index.html").read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.links += [link for name in ("src", "href") if (link := given.get(name))]
        self.inline += [name for name in given if name.startswith("on") or name == "style"]
        if tag == "style" or (tag == "script" and "src" not in given):
            self.inline.append(tag)


def test_the_page_has_nothing_inline() -> None:
    assert Page().inline == []


def test_the_page_refers_to_files_of_its_own_beside_it() -> None:
    """Without a leading slash, so that a proxy can put it behind any path."""
    links = set(Page().links)
    assert links >= {"web/app.js", "web/style.css", "web/icon.svg"}
    assert links - {"docs"} <= {f"web/{name}" for name in FILES}


def test_modules_import_files_of_their_own() -> None:
    for path in FOLDER.glob("*.js"):
        imported = re.findall(r'from "\./([^"]+)"', path.read_text(encoding="utf-8"))
        assert set(imported) <= set(FILES), path.name


def test_nothing_names_another_host() -> None:
    namespace = "http://www.w3.org/2000/svg"
    for name in FILES:
        text = (FOLDER / name).read_text(encoding="utf-8").replace(namespace, "")
        assert re.findall(r"(?:https?:)?//(?!localhost)[\w-]+\.[\w.-]+", text) == [], name
