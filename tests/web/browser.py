"""Chromium with a microphone that plays a file, and what a page did that it must not."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.web.scripted import Script, scripted_app, serving

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
LIMIT_MS = 15_000
# A name that is no secure context, as this machine's name is not for another machine.
ELSEWHERE = "elsewhere.test"


def chromium() -> str:
    """The browser to test with: `WHISPER_SERVE_TEST_BROWSER`, or an installed one."""
    named = os.environ.get("WHISPER_SERVE_TEST_BROWSER")
    found = named or next(filter(None, map(shutil.which, NAMES)), None)
    if not found:
        pytest.skip("there is no chromium here: `make browser` installs it on Debian")
    return found


@contextmanager
def browsing(sound: Path | None = None, *, once: bool = False) -> Iterator[Browser]:
    """A browser whose microphone plays `sound` (wav), over and over unless `once`; without
    one it beeps."""
    arguments = [
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        "--autoplay-policy=no-user-gesture-required",
        f"--host-resolver-rules=MAP {ELSEWHERE} 127.0.0.1",
        "--disable-dev-shm-usage",
    ]
    if sound:
        ending = "%noloop" if once else ""
        arguments.append(f"--use-file-for-fake-audio-capture={sound}{ending}")
    executable = chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=executable, args=arguments, chromium_sandbox=False
        )
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Watch:
    """What a page said and asked for."""

    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def over(self, page: Page) -> None:
        page.on("console", lambda line: self._console(line.type, line.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))

    def _console(self, kind: str, text: str) -> None:
        if kind in {"error", "warning"}:
            self.complaints.append(text)

    def strangers(self, host: str) -> list[str]:
        """Requests to anybody but `host`."""
        schemes = {"http", "https", "ws", "wss"}
        parts = [urlsplit(url) for url in self.requests]
        return [part.geturl() for part in parts if part.scheme in schemes and part.netloc != host]


@contextmanager
def opened(browser: Browser, url: str, **options: Any) -> Iterator[tuple[Page, Watch]]:
    """The page at `url` in a fresh profile."""
    context = browser.new_context(permissions=["microphone"], **options)
    context.set_default_timeout(LIMIT_MS)
    watch = Watch()
    try:
        page = context.new_page()
        watch.over(page)
        page.goto(url)
        yield page, watch
    finally:
        context.close()


class Modules:
    """The page's modules, to call their functions one by one."""

    def __init__(self, page: Page) -> None:
        self._page = page

    def call(self, module: str, function: str, *arguments: Any) -> Any:
        """What the JavaScript `function`, which gets the module and the arguments, returns."""
        program = f"async (args) => ({function})(await import('/web/{module}'), ...args)"
        return self._page.evaluate(program, list(arguments))


@contextmanager
def loaded_modules() -> Iterator[Modules]:
    with (
        serving(scripted_app(Script)) as port,
        browsing() as browser,
        opened(browser, f"http://127.0.0.1:{port}/web/icon.svg") as (page, _),
    ):
        yield Modules(page)
