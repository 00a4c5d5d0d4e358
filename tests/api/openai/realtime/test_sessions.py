"""Whole sessions around real streams: whatever comes when, the same text comes out."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.api.openai.realtime.lines import (
    CLEAR,
    CLEARED,
    COMMIT,
    COMMITTED,
    COMPLETED,
    DELTA,
    FAILED,
    MANUAL,
    STARTED,
    STOPPED,
    Told,
    anonymous,
    conversing,
    session,
    transcripts,
)
from tests.api.openai.realtime.voices import (
    MAX_WORDS,
    DullEars,
    DullEngine,
    append,
    encoded,
    joined,
    pieces,
    quiet,
    said,
    speech,
)
from tests.api.streams import PATIENCE_S
from whisper_serve.api import live
from whisper_serve.audio.pcm import Samples
from whisper_serve.engines.base import DecodeTask
from whisper_serve.errors import EngineFailed, InvalidRequest

PAUSE = quiet(1.0)
THREE_TURNS = joined(speech(0, 1, 2), PAUSE, speech(3, 4), PAUSE, speech(5), PAUSE)
FORMATS = [("audio/pcm", 24_000), ("audio/pcmu", 8_000), ("audio/pcma", 8_000)]


@pytest.fixture(autouse=True)
def ears(monkeypatch: pytest.MonkeyPatch) -> None:
    """Voice activity detection that takes the speech of these tests for speech."""
    monkeypatch.setattr(live, "SileroVad", DullEars)


async def told_of(data: bytes, sizes: Sequence[int], turns: int) -> list[Told]:
    """What is told of audio that comes in pieces of these sizes."""
    async with conversing() as line:
        line.says(*map(append, pieces(data, sizes)))
        await line.hears(COMPLETED, turns)
    return line.told


def by_origin(told: list[Told]) -> tuple[list[Told], list[Told]]:
    """What voice activity and what text made; the one may run ahead of the other."""
    named = anonymous(told)
    texts = [event for event in named if event["type"] in {DELTA, COMPLETED}]
    return [event for event in named if event not in texts], texts


async def test_each_turn_has_its_text() -> None:
    told = await told_of(THREE_TURNS.tobytes(), [4_800], 3)
    assert transcripts(told) == ["w0 w1 w2", "w3 w4", "w5"]
    for event in told:
        if event["type"] == COMPLETED:
            deltas = [e["delta"] for e in told if e["type"] == DELTA]
            assert event["transcript"] in " ".join(deltas)


@st.composite
def conversations(draw: st.DrawFn) -> tuple[Samples, int]:
    """Speech with breaths and pauses in it, and how many turns it has."""
    silences = draw(
        st.lists(st.sampled_from([0.1, 0.2, 0.7, 1.0, 2.5]), min_size=1, max_size=MAX_WORDS)
    )
    parts = [speech(number, pause_s=pause_s) for number, pause_s in enumerate(silences)]
    turns = 1 + sum(pause_s > 0.5 for pause_s in silences[1:])
    return joined(*parts, PAUSE), turns


@settings(max_examples=12)
@given(
    conversations(),
    st.lists(st.integers(1, 60_000), min_size=1, max_size=4).filter(lambda s: max(s) > 5_000),
)
def test_however_audio_is_cut_into_events_the_same_is_told(
    conversation: tuple[Samples, int], sizes: list[int]
) -> None:
    samples, turns = conversation
    whole = asyncio.run(told_of(samples.tobytes(), [len(samples) * 2], turns))
    cut = asyncio.run(told_of(samples.tobytes(), sizes, turns))
    assert by_origin(cut) == by_origin(whole)
    spoken = " ".join(transcripts(whole))
    words = spoken.split()
    assert words == said(range(len(words))).split()
    assert len(words) == len({*samples.tolist()} - {0})


@pytest.mark.parametrize(("kind", "rate"), FORMATS)
@pytest.mark.parametrize("turn_detection", [{"type": "server_vad"}, None], ids=["vad", "manual"])
async def test_every_format_is_heard(kind: str, rate: int, turn_detection: Any) -> None:
    samples = joined(speech(0, 3, 5, 9, 11, rate=rate), quiet(1.0, rate))
    config = session(format={"type": kind}, turn_detection=turn_detection)
    async with conversing(config=config) as line:
        line.says(*map(append, pieces(encoded(samples, kind), [3_001, 7])), COMMIT)
        completed = await line.hears(COMPLETED)
    assert completed["transcript"] == said([0, 3, 5, 9, 11])


class Closed:
    """An engine's door, which `opens` at some time."""

    def __init__(self) -> None:
        self._open = asyncio.Event()

    async def __call__(self, _task: DecodeTask) -> None:
        await asyncio.wait_for(self._open.wait(), PATIENCE_S)

    def opens(self) -> None:
        self._open.set()


