"""The page in a browser, against a service that does as each test says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from tests.audio.clips import tone, wav
from tests.web.browser import ELSEWHERE, Watch, browsing, opened
from tests.web.cable import Cable, cabled
from tests.web.scripted import ANSWER, SEGMENTS, Script, fails, scripted_app, serving
from whisper_serve.api.routes.web import FOLDER

pytestmark = [pytest.mark.browser, pytest.mark.timeout(60)]

TONE_HZ = 1000
# What a browser writes to its console by itself when a request fails, as tests make them.
EXPECTED = re.compile(r"WebSocket connection to|Failed to load resource")


class Stage:
    """The service for the page: a script for each test, behind a cable."""

    def __init__(self) -> None:
        self.script = Script()
        self.cable: Cable | None = None


class Visit:
    """One test's page, and what is on it."""

    def __init__(self, page: Page, script: Script, cable: Cable, watch: Watch) -> None:
        self.page, self.script, self.cable, self.watch = page, script, cable, watch
        self.button = page.locator("#record")
        self.status = page.locator("#live-status")
        self.notice = page.locator("#live-notice")
        self.text = page.locator("#live-transcript .paragraphs")

    def record(self, until: str) -> None:
        """Until a word is final."""
        self.button.click()
        self.wait_for_word(until)

    def wait_for_word(self, word: str) -> None:
        expect(self.text.locator(".word", has_text=re.compile(f"^{word}$"))).to_be_attached()

    def stop(self) -> None:
        self.button.click()
        expect(self.status).to_have_text("Finished.")

    def words(self) -> list[str]:
        return self.page.locator("#live-transcript .paragraphs .word").all_inner_texts()

    def is_whole(self) -> bool:
        """Each word that is spoken in what was recorded is there once, and no other is."""
        tape = self.script.tape
        said = self.script.spoken(len(tape.samples) / 16_000).split()
        return tape.is_whole and self.words() == said and len(said) > 0

    def choose(self, path: Path) -> None:
        self.page.locator("#tab-file").click()
        self.page.locator("#file").set_input_files(path)


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    stage = Stage()
    with serving(scripted_app(lambda: stage.script)) as port, cabled(port) as cable:
        stage.cable = cable
        yield stage


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    sound = tmp_path_factory.mktemp("sound") / "tone.wav"
    sound.write_bytes(wav(tone(1.0, rate=44_100, hz=TONE_HZ), rate=44_100))
    expect.set_options(timeout=10_000)
    with browsing(sound) as browser:
        yield browser


@pytest.fixture
def context_options() -> dict[str, Any]:
    return {"viewport": {"width": 1000, "height": 900}}


@pytest.fixture
def host() -> str:
    return "127.0.0.1"


@pytest.fixture
def visit(
    stage: Stage, browser: Browser, host: str, context_options: dict[str, Any]
) -> Iterator[Visit]:
    """The page, opened. In the end it has complained of nothing and asked nobody else."""
    stage.script = Script()
    assert stage.cable is not None
    stage.cable.plug()
    stage.cable.bytes_per_s = None
    address = f"{host}:{stage.cable.port}"
    with opened(browser, f"http://{address}/", **context_options) as (page, watch):
        yield Visit(page, stage.script, stage.cable, watch)
        stage.script.gate.set()
        assert [line for line in watch.complaints if not EXPECTED.search(line)] == []
        assert watch.strangers(address) == []


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "talk.one.wav"
    path.write_bytes(wav(tone(5.0)))
    return path


# Live


def test_speech_becomes_text_up_to_the_last_word(visit: Visit) -> None:
    visit.record(until="w1")
    expect(visit.status).to_have_text("Listening.")
    expect(visit.page.locator("#level .says")).to_have_text("Level: good")
    visit.stop()
    assert visit.is_whole()
    facts = visit.page.locator("#live-facts")
    expect(facts).to_contain_text("English (99 %)")
    expect(facts).to_contain_text("0.42 s")
    assert visit.watch.complaints == []


def test_the_microphone_is_sent_as_16_khz_pcm(visit: Visit) -> None:
    visit.record(until="w1")
    visit.stop()
    assert (visit.script.configs[0]["encoding"], visit.script.configs[0]["sample_rate"]) == (
        "pcm_s16le",
        16_000,
    )
    assert loudest_hz(visit.script, 16_000) == pytest.approx(TONE_HZ, abs=5)


def test_where_the_browser_does_not_resample_its_own_rate_is_told(visit: Visit) -> None:
    visit.page.evaluate(
        """() => {
          const Theirs = AudioContext;
          window.AudioContext = class extends Theirs {
            constructor(options) {
              if (options?.sampleRate) throw new DOMException("no", "NotSupportedError");
              super({ sampleRate: 96000 });
            }
          };
        }"""
    )
    visit.record(until="w0")
    visit.stop()
    assert visit.script.configs[0]["sample_rate"] == 48_000
    assert loudest_hz(visit.script, 48_000) == pytest.approx(TONE_HZ, abs=5)


