"""Streams over real sockets, to a server that breaks when told."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from tests.client.scripted import CONFIG, RATE, Fault, ScriptedServer, running, spoken, text_of
from whisper_serve.client import (
    AsyncClient,
    Done,
    Event,
    Failed,
    Final,
    Partial,
    Progress,
    Ready,
    Reconnecting,
    Warned,
)
from whisper_serve.errors import (
    ConnectionLost,
    InvalidParameter,
    ServerRefused,
    UnexpectedAnswer,
)

VALUES = [value % 9 for value in range(1, 60)]
WAIT_S = 20.0


def client_of(server: ScriptedServer, **options: Any) -> AsyncClient:
    return AsyncClient(server.url, **{"timeout_s": 5.0, "give_up_after_s": 10.0, **options})


async def all_events(client: AsyncClient, source: Any, **config: Any) -> list[Event]:
    async def collect() -> list[Event]:
        async with client, client.stream(source, **{**CONFIG, **config}) as events:
            return [event async for event in events]

    return await asyncio.wait_for(collect(), WAIT_S)


def texts_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Final))


def of_kind(events: list[Event], kind: type[Any]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


# A stream without accidents


async def test_a_stream_is_ready_then_heard_then_done() -> None:
    with running() as server:
        events = await all_events(client_of(server), spoken(VALUES))
    assert isinstance(events[0], Ready)
    assert events[0].config["chunk_duration"] == 1.0
    assert texts_of(events) == text_of(VALUES)
    assert events[-1] == Done(text_of(VALUES), 14.75, 53, {"windows": 1})
    assert {type(event) for event in events} == {Ready, Partial, Final, Progress, Done}
    assert server.close_codes == [1000]


async def test_a_stream_without_audio_is_done() -> None:
    with running() as server:
        events = await all_events(client_of(server), b"")
    assert events[-1] == Done("", 0.0, 0, {"windows": 1})


async def test_the_whole_text_can_be_had_at_once() -> None:
    with running() as server:
        async with client_of(server) as client:
            text = await client.transcribe_stream(spoken(VALUES), **CONFIG)  # type: ignore[arg-type]
    assert text == text_of(VALUES)


async def test_a_server_may_lie_behind_a_prefix_and_ask_for_headers() -> None:
    with running() as server:
        client = AsyncClient(f"{server.url}/speech/", headers={"Authorization": "Bearer x"})
        await all_events(client, b"")
        [request] = server.requests
    assert request.path == "/speech/stream"
    assert request.headers["Authorization"] == "Bearer x"


async def test_audio_waits_for_a_server_that_is_slow_to_settle() -> None:
    values = [1] * 200
    with running(max_backlog_s=10.0) as server:
        events = await all_events(client_of(server), spoken(values))
    assert texts_of(events) == text_of(values)
    assert server.hearers[0].most_waiting_s < 5.0


async def test_a_quiet_source_gives_signs_of_life() -> None:
    heard = asyncio.Event()

    async def source() -> AsyncIterator[bytes]:
        yield spoken([1])
        await heard.wait()
        yield spoken([2])

    with running(idle_timeout_s=0.3) as server:
        async with client_of(server) as client, client.stream(source(), **CONFIG) as events:  # type: ignore[arg-type]
            async for event in events:
                if isinstance(event, Progress):  # the answer to a sign of life
                    heard.set()
        keepalives = [frame for frame in server.frames if frame == '{"type": "keepalive"}']
    assert keepalives
    assert isinstance(event, Done)
    assert event.text == "w1 w2"


async def test_a_slow_reader_holds_the_server_up_and_misses_nothing() -> None:
    values = [1] * 1200
    with running() as server:
        async with client_of(server) as client, client.stream(spoken(values), **CONFIG) as events:  # type: ignore[arg-type]
            await anext(events)
            await asyncio.sleep(0.5)
            unread = len(server.frames)
            rest = [event async for event in events]
    assert unread < len(server.frames) - 100
    assert texts_of(rest) == text_of(values)


# Losses


@pytest.mark.parametrize("after", range(12))
async def test_a_connection_that_breaks_off_is_resumed(after: int) -> None:
    with running(Fault(after)) as server:
        events = await all_events(client_of(server), spoken(VALUES))
    assert texts_of(events) == text_of(VALUES)
    assert events[-1] == Done(text_of(VALUES), 14.75, 53, {"windows": 1})
    [told] = of_kind(events, Reconnecting)
    assert told.attempt == 1
    assert told.reason == "the connection broke off (1006)"


async def test_it_goes_on_from_the_newest_resume_object() -> None:
    # With a close frame, or the last messages might never arrive.
    with running(Fault(9, code=1011), Fault(7, code=1011)) as server:
        await all_events(client_of(server), spoken(VALUES))
        first, second, third = server.resumes
    assert first is None
    assert 0.0 < second["committed_until"] < third["committed_until"]
    assert second["audio_from"] == pytest.approx(second["committed_until"] - 0.6)


@pytest.mark.parametrize("code", [1000, 1001, 1011, 1012, 1013, 4408])
async def test_whatever_the_server_closes_for_it_is_resumed(code: int) -> None:
    with running(Fault(5, code=code), Fault(6, code=code)) as server:
        events = await all_events(client_of(server), spoken(VALUES))
    assert texts_of(events) == text_of(VALUES)
    assert [f"({code})" in told.reason for told in of_kind(events, Reconnecting)] == [True, True]


@pytest.mark.parametrize("code", [1001, 1012, None])
async def test_a_server_that_goes_away_has_not_failed(code: int | None) -> None:
    """Who has no patience at all with failures goes on elsewhere."""
    with running(Fault(5, code=code), Fault(6, code=code)) as server:
        events = await all_events(client_of(server, give_up_after_s=0.0), spoken(VALUES))
    assert texts_of(events) == text_of(VALUES)
    assert [told.attempt for told in of_kind(events, Reconnecting)] == [1, 1]


async def test_a_server_that_only_ever_goes_away_has() -> None:
    with running(*[Fault(1, code=1001)] * 50) as server:
        with pytest.raises(ConnectionLost, match=r"\(1001\)"):
            await all_events(client_of(server, give_up_after_s=0.6), spoken(VALUES))
        assert 2 <= len(server.requests) <= 8


async def test_a_drain_is_told_and_what_follows_it_is_no_failure() -> None:
    warning = {"type": "warning", "code": "draining", "message": "the service is about to stop"}
    draining = Fault(8, code=1011, messages=(warning,))
    with running(draining) as server:
        events = await all_events(client_of(server, give_up_after_s=0.0), spoken(VALUES))
    assert of_kind(events, Warned) == [Warned("draining", "the service is about to stop")]
    assert texts_of(events) == text_of(VALUES)
    assert len(of_kind(events, Reconnecting)) == 1


async def test_many_losses_without_progress_are_counted() -> None:
    with running(*[Fault(1)] * 3) as server:
        events = await all_events(client_of(server), spoken(VALUES))
    assert [told.attempt for told in of_kind(events, Reconnecting)] == [1, 2, 3]
    assert texts_of(events) == text_of(VALUES)


async def test_a_server_that_falls_silent_is_gone() -> None:
    with running(Fault(4, silent=True)) as server:
        events = await all_events(client_of(server, silence_s=0.3), spoken(VALUES))
    [told] = of_kind(events, Reconnecting)
    assert told.reason == "the server said nothing for 0.3 s"
    assert texts_of(events) == text_of(VALUES)


async def test_a_source_that_is_live_goes_on_across_a_loss() -> None:
    """The iterator that gives the audio is asked on, not begun anew."""
    given = 0

    async def source() -> AsyncIterator[bytes]:
        nonlocal given
        for value in VALUES:
            given += 1
            await asyncio.sleep(0.002)
            yield spoken([value])

    with running(Fault(5), Fault(5), Fault(5)) as server:
        events = await all_events(client_of(server), source())
    assert texts_of(events) == text_of(VALUES)
    assert given == len(VALUES)


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_server_that_is_full_is_asked_again_when_it_says(status: int) -> None:
    body = json.dumps({"code": "overloaded", "error": "it is full"}).encode()
    with running(Fault(deny=status, retry_after="1", body=body)) as server:
        events = await all_events(client_of(server), spoken([1]))
    [told] = of_kind(events, Reconnecting)
    assert told == Reconnecting(1, f"it is full ({status} overloaded)", 1.0)
    assert texts_of(events) == "w1"


async def test_a_server_that_has_no_routes_yet_again_is_waited_for() -> None:
    with running(Fault(5), Fault(deny=404, body=b"no such route")) as server:
        events = await all_events(client_of(server), spoken(VALUES))
    assert texts_of(events) == text_of(VALUES)


async def test_a_server_that_comes_up_late_is_waited_for() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    client = AsyncClient(f"http://127.0.0.1:{port}", give_up_after_s=10.0)
    async with client, client.stream(spoken([1]), **CONFIG) as events:  # type: ignore[arg-type]
        told = await anext(events)
        assert isinstance(told, Reconnecting)
        with running(port=port):
            rest = [event async for event in events]
    assert texts_of(rest) == "w1"


async def test_a_server_that_takes_real_time_only_gets_it_after_a_refusal() -> None:
    with running(Fault(5, code=4429)) as server:
        began = asyncio.get_running_loop().time()
        events = await all_events(client_of(server), spoken([1] * 8))
        took = asyncio.get_running_loop().time() - began
    assert texts_of(events) == text_of([1] * 8)
    resumed_at = server.resumes[1]["audio_from"]
    assert took > 2.0 - resumed_at - 0.5


# Losses that are for good


async def test_it_gives_up_and_says_what_was_wrong_last() -> None:
    with running(*[Fault(1, code=1011)] * 50) as server:
        with pytest.raises(ConnectionLost, match=r"cannot be reached: .*\(1011\)"):
            await all_events(client_of(server, give_up_after_s=0.6), spoken(VALUES))
        tries = len(server.requests)
    assert 2 <= tries <= 6


async def test_nobody_there_is_told() -> None:
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        client = AsyncClient(f"http://127.0.0.1:{taken.getsockname()[1]}", give_up_after_s=0.2)
        with pytest.raises(ConnectionLost, match="cannot be reached"):
            await all_events(client, b"")


async def test_being_asked_to_wait_for_too_long_is_the_end() -> None:
    with running(Fault(deny=503, retry_after="3600")) as server:
        with pytest.raises(ServerRefused, match="503") as caught:
            await all_events(client_of(server), b"")
        assert len(server.requests) == 1
    assert caught.value.retry_after_s == 3600.0


@pytest.mark.parametrize("code", [1008, 1009])
async def test_a_refusal_is_told_and_not_tried_again(code: int) -> None:
    with running(Fault(1, code=code, error=("invalid_parameter", "task: unknown"))) as server:
        with pytest.raises(ServerRefused, match="task: unknown") as caught:
            await all_events(client_of(server), spoken(VALUES))
        assert len(server.requests) == 1
    assert (caught.value.status, caught.value.error_code) == (code, "invalid_parameter")


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_a_handshake_that_is_refused_is_not_tried_again(status: int) -> None:
    with running(Fault(deny=status, body=b"no")) as server:
        with pytest.raises(ServerRefused, match=f"status {status}") as caught:
            await all_events(client_of(server), b"")
        assert len(server.requests) == 1
    assert (caught.value.status, caught.value.error_code) == (status, "http_error")


async def test_a_container_cannot_be_resumed() -> None:
    container = {"encoding": "container"}
    with running(Fault(1, code=1011)) as server:
        with pytest.raises(ConnectionLost, match="container cannot be resumed"):
            await all_events(client_of(server), iter([b"webm", bytes(2 * RATE)] * 9), **container)
        assert len(server.requests) == 1


async def test_a_container_may_wait_for_a_server() -> None:
    with running(Fault(deny=503)) as server:
        events = await all_events(client_of(server), b"", encoding="container")
    assert isinstance(events[-1], Done)


async def test_what_is_not_this_service_is_told() -> None:
    fault = Fault(10**9, messages=({"type": "partial", "text": 3},))
    with running(fault) as server, pytest.raises(UnexpectedAnswer, match="partial"):
        await all_events(client_of(server), spoken(VALUES))


# What is told besides


async def test_warnings_and_errors_are_events() -> None:
    warning = {"type": "warning", "code": "falling_behind", "message": "it is late"}
    error = {"type": "error", "code": "engine_failed", "message": "once more", "fatal": False}
    with running(Fault(10**9, messages=(warning, error))) as server:
        events = await all_events(client_of(server), spoken(VALUES))
    assert of_kind(events, Warned) == [Warned("falling_behind", "it is late")]
    assert of_kind(events, Failed) == [Failed("engine_failed", "once more")]


# Sources and users that end early


class Broken(Exception):
    pass


async def test_what_the_source_raises_reaches_who_reads() -> None:
    async def source() -> AsyncIterator[bytes]:
        yield spoken([1])
        raise Broken

    with running() as server, pytest.raises(Broken):
        await all_events(client_of(server), source())


async def test_a_source_that_cannot_connect_to_the_network_is_not_a_lost_connection() -> None:
    def fail(value: int) -> bytes:
        raise OSError("no such device")

    with running() as server, pytest.raises(OSError, match="no such device"):
        await all_events(client_of(server), map(fail, VALUES))


async def test_leaving_ends_the_connection_and_the_source() -> None:
    closed = threading.Event()

    async def source() -> AsyncIterator[bytes]:
        try:
            while True:
                yield spoken([1])
                await asyncio.sleep(0.01)
        finally:
            closed.set()

    with running() as server:
        async with client_of(server) as client, client.stream(source(), **CONFIG) as events:  # type: ignore[arg-type]
            async for event in events:
                if isinstance(event, Final):
                    break
        assert closed.is_set()
        assert [event async for event in events] == []
    assert server.close_codes == [1000]


async def test_a_loop_that_is_left_without_closing_ends_the_stream_too() -> None:
    closed = asyncio.Event()

    async def source() -> AsyncIterator[bytes]:
        try:
            while True:
                yield spoken([1])
                await asyncio.sleep(0.01)
        finally:
            closed.set()

    with running() as server:
        async with client_of(server) as client:
            async for event in client.stream(source(), **CONFIG):  # type: ignore[arg-type]
                if isinstance(event, Final):
                    break
            await asyncio.wait_for(closed.wait(), WAIT_S)


async def test_who_stops_waiting_for_an_event_gets_it_later() -> None:
    go = asyncio.Event()

    async def source() -> AsyncIterator[bytes]:
        await go.wait()
        yield spoken([1])

    with running() as server:
        async with client_of(server) as client, client.stream(source(), **CONFIG) as events:  # type: ignore[arg-type]
            assert isinstance(await anext(events), Ready)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(anext(events), 0.05)
            go.set()
            assert texts_of([event async for event in events]) == "w1"


async def test_a_stream_that_is_over_stays_over() -> None:
    with running() as server:
        async with client_of(server) as client:
            stream = client.stream(b"", **CONFIG)  # type: ignore[arg-type]
            assert [event async for event in stream]
            assert [event async for event in stream] == []
            await stream.aclose()


async def test_a_stream_that_never_began_can_be_closed() -> None:
    async with AsyncClient() as client:
        stream = client.stream(b"")
        await stream.aclose()
        assert [event async for event in stream] == []


async def test_a_wrong_configuration_is_told_before_anything_is_opened() -> None:
    async with AsyncClient() as client:
        with pytest.raises(InvalidParameter, match=r"^policy"):
            client.stream(b"", policy="eager")  # type: ignore[arg-type]


async def test_a_blocking_source_does_not_hold_up_the_loop() -> None:
    go = threading.Event()

    def source() -> Iterator[bytes]:
        yield spoken([1])
        assert go.wait(WAIT_S)
        yield spoken([2])

    with running() as server:
        async with client_of(server) as client, client.stream(source(), **CONFIG) as events:  # type: ignore[arg-type]
            assert isinstance(await anext(events), Ready)
            go.set()
            rest = [event async for event in events]
    assert texts_of(rest) == "w1 w2"