async def test_turns_that_wait_for_the_engine_are_told_and_none_is_lost() -> None:
    closed = Closed()
    async with conversing(DullEngine(trouble=closed)) as line:
        line.says(*map(append, pieces(THREE_TURNS.tobytes(), [9_600])))
        await line.hears(COMMITTED, 3)
        assert line.all(DELTA) == []
        closed.opens()
        await line.hears(COMPLETED, 3)
    assert transcripts(line.told) == ["w0 w1 w2", "w3 w4", "w5"]
    arrived = [event["item_id"] for event in line.all(COMPLETED)]
    assert arrived == [event["item_id"] for event in line.all(COMMITTED)]
    # Every event about an item comes behind the ones before it.
    for item_id in arrived:
        kinds = [event["type"] for event in line.told if event.get("item_id") == item_id]
        assert kinds == [STARTED, STOPPED, COMMITTED, DELTA, COMPLETED]


async def test_many_commits_at_once_give_as_many_texts() -> None:
    closed = Closed()
    config = session(**MANUAL)
    async with conversing(DullEngine(trouble=closed), config) as line:
        for numbers in ([0, 1, 2], [3], [4, 5], []):
            line.says(append(joined(speech(*numbers), quiet(0.3))), COMMIT)
        await line.hears(COMMITTED, 4)
        closed.opens()
        await line.hears(COMPLETED, 4)
    assert transcripts(line.told) == ["w0 w1 w2", "w3", "w4 w5", ""]
    lengths = [event["usage"]["seconds"] for event in line.all(COMPLETED)]
    assert lengths == pytest.approx([1.8, 0.8, 1.3, 0.3])


async def test_a_long_turn_is_written_while_it_is_spoken() -> None:
    async with conversing() as line:
        line.says(append(speech(*range(MAX_WORDS), *range(MAX_WORDS))))
        delta = await line.hears(DELTA)
        assert line.all(COMMITTED) == []
        line.says(append(PAUSE))
        completed = await line.hears(COMPLETED)
    assert completed["item_id"] == delta["item_id"]
    assert completed["transcript"] == said([*range(MAX_WORDS)] * 2)
    deltas = [event["delta"] for event in line.all(DELTA)]
    assert len(deltas) > 1
    assert "".join(deltas) == completed["transcript"]


async def test_a_commit_while_somebody_speaks_gives_the_text_so_far() -> None:
    async with conversing() as line:
        line.says(append(speech(0, 1)), COMMIT)
        first = await line.hears(COMPLETED)
        line.says(append(joined(speech(2, 3), PAUSE)))
        second = await line.hears(COMPLETED, 2)
    assert (first["transcript"], second["transcript"]) == ("w0 w1", "w2 w3")
    assert line.all(STOPPED)[0]["item_id"] == second["item_id"]


