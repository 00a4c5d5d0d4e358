"""A stream goes on whatever its engine does, and leaves nothing behind whatever its client does.

The clients here have no socket; `routes/test_stream.py` has real ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import psutil
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.api.fakes import Lines
from tests.api.streams import (
    HASTY,
    PATIENCE_S,
    Engine,
    ScriptedPeer,
    for_ever,
    quiet,
    said,
    words,
)
from tests.audio.clips import Recipe
from tests.streaming.speaker import Ears
from whisper_serve.api import live, outbox
from whisper_serve.api.live import Timing, converse
from whisper_serve.audio import isolation
from whisper_serve.config import Config
from whisper_serve.engines.base import DecodeTask, Lane
from whisper_serve.errors import (
    DeadlineExceeded,
    EngineFailed,
    EngineUnavailable,
    FrameTooBig,
    InvalidMessage,
    InvalidParameter,
    Overloaded,
    Superseded,
    WhisperServeError,
)
from whisper_serve.streaming.messages import (
    Ack,
    Configure,
    Done,
    End,
    Failed,
    Final,
    Flush,
    Keepalive,
    Partial,
    Ready,
    Reset,
    StreamConfig,
    Warned,
    WasReset,
)
from whisper_serve.streaming.session import StreamSession

TROUBLE = "where the bodies are buried"
FAILURES = [EngineFailed(TROUBLE), DeadlineExceeded(1.0), Overloaded(0.01), EngineUnavailable(0.01)]
failures = pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.code)
# A window each second, and no partials: what an engine is asked is known then.
PLAIN = {"chunk_duration": 1.0, "overlap": 0.1, "interim": False}


@asynccontextmanager
async def stream(
    peer: ScriptedPeer,
    engine: Engine | None = None,
    *,
    timing: Timing = HASTY,
    models: Sequence[str] = (),
    **streaming: object,
) -> AsyncIterator[asyncio.Task[int | None]]:
    """A stream that is served meanwhile. Its client leaves at last, and nothing may be left."""
    before = asyncio.all_tasks()
    config = Config.model_validate({"streaming": streaming, "models": models})
    serving = converse(peer, config=config, port=engine or Engine(), session_id="s", timing=timing)
    task = asyncio.create_task(serving)
    try:
        yield task
        peer.reads.set()
        peer.leaves()
        await asyncio.wait_for(task, PATIENCE_S)
        # Those that were cancelled get one turn.
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == before
    finally:
        task.cancel()


async def code_of(task: asyncio.Task[int | None]) -> int | None:
    return await asyncio.wait_for(asyncio.shield(task), PATIENCE_S)


def text_of(peer: ScriptedPeer) -> str:
    return "".join(final.text for final in peer.all(Final))


def errors_of(peer: ScriptedPeer) -> list[tuple[str, bool]]:
    return [(error.code, error.fatal) for error in peer.all(Failed)]


async def test_what_is_said_is_written_and_the_stream_is_closed_with_1000() -> None:
    peer = ScriptedPeer()
    async with stream(peer) as task:
        peer.says(words(10), End())
        assert await code_of(task) == 1000
        assert isinstance(peer.sent[0], Ready)
        assert isinstance(peer.sent[-1], Done)
        assert text_of(peer) == peer.sent[-1].text == said(10)


# Engines that fail


@failures
async def test_a_window_that_fails_once_is_asked_for_again(failure: WhisperServeError) -> None:
    peer, engine = ScriptedPeer(PLAIN), Engine([failure, None, failure, failure])
    async with stream(peer, engine) as task:
        peer.says(words(10), End())
        assert await code_of(task) == 1000
    assert errors_of(peer) == []
    assert text_of(peer) == said(10)
    assert peer.all(Done)[0].statistics["retries"] == 3


@failures
async def test_an_engine_that_fails_for_good_ends_a_stream_at_its_end_only(
    failure: WhisperServeError,
) -> None:
    peer = ScriptedPeer(PLAIN)
    async with stream(peer, Engine(trouble=failure)) as task:
        peer.says(words(4))
        error = await peer.hears(Failed)
        assert (error.code, error.fatal) == (failure.code, False)
        peer.says(Keepalive(), End())
        assert await code_of(task) == failure.ws_close_code
    assert peer.all(Ack)[-1].resume.committed_until == 0.0
    assert errors_of(peer)[-1] == (failure.code, True)
    assert peer.all(Done) == []
    assert not any(TROUBLE in error.message for error in peer.all(Failed))


async def test_nothing_is_lost_of_what_an_engine_failed_at() -> None:
    failure = EngineFailed("")
    peer, engine = ScriptedPeer(PLAIN), Engine([failure] * 3)
    async with stream(peer, engine) as task:
        peer.says(words(4))
        await peer.hears(Failed)
        peer.says(words(20)[4 * 8000 :], End())
        assert await code_of(task) == 1000
    assert errors_of(peer) == [("engine_failed", False)]
    assert text_of(peer) == said(20)
    assert peer.all(Done)[0].statistics["errors"] == 1


async def test_a_flush_does_not_hammer_an_engine_that_fails() -> None:
    patient = Timing(ack_every_s=0.02, longest_wait_s=0.2)
    peer, engine = ScriptedPeer(PLAIN), Engine(trouble=EngineFailed(""))
    async with stream(peer, engine, timing=patient):
        peer.says(words(2), Flush())
        await peer.hears(Failed, 2)
        assert len(engine.tasks) <= 9
        assert len(errors_of(peer)) <= 3


async def test_a_flush_is_done_once_the_engine_is_well_again() -> None:
    peer, engine = ScriptedPeer(PLAIN), Engine([EngineFailed("")] * 3)
    async with stream(peer, engine):
        peer.says(words(3), Flush())
        await peer.hears(Failed)
        while peer.all(Ack)[-1:] == [] or peer.all(Ack)[-1].resume.committed_until < 1.5:
            await peer.hears(Ack, len(peer.all(Ack)) + 1)
    assert text_of(peer) == said(3)


async def test_an_engine_without_room_is_asked_again_when_it_says() -> None:
    peer, engine = ScriptedPeer(PLAIN), Engine([Overloaded(0.15)])
    patient = Timing(longest_wait_s=60.0)
    async with stream(peer, engine, timing=patient) as task:
        began = asyncio.get_running_loop().time()
        peer.says(words(2), End())
        assert await code_of(task) == 1000
        assert asyncio.get_running_loop().time() - began >= 0.15


async def test_nobody_waits_longer_than_the_longest_wait() -> None:
    peer, engine = ScriptedPeer(PLAIN), Engine([Overloaded(3600.0)])
    async with stream(peer, engine) as task:
        peer.says(words(2), End())
        assert await code_of(task) == 1000


async def test_a_partial_that_fails_is_no_error_and_is_not_asked_for_again() -> None:
    async def no_partials(task: DecodeTask) -> None:
        if task.lane is Lane.LIVE_PARTIAL:
            raise EngineFailed("")

    peer, engine = ScriptedPeer(), Engine(trouble=no_partials)
    async with stream(peer, engine, timing=Timing(longest_wait_s=60.0)) as task:
        for second in range(4):
            peer.says(words(10)[second * 16_000 : (second + 1) * 16_000])
            await asyncio.sleep(0.01)
        peer.says(End())
        assert await code_of(task) == 1000
    lanes = [task.lane for task in engine.tasks]
    assert lanes.count(Lane.LIVE_PARTIAL) == 1
    assert errors_of(peer) == []
    assert text_of(peer) == said(8)


async def test_a_partial_that_a_newer_one_took_the_place_of_is_told_to_nobody() -> None:
    async def supersede(task: DecodeTask) -> None:
        if task.lane is Lane.LIVE_PARTIAL:
            raise Superseded

    peer, engine = ScriptedPeer(), Engine(trouble=supersede)
    async with stream(peer, engine, timing=Timing(longest_wait_s=60.0)) as task:
        for second in range(4):
            peer.says(words(10)[second * 16_000 : (second + 1) * 16_000])
            await asyncio.sleep(0.01)
        peer.says(End())
        assert await code_of(task) == 1000
    assert [task.lane for task in engine.tasks].count(Lane.LIVE_PARTIAL) > 1
    assert errors_of(peer) == []
    assert peer.all(Partial) == []
    assert text_of(peer) == said(8)
    statistics = peer.all(Done)[0].statistics
    assert (statistics["retries"], statistics["errors"]) == (0, 0)


async def test_a_partial_makes_way_for_final_text() -> None:
    async def slow_partials(task: DecodeTask) -> None:
        if task.lane is Lane.LIVE_PARTIAL:
            await for_ever(task)

    peer, engine = ScriptedPeer(), Engine(trouble=slow_partials)
    async with stream(peer, engine) as task:
        peer.says(words(20), End())
        assert await code_of(task) == 1000
    assert text_of(peer) == said(20)
    assert engine.given_up == sum(t.lane is Lane.LIVE_PARTIAL for t in engine.tasks) > 0


async def test_a_language_that_the_model_does_not_know_ends_the_stream_with_1008() -> None:
    refusal = InvalidParameter("language", "the model 'tiny.en' knows English only")
    peer = ScriptedPeer({"language": "de", **PLAIN})
    async with stream(peer, Engine(trouble=refusal)) as task:
        peer.says(words(4))
        assert await code_of(task) == 1008
    assert errors_of(peer) == [("invalid_parameter", True)]
    assert "language" in peer.sent[-1].message  # type: ignore[union-attr]


# Models


async def test_a_model_is_asked_that_the_client_names_and_then_another() -> None:
    peer, engine = ScriptedPeer({"model": "tiny.en", **PLAIN}), Engine()
    async with stream(peer, engine, models=["tiny.en"]) as task:
        peer.says(words(4)[:16_000], Flush())
        await peer.hears(Final)
        asked = len(engine.tasks)
        peer.says(Configure({"model": "base"}), words(4)[16_000:], End())
        assert await code_of(task) == 1000
    assert {task.model for task in engine.tasks[:asked]} == {"tiny.en"}
    assert {task.model for task in engine.tasks[asked:]} == {""}
    assert text_of(peer) == said(4)
    ready = peer.all(Ready)
    assert [message.config.model for message in ready] == ["tiny.en", "base"]


async def test_a_model_that_is_not_served_ends_the_stream_of_a_dialect_that_is_not_lenient() -> (
    None
):
    peer = ScriptedPeer(is_lenient=False)
    async with stream(peer) as task:
        peer.says(Configure({"model": "tiny.en"}))
        assert await code_of(task) == 1008
    assert errors_of(peer) == [("model_not_found", True)]


async def test_a_slow_engine_keeps_nobody_from_reading() -> None:
    peer, engine = ScriptedPeer(PLAIN), Engine(trouble=for_ever)
    async with stream(peer, engine):
        for number in range(10):
            peer.says(words(10)[number * 8000 : (number + 1) * 8000])
            ack = await peer.hears(Ack, number + 1)
        lags = [ack.received_until - ack.resume.committed_until for ack in peer.all(Ack)]
        assert lags == sorted(lags)
        assert ack.received_until == pytest.approx(5.0)
        assert len(engine.tasks) == 1
    assert engine.given_up == 1


async def test_a_client_is_told_once_when_engines_do_not_keep_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(live, "FALLING_BEHIND_S", -0.5)
    peer = ScriptedPeer(PLAIN)
    async with stream(peer, Engine(trouble=for_ever)):
        peer.says(words(2)[:9600])
        assert (await peer.hears(Warned)).code == "falling_behind"
        peer.says(words(2)[9600:])
        await peer.hears(Ack, 2)
        assert len(peer.all(Warned)) == 1


async def test_audio_that_came_all_at_once_may_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "FALLING_BEHIND_S", -0.5)
    peer = ScriptedPeer(PLAIN)
    async with stream(peer, Engine(trouble=for_ever)):
        peer.says(words(60))
        await peer.hears(Ack)
        await asyncio.sleep(5 * HASTY.ack_every_s)
        assert peer.all(Warned) == []


# Faults of ours


async def broken(*_: object) -> Any:
    raise RuntimeError(TROUBLE)


def assert_told_nothing(peer: ScriptedPeer, lines: Lines) -> None:
    assert errors_of(peer) == [("internal_error", True)]
    assert TROUBLE not in str(peer.sent)
    told = [record for record in lines.records if record.exc_info]
    assert TROUBLE in str(told[-1].exc_info)


async def test_a_fault_around_the_engine_is_an_internal_error(lines: Lines) -> None:
    peer = ScriptedPeer(PLAIN)
    async with stream(peer, Engine(trouble=broken)) as task:
        peer.says(words(4))
        assert await code_of(task) == 1011
    assert_told_nothing(peer, lines)


async def test_a_fault_in_reading_is_an_internal_error(lines: Lines) -> None:
    peer = ScriptedPeer()
    async with stream(peer) as task:
        peer.says(RuntimeError(TROUBLE))
        assert await code_of(task) == 1011
    assert_told_nothing(peer, lines)


async def test_a_fault_in_deciding_is_an_internal_error(
    monkeypatch: pytest.MonkeyPatch, lines: Lines
) -> None:
    peer = ScriptedPeer()
    async with stream(peer) as task:
        await peer.hears(Ready)
        monkeypatch.setattr(
            StreamSession, "next_window", lambda *_, **__: (_ for _ in ()).throw(KeyError(TROUBLE))
        )
        peer.says(words(1))
        assert await code_of(task) == 1011
    assert_told_nothing(peer, lines)


async def test_a_fault_before_the_stream_begins_is_an_internal_error(
    monkeypatch: pytest.MonkeyPatch, lines: Lines
) -> None:
    peer = ScriptedPeer()
    monkeypatch.setattr(peer, "configuration", broken)
    async with stream(peer) as task:
        assert await code_of(task) == 1011
    assert_told_nothing(peer, lines)


async def test_a_fault_in_sending_ends_the_stream(
    monkeypatch: pytest.MonkeyPatch, lines: Lines
) -> None:
    peer = ScriptedPeer()
    monkeypatch.setattr(peer, "send", broken)
    async with stream(peer) as task:
        assert await code_of(task) == 1011
    assert any(record.exc_info for record in lines.records)


async def test_the_first_error_is_the_last_that_a_client_hears() -> None:
    peer = ScriptedPeer(PLAIN)
    async with stream(peer) as task:
        peer.says(FrameTooBig(1), InvalidMessage("late"), FrameTooBig(2), Keepalive(), words(4))
        assert await code_of(task) == 1009
    assert errors_of(peer) == [("frame_too_big", True)]
    assert isinstance(peer.sent[-1], Failed)


# Wrong messages


async def test_a_wrong_message_has_no_effect() -> None:
    peer = ScriptedPeer()
    async with stream(peer) as task:
        peer.says(words(4)[:8000], InvalidMessage("what?"), words(4)[8000:], End())
        assert await code_of(task) == 1000
    assert errors_of(peer) == [("invalid_message", False)]
    assert text_of(peer) == said(4)


async def test_a_wrong_message_ends_the_stream_of_a_dialect_that_is_not_lenient() -> None:
    peer = ScriptedPeer(is_lenient=False)
    async with stream(peer) as task:
        peer.says(InvalidMessage("what?"))
        assert await code_of(task) == 1008
    assert errors_of(peer) == [("invalid_message", True)]


async def test_wrong_messages_that_lie_there_already_do_not_stop_the_others() -> None:
    """On a server without flow control all of them do."""

    class Babbler(ScriptedPeer):
        async def receive(self) -> Any:
            if self._incoming.empty():
                raise InvalidMessage("blah")
            return await super().receive()

    peer = Babbler({"interim": False})
    async with stream(peer) as task:
        peer.says(words(4), End())
        assert await code_of(task) == 1000
    assert text_of(peer) == said(4)


# Commands that the shell has a part in


async def test_an_answer_that_a_reset_made_useless_is_given_up() -> None:
    peer, engine = ScriptedPeer(PLAIN), Engine([for_ever])
    async with stream(peer, engine) as task:
        peer.says(words(4))
        await peer.hears(Ack)
        peer.says(Reset())
        await peer.hears(WasReset)
        await asyncio.sleep(0)
        assert engine.given_up == 1
        peer.says(End())
        assert await code_of(task) == 1000
    assert text_of(peer) == ""


async def test_a_failure_that_a_reset_made_meaningless_is_not_told() -> None:
    gate = asyncio.Event()

    async def fail_late(task: DecodeTask) -> None:
        await gate.wait()
        raise EngineFailed("")

    peer = ScriptedPeer(PLAIN)
    async with stream(peer, Engine(trouble=fail_late)) as task:
        peer.says(words(4))
        await peer.hears(Ack)
        peer.says(Reset(), End())
        gate.set()
        assert await code_of(task) == 1000
    assert errors_of(peer) == []


async def test_a_reset_after_the_end_does_not_take_the_end_away() -> None:
    gate = asyncio.Event()

    async def wait(task: DecodeTask) -> None:
        await gate.wait()

    peer = ScriptedPeer(PLAIN)
    async with stream(peer, Engine(trouble=wait)) as task:
        peer.says(words(4), End(), Reset())
        await peer.hears(Failed)
        gate.set()
        assert await code_of(task) == 1000
    assert text_of(peer) == said(4)


async def test_the_idle_time_out_does_not_run_after_the_end() -> None:
    async def slow(task: DecodeTask) -> None:
        await asyncio.sleep(0.2)

    peer = ScriptedPeer(PLAIN)
    async with stream(peer, Engine(trouble=slow), idle_timeout_s=0.05) as task:
        peer.says(words(2), End())
        assert await code_of(task) == 1000
    assert text_of(peer) == said(2)


async def test_a_client_that_never_says_what_it_wants_is_idle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def silent() -> StreamConfig:
        await asyncio.Event().wait()
        raise AssertionError

    peer = ScriptedPeer()
    monkeypatch.setattr(peer, "configuration", silent)
    async with stream(peer, idle_timeout_s=0.05) as task:
        assert await code_of(task) == 4408
    assert errors_of(peer) == [("stream_idle", True)]


# Clients that go away


# Half a recording, so that more is waited for.
WEBM = Recipe("webm", "libopus").tone(1.0)[:2_000]


@pytest.fixture
def nothing_left() -> Iterator[None]:
    yield
    assert decoding_processes() == []


def decoding_processes() -> list[int]:
    children = psutil.Process().children()
    return [child.pid for child in children if isolation.PROGRAM in child.cmdline()]


async def test_a_client_that_leaves_takes_its_stream_along() -> None:
    peer = ScriptedPeer()
    async with stream(peer) as task:
        peer.leaves()
        assert await code_of(task) is None


async def test_a_window_of_a_client_that_left_is_given_up() -> None:
    peer, engine = ScriptedPeer(PLAIN), Engine(trouble=for_ever)
    async with stream(peer, engine) as task:
        peer.says(words(4))
        await peer.hears(Ack)
        peer.leaves()
        assert await code_of(task) is None
    assert engine.given_up == 1


async def test_a_client_may_leave_while_its_end_is_heard() -> None:
    peer, engine = ScriptedPeer(PLAIN), Engine(trouble=for_ever)
    async with stream(peer, engine) as task:
        peer.says(words(4), End())
        await peer.hears(Ack)
        peer.leaves()
        assert await code_of(task) is None
    assert engine.given_up == 1


async def test_a_client_may_leave_while_an_engine_is_asked_again() -> None:
    peer, engine = ScriptedPeer(PLAIN), Engine(trouble=Overloaded(60.0))
    async with stream(peer, engine, timing=Timing(ack_every_s=0.02)) as task:
        peer.says(words(4))
        await peer.hears(Ack)
        peer.leaves()
        assert await code_of(task) is None


async def test_a_client_that_cannot_be_sent_to_is_gone() -> None:
    peer = ScriptedPeer()
    async with stream(peer) as task:
        await peer.hears(Ready)
        peer.is_gone = True
        peer.says(Keepalive())
        assert await code_of(task) is None


@pytest.mark.usefixtures("nothing_left")
async def test_a_container_s_process_ends_with_its_client() -> None:
    peer = ScriptedPeer({"encoding": "container"})
    async with stream(peer) as task:
        peer.says(WEBM, Keepalive())
        await peer.hears(Ack)
        assert len(decoding_processes()) == 1
        peer.leaves()
        assert await code_of(task) is None


@pytest.mark.usefixtures("nothing_left")
async def test_a_server_that_stops_leaves_nothing_behind() -> None:
    before = asyncio.all_tasks()
    peer = ScriptedPeer({"encoding": "container"})
    task = asyncio.create_task(
        converse(peer, config=Config(), port=Engine(), session_id="s", timing=HASTY)
    )
    peer.says(WEBM, Keepalive())
    await peer.hears(Ack)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert asyncio.all_tasks() == before


async def test_a_stream_that_is_cancelled_gives_its_window_up() -> None:
    before = asyncio.all_tasks()
    peer, engine = ScriptedPeer(PLAIN), Engine(trouble=for_ever)
    task = asyncio.create_task(
        converse(peer, config=Config(), port=engine, session_id="s", timing=HASTY)
    )
    peer.says(words(4))
    await peer.hears(Ack)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert engine.given_up == 1
    assert asyncio.all_tasks() == before


async def test_a_stream_may_be_cancelled_before_it_began() -> None:
    before = asyncio.all_tasks()
    task = asyncio.create_task(
        converse(ScriptedPeer(), config=Config(), port=Engine(), session_id="s", timing=HASTY)
    )
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert asyncio.all_tasks() == before


# Clients that do not read


async def test_the_stream_of_a_client_that_does_not_read_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outbox, "MAX_WAITING", 50)
    peer = ScriptedPeer()
    peer.reads.clear()
    async with stream(peer, timing=Timing(last_words_s=60.0)) as task:
        peer.says(*[InvalidMessage("what?")] * 1_000)
        assert await code_of(task) == live.TRY_AGAIN_LATER == 1013
    assert peer.sent == []


async def test_a_client_that_reads_late_gets_the_newest_partial_and_all_final_text() -> None:
    peer = ScriptedPeer()
    peer.reads.clear()
    async with stream(peer):
        for number in range(12):
            peer.says(words(24)[number * 16_000 : (number + 1) * 16_000])
            await asyncio.sleep(2 * HASTY.ack_every_s)
        assert peer.sent == []
        peer.reads.set()
        await peer.hears(Final, 2)
        await peer.hears(Ack)
        assert len(peer.all(Ack)) <= 2
        assert len(peer.all(Partial)) <= 2


async def test_nobody_waits_long_for_the_last_words_to_be_read() -> None:
    peer = ScriptedPeer()
    peer.reads.clear()
    async with stream(peer, timing=Timing(last_words_s=0.05)) as task:
        peer.says(words(2), End())
        assert await code_of(task) == 1000
    assert peer.sent == []


# Acknowledgements


async def test_silence_is_acknowledged_and_settled_without_an_engine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    peer, engine = ScriptedPeer({"vad": True}), Engine()
    async with stream(peer, engine):
        for number in range(5):
            peer.says(quiet(1.0))
            ack = await peer.hears(Ack, number + 1)
        assert ack.received_until == 5.0
        assert ack.resume.committed_until > 3.0
    assert engine.tasks == []


async def test_nothing_is_acknowledged_when_nothing_comes() -> None:
    peer = ScriptedPeer()
    async with stream(peer):
        peer.says(quiet(0.2))
        await peer.hears(Ack)
        await asyncio.sleep(5 * HASTY.ack_every_s)
        assert len(peer.all(Ack)) == 1


# All at once

ACTIONS = st.one_of(
    st.integers(1, 6),  # so many words more
    st.just(Flush()),
    st.just(Keepalive()),
    st.sampled_from(["chunk", "agreement", "utterance"]).map(lambda p: Configure({"policy": p})),
    st.sampled_from([1.0, 2.0, 7.0]).map(lambda d: Configure({"chunk_duration": d})),
    st.sampled_from([Configure({"vad": 3}), Configure({"lang": "en"})]),
    st.builds(InvalidMessage, st.just("what?")),
)
TROUBLES = st.lists(
    st.sampled_from([None, None, None, EngineFailed(""), Overloaded(0.001)]), max_size=12
)


@settings(max_examples=40)
@given(actions=st.lists(ACTIONS, max_size=20), troubles=TROUBLES, with_vad=st.booleans())
@example(actions=[1, Flush(), 1, Flush()], troubles=[], with_vad=True)
def test_whatever_happens_every_word_is_final_once(
    actions: list[Any], troubles: list[WhisperServeError | None], with_vad: bool
) -> None:
    async def run() -> None:
        peer, engine = ScriptedPeer({"vad": with_vad}), Engine(troubles)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(live, "SileroVad", Ears)
            async with stream(peer, engine) as task:
                count = 0
                for action in actions:
                    if isinstance(action, int):
                        peer.says(words(200)[count * 8000 : (count + action) * 8000])
                        count += action
                    else:
                        peer.says(action)
                    await asyncio.sleep(0)
                peer.says(End())
                code = await code_of(task)
        assert "internal_error" not in dict(errors_of(peer))
        if code == 1000:
            assert text_of(peer) == peer.all(Done)[0].text == said(count)
        else:  # the engine failed at the end
            assert code in {1011, 1013}
            assert said(count).startswith(text_of(peer))

    asyncio.run(run())
