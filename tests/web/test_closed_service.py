"""The page with the real service behind it, which asks for a key."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.api.fakes import CLIP, TEXT
from tests.audio.clips import tone, wav
from tests.client.job_service import KEYS, JobService, serving_jobs
from tests.web.browser import browsing, opened

pytestmark = [pytest.mark.browser, pytest.mark.timeout(60)]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JobService]:
    with serving_jobs(tmp_path_factory.mktemp("jobs")) as service:
        yield service


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    sound = tmp_path_factory.mktemp("sound") / "tone.wav"
    sound.write_bytes(wav(tone(1.0, rate=44_100), rate=44_100))
    expect.set_options(timeout=10_000)
    with browsing(sound) as browser:
        yield browser


@pytest.fixture
def page(service: JobService, browser: Browser) -> Iterator[Page]:
    with opened(browser, f"{service.url}/") as (page, watch):
        yield page
        expected = re.compile("Failed to load resource.* 401")
        assert [line for line in watch.complaints if not expected.search(line)] == []


def show_key(page: Page, key: str) -> None:
    page.get_by_label("Key", exact=True).fill(key)
    page.get_by_role("button", name="Use this key").click()


def test_who_has_the_key_speaks_and_is_heard(page: Page) -> None:
    page.locator("#record").click()
    expect(page.locator("#key-form [role=alert]")).to_have_text("This service asks for a key.")
    show_key(page, "wsk_wrong")
    expect(page.locator("#key-form [role=alert]")).to_have_text(
        "The service does not know this key."
    )
    show_key(page, KEYS["ada"])
    expect(page.locator("#live-status")).to_have_text("Listening.")
    page.wait_for_timeout(1000)
    page.locator("#record").click()
    expect(page.locator("#live-status")).to_have_text("Finished.")
    expect(page.locator("#live-transcript .word").first).to_have_text("Grüße,")


def test_who_has_the_key_sends_a_file(page: Page, tmp_path: Path) -> None:
    path = tmp_path / "talk.wav"
    path.write_bytes(CLIP)
    page.locator("#tab-file").click()
    page.locator("#file").set_input_files(path)
    show_key(page, KEYS["bob"])
    expect(page.locator("#file-status")).to_have_text("talk.wav: Done.")
    shown = page.locator("#file-transcript .words").all_inner_texts()
    assert " ".join(shown) == TEXT
