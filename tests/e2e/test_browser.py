"""A person with a browser, and the real service: speech in, text on the page.

With `WHISPER_SERVE_SCREENSHOTS=docs/images` the pictures of the documentation are made anew.
"""

from __future__ import annotations

import os
import re
import signal
import wave
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from whisper.normalizers import EnglishTextNormalizer

from tests.conftest import SAMPLE_WORDS
from tests.e2e.service import command, free_port, started, wait_for, write_config
from tests.web.browser import Watch, browsing, opened
from tests.web.cable import Cable, cabled

pytestmark = [
    pytest.mark.browser,
    pytest.mark.server,
    pytest.mark.weights,
    pytest.mark.timeout(180),
]

STOP_LIMIT_S = 40.0
SPOKEN_MS = 60_000
DESK = {"viewport": {"width": 960, "height": 720}}
PHONE = {"viewport": {"width": 360, "height": 740}, "color_scheme": "dark"}
normalize = EnglishTextNormalizer()


@pytest.fixture(scope="module")
def cable(
    tmp_path_factory: pytest.TempPathFactory, model_dir: Path, base_ctranslate2: Path
) -> Iterator[Cable]:
    """The way to a running service."""
    folder, port = tmp_path_factory.mktemp("service"), free_port()
    config = write_config(folder, server={"port": port}, model={"model_dir": str(model_dir)})
    log = folder / "output"
    with started(command(config), log) as process:
        wait_for(log, "ready at", process)
        with cabled(port) as cable:
            yield cable
        process.send_signal(signal.SIGTERM)
        process.wait(STOP_LIMIT_S)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory, sample: Path) -> Iterator[Browser]:
    """It hears the sample once each time that a recording starts."""
    speech = tmp_path_factory.mktemp("speech") / "speech.wav"
    with wave.open(str(sample)) as recording, wave.open(str(speech), "wb") as padded:
        padded.setparams(recording.getparams())
        # A microphone takes a moment to open.
        padded.writeframes(bytes(recording.getframerate() * recording.getsampwidth()))
        padded.writeframes(recording.readframes(recording.getnframes()))
    expect.set_options(timeout=20_000)
    with browsing(speech, once=True) as browser:
        yield browser


def address(cable: Cable) -> str:
    return f"127.0.0.1:{cable.port}"


def live_text(page: Page) -> str:
    return " ".join(page.locator("#live-transcript .words").all_inner_texts())


def wait_until_all_is_spoken(page: Page) -> None:
    expect(page.locator("#elapsed")).to_have_text(re.compile("^0:1[2-9]"), timeout=SPOKEN_MS)


def wait_for_words(page: Page, count: int) -> None:
    last = page.locator("#live-transcript .paragraphs .word").nth(count - 1)
    expect(last).to_be_attached(timeout=SPOKEN_MS)


def stop(page: Page) -> None:
    page.locator("#record").click()
    expect(page.locator("#live-status")).to_have_text("Finished.", timeout=SPOKEN_MS)


def has_only_its_own(watch: Watch, cable: Cable) -> bool:
    return watch.complaints == [] and watch.strangers(address(cable)) == []


def picture(page: Page, name: str, *, shows: str) -> None:
    """For the documentation, when it is asked for; with something that comes and goes."""
    folder = os.environ.get("WHISPER_SERVE_SCREENSHOTS")
    if folder:
        page.locator(shows).first.wait_for()
        page.screenshot(path=Path(folder, f"{name}.png"), full_page=True)


def test_what_is_spoken_is_on_the_page(cable: Cable, browser: Browser) -> None:
    with opened(browser, f"http://{address(cable)}/", **DESK) as (page, watch):
        expect(page.locator("#service")).to_have_text("Ready: base on CPU")
        page.locator("#record").click()
        wait_for_words(page, 4)
        picture(page, "live", shows=".pending")
        wait_until_all_is_spoken(page)
        stop(page)
        assert normalize(live_text(page)) == SAMPLE_WORDS
        expect(page.locator("#live-facts")).to_contain_text("English")
        page.get_by_role("button", name="Go on recording").click()
        expect(page.locator("#live-status")).to_have_text("Listening.")
        stop(page)
        assert normalize(live_text(page)).startswith(SAMPLE_WORDS)
        assert has_only_its_own(watch, cable)


def test_a_cut_connection_costs_no_word(cable: Cable, browser: Browser) -> None:
    with opened(browser, f"http://{address(cable)}/", **PHONE) as (page, _):
        page.locator("#more summary").click()
        page.get_by_label("Text becomes final").select_option("agreement")
        page.locator("#more summary").click()
        page.locator("#record").click()
        wait_for_words(page, 1)
        cable.unplug()
        expect(page.locator("#live-status")).to_contain_text("Nothing is lost")
        cable.plug()
        expect(page.locator("#live-status")).to_have_text("Listening.")
        wait_for_words(page, 8)
        picture(page, "phone", shows=".paragraphs")
        wait_until_all_is_spoken(page)
        stop(page)
        assert normalize(live_text(page)) == SAMPLE_WORDS


def test_a_file_becomes_text(cable: Cable, browser: Browser, sample: Path) -> None:
    with opened(browser, f"http://{address(cable)}/#file", **DESK) as (page, watch):
        page.locator("#file").set_input_files(sample)
        status = page.locator("#file-status")
        expect(status).to_have_text(f"{sample.name}: Done.", timeout=SPOKEN_MS)
        text = " ".join(page.locator("#file-transcript .words").all_inner_texts())
        assert normalize(text) == SAMPLE_WORDS
        picture(page, "upload", shows="#file-facts")
        with page.expect_download() as download:
            page.locator("#file-transcript [data-does=srt]").click()
        assert "-->" in download.value.path().read_text(encoding="utf-8")
        assert has_only_its_own(watch, cable)
