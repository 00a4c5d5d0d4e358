"""`/stream` keeps what `docs/protocol.md` promises, over real sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import numpy as np
import pytest
from websockets.exceptions import InvalidStatus

from tests.api.streams import (
    HASTY,
    Client,
    Engine,
    Server,
    for_ever,
    is_over,
    quiet,
    said,
    serving,
    words,
)
from tests.streaming.speaker import Ears
from whisper_serve.api import live
from whisper_serve.api.routes.stream import stream_router
from whisper_serve.engines.base import DecodeTask, Lane
from whisper_serve.errors import EngineFailed, InvalidParameter
from whisper_serve.streaming.messages import StreamConfig

server = partial(serving, partial(stream_router, timing=HASTY))
END = {"type": "end"}
FLUSH = {"type": "flush"}
RESET = {"type": "reset"}
KEEPALIVE = {"type": "keepalive"}


@pytest.fixture(autouse=True)
def ears(monkeypatch: pytest.MonkeyPatch) -> None:
    """Voice activity detection that takes the speech of these tests for speech."""
    monkeypatch.setattr(live, "SileroVad", Ears)


@asynccontextmanager
async def client(
    config: Mapping[str, Any] | None = None, engine: Engine | None = None, **settings: Any
) -> AsyncIterator[Client]:
    async with server(engine, **settings) as running, running.client(config) as connected:
        yield connected


def is_final(task: DecodeTask) -> bool:
    return task.lane is Lane.LIVE_FINAL


def without_seq(message: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in message.items() if key != "seq"}


# Without trouble


async def test_what_is_said_comes_back_once_and_in_order() -> None:
    async with client({}) as stream:
        for first in range(0, 40 * 8000, 1600):
            await stream.send(words(40)[first : first + 1600])
        await stream.send(END)
        assert await stream.closed() == 1000
    done = stream.messages[-1]
    assert done["type"] == "done"
    assert stream.text == done["text"] == said(40)
    assert done["duration"] == 20.0
    assert done["words"] == 40
    assert done["statistics"]["windows"] == len(stream.all("final"))
    assert done["statistics"]["processing_s"] > 0


async def test_a_message_has_the_fields_that_the_protocol_names() -> None:
    async with client({}) as stream:
        await stream.send(words(12), quiet(1.0), END)
        await stream.closed()
    fields = {message["type"]: set(without_seq(message)) - {"type"} for message in stream.messages}
    assert fields["final"] == {
        *("start", "end", "text", "words", "language", "language_probability"),
        *("processing_time", "committed_until", "resume", "endpoint"),
    }
    assert fields["speech_started"] == fields["speech_stopped"] == {"at"}
    assert fields["done"] == {"text", "duration", "words", "statistics"}
    assert stream.all("final")[0]["words"][0] == {
        "word": "w0",
        "start": 0.1,
        "end": 0.5,
        "probability": 0.9,
    }


async def test_messages_are_counted_from_0_by_one() -> None:
    async with client({}) as stream:
        await stream.send(words(20), KEEPALIVE, RESET, "what?", END)
        await stream.closed()
    assert [message["seq"] for message in stream.messages] == list(range(len(stream.messages)))


async def test_a_partial_never_repeats_a_committed_word() -> None:
    async with client({}) as stream:
        for first in range(0, 40 * 8000, 8000):
            await stream.send(words(40)[first : first + 8000])
            await asyncio.sleep(0.01)
        await stream.send(END)
        await stream.closed()
    final: list[str] = []
    shown = 0
    for message in stream.messages:
        if message["type"] == "final":
            final += message["text"].split()
        if message["type"] == "partial":
            shown += 1
            assert (
                message["text"].split()
                == said(40).split()[len(final) :][: len(message["text"].split())]
            )
    assert shown > 5
    assert final == said(40).split()


async def test_times_are_those_of_the_stream_after_a_long_silence() -> None:
    async with client({}) as stream:
        await stream.send(quiet(30.0), words(4), END)
        await stream.closed()
    assert stream.text == said(4)
    assert stream.all("final")[0]["start"] == pytest.approx(30.1)
    assert stream.all("speech_started")[0]["at"] == pytest.approx(30.1, abs=0.05)


async def test_an_end_without_audio_is_done() -> None:
    async with client({}) as stream:
        await stream.send(END)
        assert await stream.closed() == 1000
    assert without_seq(stream.messages[-1]) == {
        "type": "done",
        "text": "",
        "duration": 0.0,
        "words": 0,
        "statistics": dict.fromkeys(
            ["windows", "partials", "retries", "errors", "speech_s", "processing_s"], 0
        ),
    }


async def test_speech_that_does_not_pause_is_final_before_it_ends() -> None:
    for policy in ("chunk", "agreement", "utterance"):
        async with client({"policy": policy}) as stream:
            await stream.send(words(60))
            assert (await stream.until("final"))["text"].startswith("w0 w1")
            await stream.send(END)
            assert await stream.closed() == 1000
        assert stream.text == said(60)


# The configuration


async def test_ready_tells_the_configuration_and_the_limits() -> None:
    config = {"language": "en-US", "chunk_duration": 2, "prompt": "Hm.", "type": "config"}
    async with client(max_backlog_s=80.0, idle_timeout_s=7.0) as stream:
        await stream.send(config)
        ready = await stream.read()
    assert ready["type"] == "ready"
    assert (ready["seq"], ready["protocol"]) == (0, 1)
    expected = StreamConfig(language="en", chunk_duration=2.0, prompt="Hm.")
    assert ready["config"] == expected.model_dump(mode="json", exclude={"resume"})
    assert ready["limits"] == {
        "max_backlog_s": 80.0,
        "idle_timeout_s": 7.0,
        "max_frame_bytes": 2**24,
    }


@pytest.mark.parametrize(
    "first",
    [
        {"language": "German"},
        {"type": "config", "language": "de"},
        {"command": "config", "config": {"language": "de"}},
    ],
    ids=["bare", "typed", "command"],
)
async def test_the_first_text_may_be_a_configuration_in_three_forms(first: dict[str, Any]) -> None:
    async with client() as stream:
        await stream.send(first)
        assert (await stream.read())["config"]["language"] == "de"


DEEP: dict[str, Any] = {}
for _ in range(150):
    DEEP = {"a": DEEP}

WRONG_FIRST = {
    "an unknown key": ({"lang": "en"}, "invalid_parameter", "lang"),
    "an overlap as long as a chunk": (
        {"chunk_duration": 2, "overlap": 2},
        *("invalid_parameter", "overlap"),
    ),
    "text for a number": ({"chunk_duration": "5"}, "invalid_parameter", "chunk_duration"),
    "a number for a truth": ({"vad": 1}, "invalid_parameter", "vad"),
    "a fraction for a whole number": ({"channels": 1.5}, "invalid_parameter", "channels"),
    "no number": ('{"chunk_duration": NaN}', "invalid_parameter", ""),
    "beyond all numbers": ('{"chunk_duration": 1e999}', "invalid_parameter", ""),
    "too many digits": ('{"sample_rate": ' + "9" * 5_000 + "}", "invalid_message", "JSON"),
    "a language that nobody speaks": ({"language": "klingon"}, "invalid_parameter", "language"),
    "a prompt that is too long": ({"prompt": "a" * 4_001}, "invalid_parameter", "prompt"),
    "half a character": ('{"prompt": "\\ud800"}', "invalid_parameter", ""),
    "a beam that is too wide": ({"beam_size": 11}, "invalid_parameter", "beam_size"),
    "no samples at all": ({"best_of": 0}, "invalid_parameter", "best_of"),
    "text for a list": ({"suppress_tokens": "-1"}, "invalid_parameter", "suppress_tokens"),
    "too many tokens": (
        {"suppress_tokens": [1] * 1_001},
        *("invalid_parameter", "suppress_tokens: at most 1,000"),
    ),
    "an unknown encoding": ({"encoding": "mp3"}, "invalid_parameter", "encoding"),
    "a rate beyond the limits": ({"sample_rate": 96_000}, "invalid_parameter", "sample_rate"),
    "a model that is not served": ({"model": "huge"}, "model_not_found", "served: base"),
    "a deep heap": (DEEP, "invalid_parameter", "a"),
    "a bottomless heap": ("[" * 100_000, "invalid_message", "JSON"),
    "no JSON": ("hello", "invalid_message", "JSON"),
    "no object": ("[1, 2]", "invalid_message", "object"),
    "an unknown type": ({"type": "start"}, "invalid_message", "start"),
    "an unknown command": ({"command": "start"}, "invalid_message", "start"),
    "a command with no object": ({"command": "config"}, "invalid_message", "config"),
}


@pytest.mark.parametrize(("first", "code", "named"), WRONG_FIRST.values(), ids=WRONG_FIRST)
async def test_a_wrong_configuration_is_told_and_ends_the_connection(
    first: dict[str, Any] | str, code: str, named: str
) -> None:
    async with client() as stream:
        await stream.send(first)
        assert await stream.closed() == 1008
    (error,) = stream.messages
    assert (error["type"], error["seq"], error["fatal"]) == ("error", 0, True)
    assert error["code"] == code
    assert named in error["message"]


RESUME = {
    "committed_until": 10.0,
    "context": "before",
    "audio_from": 2.0,
    "window_from": 4.0,
    "position": 11.0,
    "words": [["w0", 5.0, 6.0]],
    "language": "en",
}
WRONG_RESUME = {
    "no object": "10.0",
    "no time": {"context": "before"},
    "an unknown key": {**RESUME, "session": 1},
    "a window before its audio": {**RESUME, "window_from": 1.0},
    "a window behind what is committed": {**RESUME, "window_from": 10.5},
    "audio behind what is committed": {**RESUME, "audio_from": 10.5, "window_from": None},
    "a position before what is committed": {**RESUME, "position": 9.0},
    "a time before all time": {"committed_until": -1},
    "a time behind all time": {"committed_until": 1e12},
    "text for a time": {"committed_until": "10"},
    "more text than there is": {**RESUME, "context": "a" * 4_001},
    "more words than there are": {**RESUME, "words": [["a", 5.0, 6.0]] * 401},
    "half a word": {**RESUME, "words": [["w0", 5.0]]},
    "a word without letters": {**RESUME, "words": [["", 5.0, 6.0]]},
    "words that are no list": {**RESUME, "words": "w0"},
}


@pytest.mark.parametrize("resume", WRONG_RESUME.values(), ids=WRONG_RESUME)
async def test_a_wrong_resume_is_refused(resume: object) -> None:
    async with client() as stream:
        await stream.send({"resume": resume})
        assert await stream.closed() == 1008
    assert stream.messages[0]["code"] == "invalid_parameter"
    assert "resume" in stream.messages[0]["message"]


async def test_a_stream_goes_on_where_it_broke_off() -> None:
    audio = words(60)
    async with server() as running:
        async with running.client({}) as first:
            await first.send(audio[:200_000])
            await first.until("final")
            resume = (await first.until("final"))["resume"]
            first.vanish()
        async with running.client({"resume": resume}) as second:
            await second.send(audio[round(resume["audio_from"] * 16_000) :], END)
            assert await second.closed() == 1000
    assert first.text + second.text == said(60)
    assert second.messages[-1]["duration"] == 30.0


async def test_a_stream_goes_on_without_the_audio_from_before() -> None:
    async with client({"resume": {"committed_until": 2.0, "context": "w0 w1 w2 w3"}}) as stream:
        await stream.send(words(10)[32_000:], END)
        await stream.closed()
    assert stream.text == " " + " ".join(f"w{number}" for number in range(4, 10))
    assert stream.all("final")[0]["start"] == pytest.approx(2.1)


async def test_who_sends_audio_first_gets_the_defaults() -> None:
    async with client() as stream:
        await stream.send(words(4))
        ready = await stream.read()
        assert ready["config"] == StreamConfig().model_dump(mode="json", exclude={"resume"})
        await stream.send(END)
        assert await stream.closed() == 1000
    assert stream.text == said(4)


@pytest.mark.parametrize("command", [FLUSH, KEEPALIVE, RESET, {"command": "flush"}])
async def test_who_commands_first_gets_the_defaults(command: dict[str, Any]) -> None:
    async with client() as stream:
        await stream.send(command)
        assert (await stream.read())["type"] == "ready"
        assert (await stream.read())["type"] in {"ack", "reset", "endpoint"}
        await stream.send(words(4), END)
        assert await stream.closed() == 1000
    assert stream.text == said(4)


async def test_who_ends_first_is_done() -> None:
    async with client() as stream:
        await stream.send(END)
        assert await stream.closed() == 1000
    assert [message["type"] for message in stream.messages] == ["ready", "done"]


async def test_who_says_nothing_gets_the_defaults() -> None:
    async with client() as stream:
        assert (await stream.read())["type"] == "ready"
        await stream.send(words(4))
        await stream.send({"language": "de"})
        assert (await stream.until("ready"))["config"]["language"] == "de"
        await stream.send(END)
        assert await stream.closed() == 1000
    assert stream.text == said(4)


# Settings that change


async def test_settings_that_are_not_named_stay() -> None:
    async with client({"prompt": "Hm.", "language": "de"}) as stream:
        await stream.send({"type": "config", "policy": "utterance", "language": None})
        ready = await stream.read()
    expected = StreamConfig(prompt="Hm.", policy="utterance")
    assert (ready["type"], ready["seq"]) == ("ready", 1)
    assert ready["config"] == expected.model_dump(mode="json", exclude={"resume"})


async def test_new_settings_hold_for_what_follows() -> None:
    engine = Engine()
    config = {"language": "en", "chunk_duration": 1.0, "interim": False}
    async with client(config, engine) as stream:
        await stream.send(words(20)[: 5 * 8000])
        await stream.until("final")
        change = {"language": "de", "prompt": "Hallo.", "task": "translate", "interim": True}
        change |= {"beam_size": 3, "best_of": 2, "suppress_tokens": [13]}
        await stream.send({"command": "config", "config": change})
        await stream.until("ready")
        before = len(engine.tasks)
        await stream.send(words(20)[5 * 8000 :], END)
        await stream.closed()
    assert {task.language for task in engine.tasks[:before]} == {"en"}
    assert {task.language for task in engine.tasks[before:]} == {"de"}
    assert {task.task for task in engine.tasks[before:]} == {"translate"}
    assert all(task.context.startswith("Hallo.") for task in engine.tasks[before:])
    # As configured, or none before it is known that there is time for it.
    assert {task.beam_size for task in engine.tasks[:before]} <= {1, 5}
    assert {task.beam_size for task in engine.tasks[before:] if is_final(task)} == {3}
    assert {(t.best_of, t.suppress_tokens) for t in engine.tasks[:before]} == {(5, (-1,))}
    assert {(t.best_of, t.suppress_tokens) for t in engine.tasks[before:]} == {(2, (13,))}
    assert stream.text == said(20)


@pytest.mark.parametrize(
    "change",
    [
        {"model": "huge"},
        {"model": 3},
        {"encoding": "mulaw"},
        {"sample_rate": 8_000},
        {"channels": 2},
        {"resume": {"committed_until": 1.0}},
        {"vad": False},
        {"overlap": 5.0},
        {"chunk_duration": "2"},
        {"beam_size": 0},
        {"suppress_tokens": [-2]},
        {"lang": "de"},
    ],
    ids=lambda change: next(iter(change)),
)
async def test_a_change_that_cannot_be_has_no_effect(change: dict[str, Any]) -> None:
    async with client({"interim": False}) as stream:
        await stream.send(words(4)[:8000], {"type": "config", "language": "de", **change})
        error = await stream.until("error")
        assert error["fatal"] is False
        assert next(iter(change)) in error["message"]
        await stream.send({"type": "config"})
        assert (await stream.until("ready"))["config"]["language"] is None
        await stream.send(words(4)[8000:], END)
        assert await stream.closed() == 1000
    assert stream.text == said(4)


async def test_fixed_settings_may_be_said_again() -> None:
    async with client({"sample_rate": 16_000}) as stream:
        await stream.send({"type": "config", "sample_rate": 16_000, "encoding": "pcm_s16le"})
        assert (await stream.read())["type"] == "ready"


# Commands


async def test_a_flush_settles_all_that_was_received() -> None:
    async with client({"interim": False}) as stream:
        await stream.send(words(3), FLUSH)
        ack = await stream.until("ack", committed_until=1.5)
        assert ack["received_until"] == 1.5
        assert stream.text == said(3)
        await stream.send(words(6)[24_000:], END)
        await stream.closed()
    assert stream.text == said(6)


async def test_a_flush_with_nothing_to_settle_is_done_at_once() -> None:
    async with client({}) as stream:
        await stream.send(FLUSH)
        endpoint = without_seq(await stream.read())
        assert endpoint == {"type": "endpoint", "at": 0.0, "cause": "flush"}
        ack = without_seq(await stream.read())
        resume = ack.pop("resume")
        assert ack == {"type": "ack", "received_until": 0.0, "committed_until": 0.0, "lag": 0.0}
        assert (resume["committed_until"], resume["audio_from"]) == (0.0, 0.0)


async def test_a_flush_of_silence_settles_it() -> None:
    engine = Engine()
    async with client({}, engine) as stream:
        await stream.send(quiet(1.0), FLUSH)
        await stream.until("ack", committed_until=1.0)
    assert engine.tasks == []


async def test_a_reset_drops_what_is_not_final_and_forgets_the_context() -> None:
    engine = Engine()
    async with client({"interim": False}, engine) as stream:
        await stream.send(words(3), FLUSH)
        await stream.until("ack", committed_until=1.5)
        await stream.send(words(6)[24_000:], RESET)
        reset = await stream.until("reset")
        assert reset["at"] == 3.0
        await stream.send(words(10)[6 * 8000 :], END)
        await stream.closed()
    assert stream.text.split() == ["w0", "w1", "w2", "w6", "w7", "w8", "w9"]
    assert stream.all("final")[-1]["start"] == pytest.approx(3.1)
    assert engine.tasks[-1].context == ""


async def test_a_reset_takes_the_partial_back() -> None:
    async with client({}) as stream:
        await stream.send(words(3))
        await stream.until("partial")
        await stream.send({"command": "reset"})
        assert (await stream.until("partial", text=""))["type"] == "partial"
        await stream.until("reset")


async def test_a_keepalive_is_answered() -> None:
    async with client({}) as stream:
        await stream.send(KEEPALIVE)
        assert (await stream.read())["type"] == "ack"


WRONG_LATER = {
    "no JSON": "hello",
    "no object": "3",
    "no type": {"language": "en"},
    "an unknown type": {"type": "stop"},
    "a type that is no text": {"type": {"a": 1}},
    "more than it takes": {"type": "flush", "now": True},
    "nothing": "",
}


@pytest.mark.parametrize("wrong", WRONG_LATER.values(), ids=WRONG_LATER)
async def test_a_wrong_message_is_told_and_has_no_effect(wrong: str | dict[str, Any]) -> None:
    async with client({"interim": False}) as stream:
        await stream.send(words(4)[:8000], wrong, words(4)[8000:], END)
        assert await stream.closed() == 1000
    (error,) = stream.all("error")
    assert (error["code"], error["fatal"]) == ("invalid_message", False)
    assert stream.text == said(4)


async def test_nothing_has_an_effect_after_the_end() -> None:
    gate = asyncio.Event()

    async def wait(task: DecodeTask) -> None:
        await gate.wait()

    async with client({"interim": False}, Engine(trouble=wait)) as stream:
        await stream.send(words(4), END, END, words(1), RESET, FLUSH, {"type": "config"})
        for _ in range(5):
            error = await stream.until("error")
            assert (error["code"], error["fatal"]) == ("invalid_message", False)
        gate.set()
        assert await stream.closed() == 1000
    assert stream.text == said(4)
    assert stream.messages[-1]["duration"] == 2.0
    assert len(stream.all("error")) == 5


# Audio


@pytest.mark.parametrize("size", [1, 3, 1601, 65_537])
async def test_frames_may_be_of_any_length(size: int) -> None:
    audio = words(4, pause_s=0.02, spoken_s=0.03 if size < 4 else 0.4)
    data = audio.tobytes()
    async with client({"interim": False}) as stream:
        for first in range(0, len(data), size):
            await stream.send(data[first : first + size])
        await stream.send(b"", END)
        assert await stream.closed() == 1000
    assert stream.text == said(4)
    assert stream.messages[-1]["duration"] == pytest.approx(len(audio) / 16_000, abs=1e-3)


def as_floats(*odd: float) -> bytes:
    return np.concatenate([words(4).astype("<f4") / 32768, np.array(odd, "<f4")]).tobytes()


async def test_floats_that_are_no_sound_are_tamed_and_told_once() -> None:
    async with client({"encoding": "pcm_f32le", "vad": False, "interim": False}) as stream:
        await stream.send(as_floats(np.nan, np.inf, -np.inf, 3e38, -7.0, *[0.0] * 100))
        await stream.send(np.full(1_000, np.nan, "<f4").tobytes(), END)
        assert await stream.closed() == 1000
    (warning,) = stream.all("warning")
    assert warning["code"] == "bad_samples"
    assert stream.text.startswith(said(4))


async def test_floats_within_bounds_are_not_worth_a_word() -> None:
    async with client({"encoding": "pcm_f32le"}) as stream:
        await stream.send(as_floats(1.0, -1.0), END)
        assert await stream.closed() == 1000
    assert stream.all("warning") == []


async def test_a_frame_that_is_too_big_ends_the_connection() -> None:
    async with client({}) as stream:
        await stream.send(bytes(20 * 2**20))
        assert await stream.closed() == 1009
    assert [m["code"] for m in stream.messages[1:]] == ["frame_too_big"]
    assert stream.messages[-1]["fatal"] is True


async def test_a_first_frame_that_is_too_big_ends_the_connection() -> None:
    async with client() as stream:
        await stream.send(bytes(20 * 2**20))
        assert await stream.closed() == 1009
    assert stream.messages[-1]["code"] == "frame_too_big"


async def test_text_that_is_too_long_ends_the_connection() -> None:
    async with client({}) as stream:
        await stream.send({"type": "config", "prompt": "a" * 2**20})
        assert await stream.closed() == 1009


async def test_a_stream_that_is_no_container_is_refused() -> None:
    async with client({"encoding": "container"}) as stream:
        await stream.send(b"this is not audio " * 10_000, END)
        assert await stream.closed() == 1008
    assert stream.messages[-1]["fatal"] is True
    assert stream.messages[-1]["code"] in {"unreadable_audio", "unsupported_format"}


# Speed


async def test_who_floods_is_warned_and_then_closed() -> None:
    async with client({}, Engine(trouble=for_ever), max_backlog_s=60.0) as stream:
        for _ in range(7):
            await stream.send(words(20))
        assert await stream.closed() == 4429
    codes = [m["code"] for m in stream.messages if m["type"] in {"warning", "error"}]
    assert codes == ["client_too_fast", "client_too_fast"]
    assert stream.messages[-1]["fatal"] is True


async def test_who_sends_too_much_at_once_is_warned_too() -> None:
    async with client({}, max_backlog_s=60.0) as stream:
        await stream.send(words(140))
        assert await stream.closed() == 4429
    assert [m["type"] for m in stream.messages[1:]] == ["warning", "error"]


async def test_who_minds_the_acknowledgements_may_be_as_fast_as_the_engine() -> None:
    async with client({"interim": False}, max_backlog_s=60.0) as stream:
        sent_s = committed_s = 0.0
        for first in range(0, 240 * 8000, 8000):
            while sent_s - committed_s > 18.0:
                message = await stream.read()
                committed_s = message.get("committed_until", committed_s)
            await stream.send(words(240)[first : first + 8000])
            sent_s += 0.5
        await stream.send(END)
        assert await stream.closed() == 1000
    assert stream.text == said(240)
    assert stream.all("warning") == []


async def test_a_server_can_be_for_real_time_only() -> None:
    async with client({}, pace="realtime", max_ahead_s=2.0) as stream:
        assert stream.messages[0]["limits"]["max_ahead_s"] == 2.0
        await stream.send(words(3))
        assert (await stream.until("warning"))["code"] == "client_too_fast"
        await stream.send(words(10)[24_000:])
        assert await stream.closed() == 4429


async def test_real_time_is_fast_enough() -> None:
    async with client({}, pace="realtime", max_ahead_s=1.0) as stream:
        for first in range(0, 8000, 1600):
            await stream.send(words(1)[first : first + 1600])
            await asyncio.sleep(0.1)
        await stream.send(END)
        assert await stream.closed() == 1000
    assert stream.all("warning") == []


# Idle clients


async def test_who_is_silent_for_too_long_is_told_and_closed() -> None:
    async with client({}, idle_timeout_s=0.1) as stream:
        assert await stream.closed() == 4408
    assert [(m["code"], m["fatal"]) for m in stream.all("error")] == [("stream_idle", True)]


async def test_any_frame_puts_the_time_out_off() -> None:
    async with client({}, idle_timeout_s=0.3) as stream:
        for frame in (KEEPALIVE, quiet(0.01), "what?", b"") * 2:
            await asyncio.sleep(0.1)
            await stream.send(frame)
        await stream.send(END)
        assert await stream.closed() == 1000


async def test_silence_is_no_idleness() -> None:
    engine = Engine()
    async with client({}, engine, idle_timeout_s=0.3) as stream:
        for _ in range(8):
            await stream.send(quiet(1.0))
            await asyncio.sleep(0.05)
        await stream.send(END)
        assert await stream.closed() == 1000
    acks = stream.all("ack")
    assert [ack["committed_until"] for ack in acks] == sorted(a["committed_until"] for a in acks)
    assert acks[-1]["committed_until"] > 6.0
    assert engine.tasks == []


# Engines


async def test_an_engine_that_fails_once_is_not_noticed() -> None:
    failure = EngineFailed("")
    async with client({"interim": False}, Engine([None, failure, failure])) as stream:
        await stream.send(words(30), END)
        assert await stream.closed() == 1000
    assert stream.text == said(30)
    assert stream.all("error") == []
    assert stream.messages[-1]["statistics"]["retries"] == 2


async def test_an_engine_that_fails_for_good_can_be_resumed_from() -> None:
    audio = words(30)
    broken = Engine([None], trouble=EngineFailed("a secret"))
    async with client({"interim": False}, broken) as stream:
        await stream.send(audio)
        await stream.until("final")
        await stream.until("error", fatal=False)
        await stream.send(KEEPALIVE, END)
        assert await stream.closed() == 1011
    error = stream.messages[-1]
    assert (error["code"], error["fatal"]) == ("engine_failed", True)
    assert "secret" not in json.dumps(stream.messages)
    resume = stream.all("ack")[-1]["resume"]
    async with client({"interim": False, "resume": resume}) as second:
        await second.send(audio[round(resume["audio_from"] * 16_000) :], END)
        await second.closed()
    assert stream.text + second.text == said(30)


async def test_a_language_that_the_model_does_not_know_is_refused() -> None:
    refusal = InvalidParameter("language", "the model 'tiny.en' knows English only")
    async with client({"language": "de"}, Engine(trouble=refusal)) as stream:
        await stream.send(words(20))
        assert await stream.closed() == 1008
    assert "tiny.en" in stream.messages[-1]["message"]


async def test_a_fault_of_ours_is_an_error_and_no_1006() -> None:
    fault = ValueError("/etc/secret")
    async with client({}, Engine(trouble=fault)) as stream:
        await stream.send(words(20))
        assert await stream.closed() == 1011
    error = stream.messages[-1]
    assert (error["code"], error["fatal"]) == ("internal_error", True)
    assert "secret" not in json.dumps(stream.messages)


async def test_a_fault_before_ready_is_an_error_and_no_1006(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken() -> Ears:
        raise OSError("/etc/secret")

    monkeypatch.setattr(live, "SileroVad", broken)
    async with client() as stream:
        await stream.send({})
        assert await stream.closed() == 1011
    assert [message["code"] for message in stream.messages] == ["internal_error"]
    assert "secret" not in json.dumps(stream.messages)


# Clients that vanish: that nothing is left is checked when the server stops

STAGES: dict[str, Callable[[Client], Any]] = {
    "before the configuration": lambda stream: stream.send(),
    "after the configuration": lambda stream: stream.send({}),
    "with half a command": lambda stream: stream.send({}, b"\0"),
    "while an engine works": lambda stream: stream.send({}, words(30)),
    "after the end": lambda stream: stream.send({}, words(30), END),
    "in a flush": lambda stream: stream.send({}, words(4), FLUSH),
    "in a container": lambda stream: stream.send({"encoding": "container"}, b"\x1aE\xdf\xa3"),
}


@pytest.mark.parametrize("engine", [Engine, partial(Engine, trouble=for_ever)])
@pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)
async def test_a_client_may_vanish_at_any_time(
    stage: Callable[[Client], Any], engine: Callable[[], Engine]
) -> None:
    async with server(engine()) as running:
        async with running.client() as stream:
            assert running.admission.streams == 1
            await stage(stream)
            stream.vanish()
        async with running.client() as stream:
            await stage(stream)
            await stream.close()


async def test_a_client_may_vanish_before_it_is_told_what_was_wrong() -> None:
    async with client() as stream:
        await stream.send("hello")
        stream.vanish()


async def test_a_client_that_does_not_read_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("whisper_serve.api.outbox.MAX_WAITING", 100)
    async with server() as running, running.client({}) as stream:
        await flood(stream)
        await is_over(running.admission)
        stream.vanish()


async def flood(stream: Client) -> None:
    """Say wrong things until the other side has had enough."""
    wrong = json.dumps({"type": "config", "a" * 100_000: 1})
    try:
        for _ in range(500):
            await asyncio.wait_for(stream.send(wrong), 0.5)
    except (asyncio.TimeoutError, ConnectionError):
        return


# Admission


async def refused(running: Server) -> InvalidStatus:
    with pytest.raises(InvalidStatus) as refusal:
        async with running.client():
            pass
    return refusal.value


@pytest.mark.parametrize(
    ("limits", "status", "code"),
    [
        ({"limit": 2}, 503, "overloaded"),
        ({"limit_per_client": 2}, 429, "too_many_streams"),
    ],
    ids=["in all", "of one client"],
)
async def test_streams_beyond_the_limit_are_refused_before_the_handshake(
    limits: dict[str, Any], status: int, code: str
) -> None:
    async with server(**limits) as running, AsyncExitStack() as streams:
        for _ in range(2):
            await streams.enter_async_context(running.client({}))
        response = (await refused(running)).response
        assert response.status_code == status
        assert int(response.headers["Retry-After"]) > 0
        assert response.headers["Content-Type"] == "application/json"
        body = json.loads(response.body or b"")
        assert (body["success"], body["code"], body["text"]) == (False, code, "")
        assert body["error"]
        assert body["request_id"]
        assert running.admission.streams == 2


async def test_a_place_is_free_again_when_a_stream_is_over() -> None:
    async with server(limit=1) as running:
        for _ in range(3):
            async with running.client({}) as stream:
                await refused(running)
                await stream.send(END)
                assert await stream.closed() == 1000
            await is_over(running.admission)


async def test_streams_do_not_mix() -> None:
    async with server() as running, AsyncExitStack() as stack:
        streams = [
            await stack.enter_async_context(running.client({"interim": False})) for _ in range(4)
        ]
        for first in range(0, 20 * 8000, 8000):
            for number, stream in enumerate(streams):
                audio = words(20)[first : first + 8000]
                await stream.send(np.where(audio, audio + 100 * number, 0).astype(np.int16))
        for number, stream in enumerate(streams):
            await stream.send(END)
            assert await stream.closed() == 1000
            assert stream.text == " ".join(f"w{100 * number + n}" for n in range(20))
