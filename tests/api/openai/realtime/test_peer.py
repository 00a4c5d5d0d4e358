"""A client of the Realtime API on one side, a stream on the other."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from typing import Any, TypeVar

import pytest

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
    Line,
    final,
    peer_at,
    session,
    update,
)
from tests.api.openai.realtime.voices import append
from tests.api.streams import PATIENCE_S
from whisper_serve.api.openai.realtime.configuration import SessionConfig
from whisper_serve.api.openai.realtime.peer import RealtimePeer
from whisper_serve.api.peer import Incoming, PeerGone
from whisper_serve.streaming.messages import (
    Ack,
    Configure,
    Done,
    Endpoint,
    Failed,
    Flush,
    Keepalive,
    Partial,
    Ready,
    ResumePoint,
    ServerMessage,
    SpeechStarted,
    SpeechStopped,
    StreamConfig,
    UtteranceEnd,
    Warned,
    WasReset,
)

SECOND = bytes(48_000)
READY = Ready("1", StreamConfig(), {})
ITEM = ["conversation.item.added", "conversation.item.done"]
LOGPROBS = "item.input_audio_transcription.logprobs"
Result = TypeVar("Result")


async def soon(work: Awaitable[Result]) -> Result:
    return await asyncio.wait_for(work, PATIENCE_S)


class Begun:
    """A peer whose stream has begun with `audio`, which it has handed over."""

    def __init__(self, line: Line, peer: RealtimePeer) -> None:
        self.line, self.peer = line, peer

    @classmethod
    async def with_audio(
        cls, audio: bytes = SECOND, config: SessionConfig | None = None, **options: Any
    ) -> Begun:
        line = Line()
        peer = peer_at(line, config, **options)
        line.says(append(audio))
        await soon(peer.configuration())
        begun = cls(line, peer)
        if config is None:
            assert await begun.takes() == audio
        await begun.hears(READY)
        return begun

    async def takes(self, *events: Any) -> Incoming:
        """What the stream is given next, when the client says `events`."""
        self.line.says(*events)
        return await soon(self.peer.receive())

    async def hears(self, *messages: ServerMessage) -> list[str]:
        """The kinds of the events that these messages of the stream make."""
        before = len(self.line.told)
        for message in messages:
            await soon(self.peer.send(message))
        return self.line.kinds[before:]

    @property
    def error(self) -> dict[str, Any]:
        error: dict[str, Any] = self.line.all("error")[-1]["error"]
        return error


# Before the first audio


async def test_the_session_is_told_first() -> None:
    line = Line()
    line.says(append(SECOND))
    await soon(peer_at(line).configuration())
    (created,) = line.told
    assert created["type"] == "session.created"
    assert created["event_id"].startswith("event_")
    shown = created["session"]
    assert shown == {
        "id": "sess_1",
        "object": "realtime.transcription_session",
        "expires_at": None,
        **SessionConfig().shown("base"),
    }


async def test_everything_may_change_before_audio_comes() -> None:
    line = Line()
    line.says(
        update(format={"type": "audio/pcmu"}, turn_detection=None),
        update(transcription={"model": "tiny.en", "language": "en"}),
        update(turn_detection={"type": "server_vad", "silence_duration_ms": 700}),
        append(SECOND),
    )
    config = await soon(peer_at(line).configuration())
    assert (config.encoding, config.language, config.model) == ("mulaw", "en", "tiny.en")
    assert config.endpointing == 0.7
    assert line.kinds == ["session.created", *["session.updated"] * 3]
    told = line.told[-1]["session"]["audio"]["input"]
    assert told["transcription"]["language"] == "en"
    assert told["turn_detection"]["silence_duration_ms"] == 700


async def test_turn_detection_may_be_taken_away_before_audio_comes() -> None:
    line = Line()
    peer = peer_at(line)
    line.says(update(**MANUAL), append(SECOND), append(SECOND), COMMIT)
    assert (await soon(peer.configuration())).endpointing is None
    taken = [await soon(peer.receive()) for _ in range(4)]
    assert taken == [Keepalive(), SECOND * 2, Configure({}), Flush()]


async def test_what_is_wrong_changes_nothing_and_ends_nothing() -> None:
    line = Line()
    wrong = update(transcription={"language": "de"}, turn_detection={"type": "semantic_vad"})
    line.says(
        {**wrong, "event_id": "mine"},
        "{",
        b"\0\0",
        {"type": "response.create", "event_id": "other"},
        {"type": "\ud800", "\ud800": 1, "event_id": "\ud800"},
        update(transcription={"model": "gpt-9"}),
        append(SECOND),
    )
    config = await soon(peer_at(line).configuration())
    assert config.language is None
    errors = [event["error"] for event in line.all("error")]
    assert [error["event_id"] for error in errors] == [
        *("mine", None, None, "other", "\ud800", None)
    ]
    assert [error["param"] for error in errors] == [
        "session.audio.input.turn_detection.type",
        None,
        None,
        "type",
        "type",
        "session.audio.input.transcription.model",
    ]
    assert [error["code"] for error in errors][4:] == ["invalid_parameter", "model_not_found"]
    assert all(error["type"] == "invalid_request_error" for error in errors)


async def test_with_nothing_in_the_buffer_there_is_nothing_to_cut() -> None:
    for config in (None, session(**MANUAL)):
        line = Line()
        line.says(append(b""), {**COMMIT, "event_id": "mine"}, CLEAR, append(SECOND))
        await soon(peer_at(line, config).configuration())
        assert line.kinds == ["session.created", "error", CLEARED]
        assert line.told[1]["error"]["code"] == "input_audio_buffer_commit_empty"
        assert line.told[1]["error"]["event_id"] == "mine"


async def test_a_client_may_leave_before_it_begins() -> None:
    line = Line()
    line.leaves()
    with pytest.raises(PeerGone):
        await soon(peer_at(line).configuration())


# With turn detection


async def test_audio_is_handed_over_as_it_comes() -> None:
    begun = await Begun.with_audio()
    assert await begun.takes(append(b"abc")) == b"abc"
    assert await begun.takes(append(b"")) == Keepalive()
    begun.line.leaves()
    assert await begun.takes() is None


async def test_turns_have_the_padding_and_the_silence_around_them() -> None:
    begun = await Begun.with_audio()
    await begun.hears(SpeechStarted(1.0), SpeechStopped(2.0), final("Hello"))
    await begun.hears(Endpoint(2.5, "silence"))
    assert begun.line.all(STARTED)[0]["audio_start_ms"] == 700
    assert begun.line.all(STOPPED)[0]["audio_end_ms"] == 2500
    completed = begun.line.all(COMPLETED)[0]
    assert completed["usage"]["seconds"] == pytest.approx(1.8)
    assert completed["transcript"] == "Hello"


async def test_a_commit_takes_its_place_behind_what_was_heard_before_it() -> None:
    begun = await Begun.with_audio()
    assert await begun.takes(append(SECOND), COMMIT) == SECOND
    assert await begun.takes() == Configure({})
    assert await begun.takes() == Flush()
    # What voice activity found in the audio before the commit is told behind it.
    told = await begun.hears(SpeechStarted(0.3), SpeechStopped(0.8), SpeechStarted(1.6))
    assert told == [STARTED, STOPPED, COMMITTED, *ITEM, STARTED]
    assert await begun.hears(READY) == [COMMITTED, *ITEM]
    told = await begun.hears(final("one"), Endpoint(1.3, "silence"))
    assert told == [DELTA, COMPLETED]
    assert await begun.hears(final(" two"), Endpoint(2.0, "flush")) == [DELTA, COMPLETED]
    first, second = begun.line.all(COMMITTED)
    assert second["previous_item_id"] == first["item_id"]
    assert begun.line.all(COMPLETED)[1]["item_id"] == second["item_id"]
    assert begun.line.all(STARTED)[1]["item_id"] == second["item_id"]


async def test_a_clear_takes_its_place_too_and_loses_nothing_before_it() -> None:
    begun = await Begun.with_audio()
    assert await begun.takes(CLEAR) == Configure({})
    assert await begun.takes() == Flush()
    await begun.hears(SpeechStarted(0.1))
    assert await begun.hears(READY) == [CLEARED]
    assert await begun.hears(final("gone"), Endpoint(1.0, "flush")) == []
    # There is nothing left to cut.
    assert await begun.takes(CLEAR) == Keepalive()
    assert begun.line.kinds[-1] == CLEARED
    assert await begun.takes({**COMMIT, "event_id": "mine"}) == Keepalive()
    assert begun.error["code"] == "input_audio_buffer_commit_empty"
    assert begun.error["event_id"] == "mine"


# Without


async def test_audio_is_handed_over_when_it_is_committed() -> None:
    begun = await Begun.with_audio(config=session(**MANUAL))
    assert await begun.takes(append(b"\1" * 48_000)) == Keepalive()
    assert await begun.takes(COMMIT) == SECOND + b"\1" * 48_000
    assert await begun.takes() == Configure({})
    assert await begun.takes() == Flush()
    assert await begun.hears(READY) == [COMMITTED, *ITEM]
    # Voice activity ends no turns here.
    assert await begun.hears(SpeechStarted(0.3), SpeechStopped(0.8)) == []
    assert await begun.hears(final("Hello"), Endpoint(2.0, "flush")) == [DELTA, COMPLETED]
    assert begun.line.all(COMPLETED)[0]["usage"]["seconds"] == 2.0


async def test_many_commits_may_wait_for_their_text() -> None:
    begun = await Begun.with_audio(config=session(**MANUAL))
    for _ in range(3):
        assert await begun.takes(COMMIT) == SECOND
        assert await begun.takes() == Configure({})
        assert await begun.takes() == Flush()
        assert await begun.takes(append(SECOND)) == Keepalive()
    await begun.hears(READY, READY, READY)
    for number in range(3):
        await begun.hears(final(f" w{number}"), Endpoint(number + 1.0, "flush"))
    committed = [event["item_id"] for event in begun.line.all(COMMITTED)]
    completed = begun.line.all(COMPLETED)
    assert [event["item_id"] for event in completed] == committed
    assert [event["transcript"] for event in completed] == ["w0", "w1", "w2"]


async def test_cleared_audio_is_never_handed_over() -> None:
    begun = await Begun.with_audio(config=session(**MANUAL))
    assert await begun.takes(CLEAR) == Keepalive()
    assert begun.line.kinds[-1] == CLEARED
    assert await begun.takes(append(b"\1" * 48_000), COMMIT) == Keepalive()
    assert await begun.takes() == b"\1" * 48_000


async def test_audio_beyond_what_may_wait_has_no_effect_until_there_is_room() -> None:
    begun = await Begun.with_audio(config=session(**MANUAL), max_s=2.5)
    assert await begun.takes(append(SECOND), {**append(b"\1" * 48_000), "event_id": "mine"})
    assert await begun.takes() == Keepalive()
    assert (begun.error["param"], begun.error["event_id"]) == ("audio", "mine")
    assert await begun.takes(COMMIT) == SECOND * 2
    assert [await begun.takes(), await begun.takes()] == [Configure({}), Flush()]
    await begun.hears(READY, Endpoint(2.0, "flush"))
    assert await begun.takes(append(b"\1" * 48_000), COMMIT) == Keepalive()
    assert await begun.takes() == b"\1" * 48_000


# Updates while audio comes


async def test_what_is_written_may_change_while_audio_comes() -> None:
    begun = await Begun.with_audio()
    wish = {"language": "de", "prompt": "Hallo.", "model": "tiny.en", "keywords": ["Grüezi"]}
    changed = await begun.takes(update(transcription=wish))
    assert changed == Configure(
        {"model": "tiny.en", "language": "de", "prompt": "Hallo.", "hotwords": "Grüezi"}
    )
    assert begun.line.kinds == ["session.created"]
    assert await begun.hears(READY) == ["session.updated"]
    told = begun.line.told[-1]["session"]["audio"]["input"]["transcription"]
    assert told == wish


@pytest.mark.parametrize(
    ("name", "value"), [("format", {"type": "audio/pcma"}), ("turn_detection", None)]
)
async def test_what_audio_is_may_not(name: str, value: Any) -> None:
    begun = await Begun.with_audio()
    assert await begun.takes(update(transcription={"language": "de"}, **{name: value}))
    assert begun.error["param"] == f"session.audio.input.{name}"
    # Nor has the rest of that update any effect; and the same again is no change.
    assert await begun.takes(update(format={"type": "audio/pcm", "rate": 24_000})) == Configure(
        {"model": "", "language": None, "prompt": "", "hotwords": ""}
    )


async def test_log_probabilities_begin_where_they_are_asked_for() -> None:
    begun = await Begun.with_audio()
    await begun.takes({"type": "session.update", "session": {"include": [LOGPROBS]}})
    await begun.hears(SpeechStarted(0.0), final("one"), READY, final(" two"))
    assert ["logprobs" in event for event in begun.line.all(DELTA)] == [False, True]


# The beta


async def test_a_client_of_the_beta_is_spoken_to_in_its_words() -> None:
    line = Line()
    line.says(
        {
            "type": "transcription_session.update",
            "session": {"input_audio_format": "g711_ulaw", "turn_detection": None},
        },
        append(SECOND),
    )
    config = await soon(peer_at(line, is_beta=True).configuration())
    assert config.encoding == "mulaw"
    assert line.kinds == ["transcription_session.created", "transcription_session.updated"]
    told = line.told[-1]["session"]
    assert told["id"] == "sess_1"
    assert told["input_audio_format"] == "g711_ulaw"
    assert told["turn_detection"] is None
    assert "audio" not in told


async def test_a_client_that_speaks_as_in_the_beta_is_answered_so_from_then_on() -> None:
    begun = await Begun.with_audio()
    wish = {"input_audio_transcription": {"language": "de"}}
    assert isinstance(
        await begun.takes({"type": "transcription_session.update", "session": wish}), Configure
    )
    assert await begun.hears(READY) == ["transcription_session.updated"]
    told = await begun.hears(SpeechStarted(0.0), SpeechStopped(1.0))
    assert told[-1] == "conversation.item.created"
    await begun.takes({"type": "transcription_session.update", "session": {"voice": "alloy"}})
    assert begun.error["param"] == "session.voice"


# What else the stream says


async def test_what_the_api_has_no_word_for_is_not_told() -> None:
    begun = await Begun.with_audio()
    resume = ResumePoint(committed_until=0.0)
    told = await begun.hears(
        Partial(0.0, 1.0, "may change"),
        Ack(1.0, resume),
        Warned("falling_behind", "wait"),
        WasReset(1.0),
        UtteranceEnd(1.0),
        Done("", 1.0, 0, {}),
    )
    assert told == []


async def test_a_failure_that_can_be_mended_is_told_and_text_comes_later() -> None:
    begun = await Begun.with_audio()
    await begun.hears(SpeechStarted(0.0), SpeechStopped(1.0))
    assert await begun.hears(Failed("overloaded", "try later", fatal=False)) == ["error"]
    assert begun.error["type"] == "server_error"
    assert begun.error["event_id"] is None
    assert await begun.hears(final("late"), Endpoint(1.5, "silence")) == [DELTA, COMPLETED]


async def test_a_failure_that_ends_the_stream_ends_every_turn() -> None:
    begun = await Begun.with_audio()
    await begun.hears(SpeechStarted(0.0), SpeechStopped(1.0), SpeechStarted(2.0))
    told = await begun.hears(Failed("client_too_fast", "too fast", fatal=True))
    assert told == [FAILED, FAILED, "error"]
    assert begun.error["code"] == "client_too_fast"


async def test_events_that_belong_together_stay_together() -> None:
    """The stream tells while the client is answered, and the socket is slow."""

    class SlowLine(Line):
        async def send(self, text: str) -> None:
            await asyncio.sleep(0)
            await super().send(text)

    line = SlowLine()
    peer = peer_at(line)
    line.says(append(SECOND), *[{"type": "nonsense"}] * 20)
    await soon(peer.configuration())

    async def read() -> None:
        for _ in range(21):
            await peer.receive()

    reading = asyncio.create_task(read())
    for at_s in range(10):
        await peer.send(SpeechStarted(at_s + 0.5))
        await peer.send(SpeechStopped(at_s + 0.9))
    await soon(reading)
    kinds = [kind for kind in line.kinds if kind != STARTED]
    starts = [at for at, kind in enumerate(kinds) if kind == STOPPED]
    assert len(starts) == 10
    assert all(kinds[at : at + 4] == [STOPPED, COMMITTED, *ITEM] for at in starts)
    assert len({json.dumps(event["event_id"]) for event in line.told}) == len(line.told)