async def test_what_is_cleared_leaves_the_turns_before_it_alone() -> None:
    closed = Closed()
    async with conversing(DullEngine(trouble=closed)) as line:
        line.says(append(joined(speech(0, 1), PAUSE, speech(2))), CLEAR)
        await line.hears(CLEARED)
        line.says(append(joined(PAUSE, speech(3), PAUSE)))
        await line.hears(COMMITTED, 3)
        closed.opens()
        await line.hears(COMPLETED, 3)
    # The turn that was cleared goes on, and nothing more is said in it.
    assert transcripts(line.told) == ["w0 w1", "", "w3"]
    assert "w2" not in "".join(event["delta"] for event in line.all(DELTA))


async def test_the_language_and_the_prompt_reach_the_engine() -> None:
    engine = DullEngine()
    wish = {"language": "German", "prompt": "Grüezi mitenand.", "keywords": ["Zürich", "Bern"]}
    async with conversing(engine, session(transcription=wish)) as line:
        line.says(append(joined(speech(0), PAUSE)))
        await line.hears(COMPLETED)
        change = {"audio": {"input": {"transcription": {"language": "fr", "prompt": None}}}}
        line.says({"type": "session.update", "session": change})
        line.says(append(joined(speech(1), PAUSE)))
        await line.hears(COMPLETED, 2)
    first, last = engine.tasks[0], engine.tasks[-1]
    assert (first.language, first.hotwords) == ("de", "Zürich, Bern")
    assert first.context == "Grüezi mitenand."
    assert last.language == "fr"
    assert "Grüezi" not in last.context


async def test_the_settings_of_turn_detection_take_effect() -> None:
    """A pause of 0.4 s ends a turn, if it is said so; and the padding is a part of it."""
    samples = joined(quiet(0.5), speech(0), quiet(0.4), speech(1), PAUSE)
    for silence_ms, turns in ((300, 2), (500, 1)):
        detection = {"prefix_padding_ms": 100, "silence_duration_ms": silence_ms}
        async with conversing(config=session(turn_detection=detection)) as line:
            line.says(append(samples))
            await line.hears(COMPLETED, turns)
        assert len(line.all(STOPPED)) == turns
        assert line.all(STARTED)[0]["audio_start_ms"] == pytest.approx(500, abs=40)


# Failures


async def test_a_window_that_fails_is_heard_again() -> None:
    broken = EngineFailed("a secret")
    async with conversing(DullEngine(troubles=[broken] * 3)) as line:
        line.says(append(joined(speech(0, 1), PAUSE)))
        error = await line.hears("error")
        completed = await line.hears(COMPLETED)
    assert error["error"]["type"] == "server_error"
    assert "secret" not in error["error"]["message"]
    assert completed["transcript"] == "w0 w1"


async def test_a_stream_that_cannot_go_on_ends_its_turns() -> None:
    refuses = DullEngine(trouble=InvalidRequest("the model only knows English"))
    async with conversing(refuses) as line:
        line.says(append(joined(speech(0, 1), PAUSE)))
        await line.hears("error")
    assert [event["item_id"] for event in line.all(FAILED)] == [
        event["item_id"] for event in line.all(COMMITTED)
    ]
    assert line.told[-1]["error"]["type"] == "invalid_request_error"


async def test_audio_that_comes_too_fast_ends_a_session_that_detects_turns() -> None:
    async with conversing(DullEngine(trouble=Closed()), max_backlog_s=60.0) as line:
        line.says(*[append(speech(*range(MAX_WORDS)))] * 12)
        error = await line.hears("error")
    assert error["error"]["code"] == "client_too_fast"
    assert line.all(FAILED)


async def test_without_detection_nothing_comes_too_fast() -> None:
    closed = Closed()
    config = session(**MANUAL)
    async with conversing(DullEngine(trouble=closed), config, max_backlog_s=60.0) as line:
        minute = append(joined(*[speech(*range(MAX_WORDS))] * 2))
        for _ in range(8):
            line.says(minute, COMMIT)
        error = await line.hears("error")
        assert error["error"]["param"] == "audio"
        refused = len(line.all("error"))
        closed.opens()
        await line.hears(COMPLETED, 1)
    assert refused
    assert line.all(FAILED) == []