def loudest_hz(script: Script, rate: int) -> float:
    samples = script.tape.array()[rate // 4 :].astype(float)
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(spectrum.argmax() * rate / len(samples))


def test_a_translation_is_marked_as_english(visit: Visit) -> None:
    """What reads the page aloud has to know."""
    visit.script.language = "de"
    visit.record(until="w0")
    expect(visit.text.locator(".words").last).to_have_attribute("lang", "de")
    visit.stop()
    expect(visit.page.locator("#live-facts")).to_contain_text("German (99 %)")
    visit.page.get_by_label("Written").select_option("in English")
    visit.button.click()
    expect(visit.text.locator(".words").nth(1)).to_have_attribute("lang", "en")
    visit.stop()


def test_pending_text_looks_different_and_is_not_announced(visit: Visit) -> None:
    visit.record(until="w0")
    pending = visit.text.locator(".pending")
    expect(pending).to_have_css("font-style", "italic")
    expect(visit.text.locator(".word").first).to_have_css("font-style", "normal")
    announcer = visit.page.locator("#announcer")
    expect(announcer).to_have_attribute("aria-live", "polite")
    expect(announcer).to_have_text(re.compile(r"^w\d+( w\d+)*$"))
    assert visit.page.locator("#live-transcript [aria-live]").count() == 0
    visit.stop()
    assert pending.count() == 0
    said = " ".join(visit.words())
    assert said.endswith(announcer.inner_text().strip())


def test_a_second_recording_goes_on_behind_the_first(visit: Visit) -> None:
    visit.record(until="w0")
    visit.stop()
    before, length = visit.words(), len(visit.script.tape.samples)
    expect(visit.button).to_have_text("Go on recording")
    visit.record(until=f"w{len(before) + 1}")
    visit.stop()
    assert visit.script.configs[1]["resume"]["committed_until"] == length / 16_000
    assert visit.script.configs[1]["resume"]["context"].endswith(before[-1])
    assert visit.words()[: len(before)] == before
    assert visit.is_whole()
    assert visit.text.locator("p").count() == 2


def test_clearing_begins_anew(visit: Visit) -> None:
    visit.record(until="w0")
    visit.page.locator("#live-transcript [data-does=clear]").click()
    expect(visit.text.locator(".word", has_text="w0")).to_have_count(0)
    expect(visit.text.locator(".word").first).to_be_attached()
    assert {"type": "reset"} in visit.script.messages
    visit.stop()
    visit.page.locator("#live-transcript [data-does=clear]").click()
    expect(visit.button).to_have_text("Start recording")
    expect(visit.page.locator("#elapsed")).to_have_text("0:00")
    visit.script.tape.samples.clear()
    visit.record(until="w0")
    assert visit.script.configs[1].get("resume") is None


# Settings


def test_settings_are_sent_and_kept(visit: Visit) -> None:
    page = visit.page
    page.locator("#more summary").click()
    page.get_by_label("Spoken language").select_option("German")
    page.get_by_label("Written").select_option("in English")
    page.get_by_label("Text becomes final").select_option("utterance")
    page.get_by_label("Chunk, seconds").fill("8")
    page.get_by_label("Overlap, seconds").fill("1.5")
    page.get_by_label("Use the text so far as context").uncheck()
    page.get_by_label("Words that are likely").fill("Godot")
    page.get_by_label("Words that are likely").press("Tab")
    page.reload()
    visit.record(until="w0")
    wanted = {
        "language": "de",
        "task": "translate",
        "policy": "utterance",
        "chunk_duration": 8,
        "overlap": 1.5,
        "use_context": False,
        "interim": True,
        "vad": True,
        "prompt": "",
        "hotwords": "Godot",
        "channels": 1,
    }
    assert wanted.items() <= visit.script.configs[0].items()


def test_all_languages_can_be_chosen(visit: Visit) -> None:
    options = visit.page.get_by_label("Spoken language").locator("option").all_inner_texts()
    assert options[0] == "Detect it"
    assert {"English", "Welsh", "Cantonese", "Haitian Creole"} <= set(options)
    assert options[1:] == sorted(options[1:])
    assert len(options) == 101


def test_a_setting_changes_while_it_listens(visit: Visit) -> None:
    visit.page.locator("#more summary").click()
    visit.record(until="w0")
    visit.page.get_by_label("Text becomes final").select_option("agreement")
    expect(visit.status).to_have_text("Listening, with the new settings.")
    assert visit.script.messages == [{"type": "config", "policy": "agreement"}]
    visit.cable.cut()
    expect(visit.status).to_contain_text("resuming")
    expect(visit.status).to_have_text("Listening.")
    assert visit.script.configs[1]["policy"] == "agreement"


def test_a_refused_change_is_told_and_not_made_again(visit: Visit) -> None:
    visit.page.locator("#more summary").click()
    visit.record(until="w0")
    field = visit.page.get_by_label("Words that are likely")
    field.fill("refuse me")
    field.press("Enter")
    expect(visit.notice).to_have_text("Error: Hotwords: not these.")
    visit.cable.cut()
    visit.wait_for_word("w3")
    visit.stop()
    assert visit.script.configs[1]["hotwords"] == ""
    assert visit.is_whole()


def test_what_cannot_be_is_told_before_it_is_sent(visit: Visit) -> None:
    visit.page.locator("#more summary").click()
    overlap = visit.page.get_by_label("Overlap, seconds")
    overlap.fill("5")
    overlap.press("Enter")
    error = visit.page.locator("#settings-error")
    expect(error).to_contain_text("shorter than a chunk")
    expect(overlap).to_have_attribute("aria-invalid", "true")
    visit.page.locator("#more summary").click()
    visit.button.click()
    expect(overlap).to_be_focused()
    assert visit.script.configs == []
    visit.page.get_by_role("button", name="Back to the defaults").click()
    expect(error).to_be_hidden()
    expect(overlap).to_have_value("0.5")


# Connections that are lost


def test_a_lost_connection_loses_nothing_and_says_nothing_twice(visit: Visit) -> None:
    visit.record(until="w1")
    visit.cable.unplug()
    expect(visit.status).to_contain_text("Connection lost, resuming… Nothing is lost")
    visit.page.wait_for_timeout(800)
    visit.cable.plug()
    expect(visit.status).to_have_text("Listening.")
    visit.wait_for_word("w6")
    visit.stop()
    assert visit.is_whole()
    assert visit.script.configs[-1]["resume"]["audio_from"] is not None


def test_a_service_that_ends_a_stream_is_asked_again(visit: Visit) -> None:
    visit.script.closes = [(0.5, 1001), (1.0, 1011), (1.5, 4429)]
    visit.record(until="w7")
    visit.stop()
    assert len(visit.script.configs) == 4
    assert visit.is_whole()


def test_the_tail_is_not_lost_with_the_connection(visit: Visit) -> None:
    visit.script.finishes = False
    visit.record(until="w0")
    visit.button.click()
    expect(visit.button).to_have_text("Stop waiting")
    wait_until(visit, lambda: {"type": "end"} in visit.script.messages)
    visit.script.finishes = True
    visit.cable.cut()
    expect(visit.status).to_have_text("Finished.")
    assert visit.is_whole()


def test_one_need_not_wait_for_ever(visit: Visit) -> None:
    visit.record(until="w0")
    visit.cable.unplug()
    expect(visit.status).to_contain_text("resuming")
    visit.button.click()
    expect(visit.button).to_have_text("Stop waiting")
    visit.button.click()
    expect(visit.notice).to_contain_text("were not transcribed")
    expect(visit.button).to_have_text("Go on recording")
    visit.cable.plug()
    visit.record(until="w4")
    visit.stop()


def test_refused_settings_end_it_with_the_reason(visit: Visit) -> None:
    error = {"code": "invalid_parameter", "message": "language: not for this model"}
    visit.script.refusals = [(1008, error)]
    visit.button.click()
    expect(visit.notice).to_have_text("Error: Language: not for this model.")
    expect(visit.status).to_have_text("Stopped.")
    assert len(visit.script.configs) == 1
    visit.record(until="w2")
    expect(visit.notice).to_be_hidden()


def test_a_busy_service_is_waited_for(visit: Visit) -> None:
    visit.script.refusals = [(1013, {"code": "overloaded", "message": "the service is full"})]
    visit.button.click()
    expect(visit.status).to_contain_text("The service is full, trying again…")
    visit.wait_for_word("w0")
    visit.stop()
    assert visit.is_whole()


def test_a_text_cleared_while_nothing_is_connected_does_not_come_back(visit: Visit) -> None:
    visit.record(until="w1")
    visit.cable.unplug()
    expect(visit.status).to_contain_text("resuming")
    visit.page.locator("#live-transcript [data-does=clear]").click()
    visit.cable.plug()
    expect(visit.status).to_have_text("Listening.")
    expect(visit.text.locator(".word").first).to_be_attached()
    visit.stop()
    began = visit.script.configs[-1]["resume"]["committed_until"]
    gone = visit.script.count(began)
    assert gone > 2
    assert visit.words()[0] == f"w{gone}"


def test_a_service_that_is_gone_cannot_record(visit: Visit) -> None:
    visit.cable.unplug()
    visit.button.click()
    expect(visit.notice).to_contain_text("The service does not answer")
    visit.cable.plug()
    visit.record(until="w0")


def test_a_service_that_takes_no_stream_is_waited_for(visit: Visit) -> None:
    visit.script.turns_away = 2
    visit.button.click()
    expect(visit.status).to_contain_text("No connection, trying again… What you say is kept")
    visit.wait_for_word("w0")
    visit.stop()
    assert visit.is_whole()


def test_errors_and_warnings_on_the_way_are_told(visit: Visit) -> None:
    error = {"type": "error", "code": "engine_failed", "message": "it broke", "fatal": False}
    slow = {"type": "warning", "code": "falling_behind", "message": "text comes late"}
    visit.script.sends = [(0.3, slow), (1.3, error)]
    visit.button.click()
    expect(visit.notice).to_have_text("Note: Text comes late.")
    expect(visit.notice).to_have_text("Error: It broke.")
    expect(visit.notice).to_have_attribute("role", "alert")
    visit.stop()
    assert visit.is_whole()


def test_no_more_is_sent_than_the_service_takes(visit: Visit) -> None:
    visit.script.limits.update(max_backlog_s=2.0, idle_timeout_s=1.5)
    visit.script.settle_s = 60
    visit.button.click()
    wait_until(visit, lambda: visit.script.most_unsettled_s >= 1.0)
    visit.page.wait_for_timeout(400)
    assert visit.script.most_unsettled_s <= 1.2
    visit.script.settle_s = 0.5
    visit.wait_for_word("w6")
    visit.stop()
    assert {"type": "keepalive"} in visit.script.messages
    assert visit.is_whole()


def test_what_cannot_be_kept_is_told(visit: Visit) -> None:
    module = (FOLDER / "journal.js").read_text(encoding="utf-8")
    small = module.replace("maxS = 300", "maxS = 2")
    visit.page.route(
        "**/web/journal.js", lambda route: route.fulfill(body=small, content_type="text/javascript")
    )
    visit.page.reload()
    visit.record(until="w0")
    visit.cable.unplug()
    expect(visit.notice).to_contain_text("What is said now is lost!")
    visit.cable.plug()
    expect(visit.status).to_have_text("Listening.")
    expect(visit.notice).to_contain_text("s of speech could not be kept.")
    visit.stop()
    assert visit.is_whole()


# Keys


KEY = "wsk_right"


@pytest.fixture
def closed(visit: Visit) -> Visit:
    visit.script.keys = {KEY}
    return visit


def show_key(visit: Visit, key: str) -> None:
    visit.page.get_by_label("Key", exact=True).fill(key)
    visit.page.get_by_role("button", name="Use this key").click()


def stored(visit: Visit, where: str) -> str:
    return str(visit.page.evaluate(f"() => JSON.stringify({{...{where}}})"))


def test_a_closed_service_asks_for_a_key_and_streams_with_a_token(closed: Visit) -> None:
    closed.button.click()
    form = closed.page.locator("#key-form")
    expect(form.get_by_role("alert")).to_have_text("This service asks for a key.")
    field = closed.page.get_by_label("Key", exact=True)
    expect(field).to_be_focused()
    expect(field).to_have_attribute("type", "password")
    show_key(closed, KEY)
    closed.wait_for_word("w1")
    expect(form).to_be_hidden()
    closed.stop()
    assert closed.is_whole()
    assert closed.script.shown == [["whisper-serve", "whisper-serve.key.wst_0"]]


def test_a_wrong_key_is_told(closed: Visit) -> None:
    closed.button.click()
    says = closed.page.locator("#key-form [role=alert]")
    expect(says).to_have_text("This service asks for a key.")
    for key, sentence in {
        "": "The key is empty.",
        "ключ": "A key has no spaces and no letters with accents.",
        "wsk_wrong": "The service does not know this key.",
    }.items():
        show_key(closed, key)
        expect(says).to_have_text(sentence)
    assert KEY not in stored(closed, "sessionStorage")
    show_key(closed, KEY)
    closed.wait_for_word("w0")
    closed.stop()


def test_the_key_is_kept_in_the_tab_only(closed: Visit) -> None:
    closed.button.click()
    show_key(closed, KEY)
    closed.wait_for_word("w0")
    closed.stop()
    assert KEY not in stored(closed, "localStorage")
    assert KEY in stored(closed, "sessionStorage")
    closed.page.reload()
    closed.record(until="w0")
    closed.stop()
    closed.page.get_by_role("button", name="Forget the key").click()
    assert KEY not in stored(closed, "sessionStorage")
    closed.button.click()
    expect(closed.page.locator("#key-form")).to_be_visible()


def test_each_connection_has_a_token_of_its_own(closed: Visit) -> None:
    closed.script.closes = [(0.5, 1001), (1.0, 1012)]
    closed.button.click()
    show_key(closed, KEY)
    closed.wait_for_word("w6")
    closed.stop()
    tokens = [name for _, name in closed.script.shown]
    assert tokens == [f"whisper-serve.key.wst_{number}" for number in range(3)]
    assert closed.is_whole()


def test_a_key_that_is_revoked_while_it_listens_is_asked_for_anew(closed: Visit) -> None:
    closed.button.click()
    show_key(closed, KEY)
    closed.wait_for_word("w0")
    closed.script.keys = {"wsk_new"}
    closed.cable.cut()
    expect(closed.page.locator("#key-form [role=alert]")).to_have_text("A key is needed.")
    closed.page.wait_for_timeout(500)
    show_key(closed, "wsk_new")
    expect(closed.status).to_have_text("Listening.")
    closed.wait_for_word("w4")
    closed.stop()
    assert closed.is_whole()


def test_a_service_that_closes_itself_while_it_listens_asks_for_a_key(visit: Visit) -> None:
    visit.record(until="w0")
    visit.script.keys = {KEY}
    visit.cable.cut()
    expect(visit.page.locator("#key-form [role=alert]")).to_have_text(
        "This service asks for a key."
    )
    show_key(visit, KEY)
    visit.wait_for_word("w4")
    visit.stop()
    assert visit.is_whole()


def test_a_key_that_is_not_for_streams_ends_it(closed: Visit) -> None:
    closed.script.live_keys = set()
    closed.button.click()
    show_key(closed, KEY)
    expect(closed.notice).to_have_text("Error: This key may not be used for live transcription.")
    expect(closed.status).to_have_text("Stopped.")


def test_tokens_that_cannot_be_had_now_are_waited_for(closed: Visit) -> None:
    closed.script.tokens_fail = [(429, "no more than 1 request a minute is allowed")]
    closed.button.click()
    show_key(closed, KEY)
    expect(closed.status).to_contain_text("No more than 1 request a minute is allowed, trying")
    closed.wait_for_word("w0")
    closed.stop()
    assert closed.is_whole()


def test_an_open_service_is_shown_nothing(visit: Visit) -> None:
    visit.script.closes = [(0.5, 1001)]
    visit.record(until="w3")
    visit.stop()
    assert visit.script.shown == [[], []]
    assert visit.script.tokens == []


def test_a_file_waits_for_the_key(closed: Visit, recording: Path) -> None:
    closed.script.gate.set()
    closed.choose(recording)
    status = closed.page.locator("#file-status")
    expect(status).to_have_text("talk.one.wav waits until the service lets it in.")
    closed.page.get_by_role("button", name="Cancel").click()
    expect(status).to_have_text("talk.one.wav: Cancelled.")
    closed.page.get_by_role("button", name="Transcribe again").click()
    show_key(closed, KEY)
    expect(status).to_have_text("talk.one.wav: Done.")
    assert len(closed.script.forms) == 1


def test_a_file_that_is_refused_for_its_key_is_sent_again_with_another(
    closed: Visit, recording: Path
) -> None:
    closed.script.gate.set()
    closed.choose(recording)
    show_key(closed, KEY)
    status = closed.page.locator("#file-status")
    expect(status).to_have_text("talk.one.wav: Done.")
    closed.script.keys = {"wsk_new"}
    closed.page.get_by_role("button", name="Transcribe again").click()
    expect(closed.page.locator("#key-form [role=alert]")).to_have_text(
        "The service does not know this key."
    )
    show_key(closed, "wsk_new")
    expect(status).to_have_text("talk.one.wav: Done.")


# A service that goes away


DRAINING = {"type": "warning", "code": "draining", "message": "the service is about to stop"}


def test_a_drain_is_a_quiet_note_and_another_connection(visit: Visit) -> None:
    visit.script.sends = [(1.2, DRAINING)]
    visit.button.click()
    expect(visit.notice).to_have_text("Note: The service is about to stop.")
    expect(visit.status).to_have_text("Listening.")
    visit.wait_for_word("w8")
    visit.stop()
    assert [bool(config.get("resume")) for config in visit.script.configs] == [False, True]
    assert visit.is_whole()


def test_a_service_that_drains_is_waited_for_until_it_is_back(visit: Visit) -> None:
    visit.script.sends = [(1.2, DRAINING)]
    visit.script.turns_away = 3  # two of them as it stops, one as it starts
    visit.script.turns_away_after = 1
    visit.button.click()
    expect(visit.status).to_contain_text("resuming… Nothing is lost")
    visit.wait_for_word("w8")
    visit.stop()
    assert visit.is_whole()


# The microphone


def test_without_a_microphone_it_says_why(visit: Visit) -> None:
    sentences = {
        "NotAllowedError": "does not let this page use the microphone",
        "NotFoundError": "There is no microphone",
        "NotReadableError": "Another program may be using it",
        "OddError": "The microphone cannot be used: why",
    }
    for name, sentence in sentences.items():
        refuse = "() => Promise.reject(new DOMException('why', name))"
        visit.page.evaluate(f"name => {{ navigator.mediaDevices.getUserMedia = {refuse}; }}", name)
        visit.button.click()
        expect(visit.notice).to_contain_text(sentence)
        expect(visit.button).to_have_text("Start recording")
    assert visit.script.configs == []


@pytest.mark.parametrize("host", [ELSEWHERE])
def test_elsewhere_it_says_what_browsers_ask_for(visit: Visit, recording: Path) -> None:
    expect(visit.notice).to_contain_text("only to pages from https or from localhost")
    expect(visit.button).to_be_disabled()
    visit.script.gate.set()
    visit.choose(recording)
    expect(visit.page.locator("#file-transcript .word").first).to_have_text("Ever")
    visit.page.locator("#file-transcript [data-does=copy]").click()
    expect(visit.page.locator("#file-transcript .done")).to_have_text("Copied.")


def test_a_microphone_that_goes_away_ends_the_recording(visit: Visit) -> None:
    visit.page.evaluate(
        """() => {
          const devices = navigator.mediaDevices;
          const open = devices.getUserMedia.bind(devices);
          devices.getUserMedia = async (options) => (window.stream = await open(options));
        }"""
    )
    visit.record(until="w0")
    visit.page.evaluate("() => window.stream.getTracks()[0].dispatchEvent(new Event('ended'))")
    expect(visit.notice).to_contain_text("The microphone went away")
    expect(visit.status).to_have_text("Finished.")
    assert visit.is_whole()


# Reading


def test_a_word_tells_how_sure_it_is(visit: Visit) -> None:
    visit.record(until="w3")
    visit.stop()
    words = visit.text.locator(".word")
    sure = [words.nth(number).get_attribute("data-sure") for number in range(4)]
    assert sure == ["high", "middle", "high", "low"]
    expect(words.nth(1)).to_have_css("text-decoration-line", "underline")
    detail = visit.page.locator("#live-transcript .detail")
    words.nth(1).hover()
    expect(detail).to_have_text("“w1”: 75 % sure, 0.30 to 0.45 s")
    expect(words.nth(1)).to_have_attribute("title", "75 % sure")
    box = visit.page.locator("#live-transcript .text")
    box.press("ArrowRight")
    expect(detail).to_have_text("“w2”: 95 % sure, 0.55 to 0.70 s")
    box.press("ArrowLeft")
    box.press("ArrowLeft")
    expect(detail).to_have_text("“w0”: 98 % sure, 0.05 to 0.20 s")
    expect(detail).to_have_attribute("role", "status")


def test_the_newest_text_stays_in_sight_unless_one_reads_above(visit: Visit) -> None:
    visit.script.words = [f"w{number}" + "x" * 400 for number in range(100)]
    box = visit.page.locator("#live-transcript .text")
    newest = visit.page.get_by_role("button", name="Newest text")
    visit.button.click()
    overflows = "box => box.scrollHeight > box.clientHeight + 300"
    wait_until(visit, lambda: box.evaluate(overflows), limit_s=15)
    assert box.evaluate("box => box.scrollHeight - box.scrollTop - box.clientHeight") < 24
    expect(newest).to_be_hidden()
    box.evaluate("box => { box.scrollTop = 0; }")
    expect(newest).to_be_visible()
    count = visit.text.locator(".word").count()
    wait_until(visit, lambda: visit.text.locator(".word").count() > count)
    assert box.evaluate("box => box.scrollTop") == 0
    newest.click()
    expect(newest).to_be_hidden()
    assert box.evaluate("box => box.scrollTop") > 0


# Taking it along


def saved(visit: Visit, name: str, ending: str) -> tuple[str, str]:
    """A downloaded file's name and content."""
    with visit.page.expect_download() as download:
        visit.page.locator(f"#{name}-transcript [data-does={ending}]").click()
    return download.value.suggested_filename, download.value.path().read_text(encoding="utf-8")


def test_a_transcript_can_be_taken_along(visit: Visit) -> None:
    visit.record(until="w1")
    visit.stop()
    said = " ".join(visit.words())
    name, text = saved(visit, "live", "txt")
    assert re.fullmatch(r"transcript \d{4}-\d\d-\d\d \d\d\.\d\d\.txt", name)
    assert text == f"{said}\n"
    _, srt = saved(visit, "live", "srt")
    assert srt.startswith("1\n00:00:00,050 --> 00:00:0")
    _, vtt = saved(visit, "live", "vtt")
    assert vtt.startswith("WEBVTT\n\n00:00:00.050 --> 00:00:0")
    for content in (srt, vtt):
        lines = content.split("\n")
        assert " ".join(line for line in lines if line.startswith("w")) == said
    visit.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    visit.page.locator("#live-transcript [data-does=copy]").click()
    expect(visit.page.locator("#live-transcript .done")).to_have_text("Copied.")
    assert visit.page.evaluate("() => navigator.clipboard.readText()") == said


# Files


def test_a_file_is_sent_and_its_text_shown(visit: Visit, recording: Path) -> None:
    visit.cable.bytes_per_s = 150_000
    status = visit.page.locator("#file-status")
    visit.choose(recording)
    expect(status).to_have_text(re.compile(r"Sending talk.one.wav: \d?\d %, 0.\d of 0.2 MB"))
    expect(status).to_contain_text("Transcribing talk.one.wav")
    assert visit.page.locator("#progress").get_attribute("value") is None
    visit.script.gate.set()
    expect(status).to_have_text("talk.one.wav: Done.")
    shown = visit.page.locator("#file-transcript .words").all_inner_texts()
    assert shown == [text for _, text in SEGMENTS]
    times = visit.page.locator("#file-transcript .time").all_inner_texts()
    assert times == ["0:00", "0:03"]
    facts = visit.page.locator("#file-facts").inner_text()
    for fact in ("English (99 %)", "0:09", "16", "1.05 s"):
        assert fact in facts
    assert visit.script.forms == [
        {
            "language": "",
            "task": "transcribe",
            "prompt": "",
            "hotwords": "",
            "word_timestamps": "true",
            "audio_file": "talk.one.wav",
        }
    ]
    assert visit.watch.complaints == []


def test_subtitles_of_a_file_have_whole_milliseconds(visit: Visit, recording: Path) -> None:
    visit.script.gate.set()
    visit.choose(recording)
    expect(visit.page.locator("#file-status")).to_have_text("talk.one.wav: Done.")
    name, srt = saved(visit, "file", "srt")
    assert name == "talk.one.srt"
    assert ",1000" not in srt
    assert "00:00:04,000 --> " in srt
    assert srt.count("-->") == srt.count("\n\n") + 1
    _, text = saved(visit, "file", "txt")
    assert text == "".join(f"{text}\n" for _, text in SEGMENTS)


def test_an_upload_can_be_cancelled_and_made_again(visit: Visit, recording: Path) -> None:
    status = visit.page.locator("#file-status")
    visit.choose(recording)
    expect(status).to_contain_text("Transcribing")
    visit.page.get_by_role("button", name="Cancel").click()
    expect(status).to_have_text("talk.one.wav: Cancelled.")
    wait_until(visit, lambda: visit.script.gone == 1)
    visit.script.gate.set()
    visit.page.get_by_role("button", name="Transcribe again").click()
    expect(status).to_have_text("talk.one.wav: Done.")


async def torn(request: Request) -> Response:
    async with request.form():
        return PlainTextResponse("<html>Bad gateway", 502)


def test_a_failed_upload_says_why(visit: Visit, recording: Path) -> None:
    answers = {
        "The file has no audio track. (unreadable_audio, request r-1)": fails(
            400, "unreadable_audio", "the file has no audio track"
        ),
        "The service is full. Try again in 7 s. (overloaded, request r-1)": fails(
            503, "overloaded", "the service is full", {"Retry-After": "7"}
        ),
        "The service answered with status 502.": torn,
    }
    for sentence, answer in answers.items():
        visit.script.transcribe = answer
        visit.choose(recording)
        expect(visit.page.locator("#file-notice")).to_have_text(f"Error: {sentence}")
        expect(visit.page.locator("#file-status")).to_have_text("talk.one.wav: No transcript.")


def test_an_upload_that_breaks_off_says_so(visit: Visit, recording: Path) -> None:
    visit.choose(recording)
    expect(visit.page.locator("#file-status")).to_contain_text("Transcribing")
    visit.cable.unplug()
    expect(visit.page.locator("#file-notice")).to_contain_text("did not get through")


def test_a_file_in_which_nobody_speaks_is_no_failure(visit: Visit, recording: Path) -> None:
    visit.script.transcribe = hears_nothing
    visit.choose(recording)
    expect(visit.page.locator("#file-status")).to_have_text(
        "talk.one.wav: No speech was found in it."
    )
    expect(visit.page.locator("#file-notice")).to_be_hidden()


async def hears_nothing(request: Request) -> Response:
    async with request.form():
        pass
    return JSONResponse({**ANSWER, "text": "", "segments": [], "words": [], "word_count": 0})


def test_a_file_can_be_dropped_anywhere(visit: Visit) -> None:
    visit.script.gate.set()
    visit.page.evaluate(
        """() => {
          const dataTransfer = new DataTransfer();
          dataTransfer.items.add(new File(["RIFF"], "dropped.wav"));
          for (const type of ["dragover", "drop"]) {
            const init = { dataTransfer, bubbles: true, cancelable: true };
            document.querySelector("h1").dispatchEvent(new DragEvent(type, init));
          }
        }"""
    )
    expect(visit.page.locator("#file-status")).to_have_text("dropped.wav: Done.")
    expect(visit.page.locator("#panel-live")).to_be_hidden()


# For everybody


def test_tabs_are_reached_with_arrows(visit: Visit) -> None:
    page = visit.page
    live, file = page.get_by_role("tab", name="Live"), page.get_by_role("tab", name="File")
    live.focus()
    live.press("ArrowRight")
    expect(file).to_be_focused()
    expect(file).to_have_attribute("aria-selected", "true")
    expect(page.locator("#panel-file")).to_be_visible()
    expect(page.locator("#panel-live")).to_be_hidden()
    expect(page.locator("[data-only=live]").first).to_be_hidden()
    file.press("ArrowRight")
    expect(live).to_be_focused()
    live.press("End")
    expect(file).to_be_focused()


def test_it_works_without_a_mouse(visit: Visit) -> None:
    page = visit.page
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("() => document.activeElement.id") == "record":
            break
    expect(visit.button).to_be_focused()
    expect(visit.button).to_have_css("outline-style", "solid")
    page.keyboard.press("Enter")
    visit.wait_for_word("w0")
    page.keyboard.press("Space")
    expect(visit.status).to_have_text("Finished.")


def test_everything_has_a_name(visit: Visit) -> None:
    visit.page.locator("#more summary").click()
    for role in ("button", "tab", "combobox", "textbox", "spinbutton", "checkbox", "progressbar"):
        for element in visit.page.get_by_role(role).all():
            assert re.search(r'^- \w+ "', element.aria_snapshot()), element.aria_snapshot()


@pytest.mark.parametrize("context_options", [{"viewport": {"width": 360, "height": 740}}])
def test_a_phone_needs_no_horizontal_scrolling(visit: Visit, recording: Path) -> None:
    visit.script.words = ["w0", "Donaudampfschifffahrtsgesellschaft" * 3] * 50
    visit.script.gate.set()
    visit.page.locator("#more summary").click()
    visit.record(until="w0")
    assert not is_too_wide(visit.page)
    visit.choose(recording.rename(recording.with_name("x" * 100 + ".wav")))
    expect(visit.page.locator("#file-status")).to_contain_text("Done.")
    assert not is_too_wide(visit.page)
    small = "() => [...document.querySelectorAll('button, select, input, .button')]"
    heights = visit.page.evaluate(
        f"{small}.filter(e => e.offsetHeight > 2 && e.type !== 'checkbox').map(e => e.offsetHeight)"
    )
    assert min(heights) >= 40


def is_too_wide(page: Page) -> bool:
    root = "document.documentElement"
    return bool(page.evaluate(f"() => {root}.scrollWidth > {root}.clientWidth"))


# The ratio of luminances that WCAG 2.2 defines, for every text that is shown and enabled.
CONTRASTS = """() => {
  const rgb = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b]
    .map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const color = rgb(getComputedStyle(e).backgroundColor);
      if (color.length === 3 || color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility()) continue;
    if (element.closest(":disabled, script, template, option")) continue;
    const [a, b] = [rgb(getComputedStyle(element).color), ground(element)].map(light);
    found.push([walker.currentNode.data.trim(), (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)]);
  }
  return found;
}"""


@pytest.mark.parametrize(
    "context_options", [{"color_scheme": "light"}, {"color_scheme": "dark"}], ids=["light", "dark"]
)
def test_all_text_can_be_read(visit: Visit, recording: Path) -> None:
    error = {"type": "error", "code": "engine_failed", "message": "it broke", "fatal": False}
    visit.script.sends = [(1.0, error)]
    visit.page.locator("#more summary").click()
    visit.record(until="w4")
    expect(visit.notice).to_be_visible()
    contrasts = visit.page.evaluate(CONTRASTS)
    visit.script.gate.set()
    visit.choose(recording)
    expect(visit.page.locator("#file-status")).to_contain_text("Done.")
    contrasts += visit.page.evaluate(CONTRASTS)
    assert len(contrasts) > 50
    assert [(text, ratio) for text, ratio in contrasts if ratio < 4.5] == []


@pytest.mark.parametrize("context_options", [{"reduced_motion": "reduce"}])
def test_nothing_moves_for_those_who_do_not_want_it(visit: Visit) -> None:
    visit.record(until="w0")
    assert visit.page.evaluate("() => document.getAnimations().length") == 0


def test_the_page_tells_whether_the_service_is_ready(visit: Visit) -> None:
    chip = visit.page.locator("#service")
    expect(chip).to_have_text("Ready: base on CPU")
    visit.script.health = {"status": "unhealthy", "reason": "no engine is ready"}
    visit.page.reload()
    expect(chip).to_have_text("Not ready: no engine is ready")


def wait_until(visit: Visit, holds: Any, limit_s: float = 10.0) -> None:
    for _ in range(round(limit_s / 0.05)):
        if holds():
            return
        visit.page.wait_for_timeout(50)
    raise AssertionError("it did not come")
