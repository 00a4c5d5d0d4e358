"""What waits to be sent stays in order and does not grow."""

from __future__ import annotations

import asyncio

from whisper_serve.api.outbox import MAX_WAITING, Outbox
from whisper_serve.streaming.messages import (
    Ack,
    Partial,
    ResumePoint,
    ServerMessage,
    SpeechStarted,
    WasReset,
)


def partial(text: str) -> Partial:
    return Partial(0.0, 1.0, text)


def ack(received_until: float) -> Ack:
    return Ack(received_until, ResumePoint(committed_until=0.0))


def outbox_with(*messages: ServerMessage) -> Outbox:
    outbox = Outbox()
    for message in messages:
        outbox.put(message)
    return outbox


async def taken(outbox: Outbox) -> list[ServerMessage]:
    outbox.finish()
    messages: list[ServerMessage] = []
    while (message := await outbox.take()) is not None:
        messages.append(message)
    return messages


async def test_messages_come_out_in_order() -> None:
    messages: list[ServerMessage] = [SpeechStarted(1.0), partial("a"), WasReset(2.0), ack(2.0)]
    assert await taken(outbox_with(*messages)) == messages


async def test_of_partials_only_the_newest_waits() -> None:
    outbox = outbox_with(partial("a"), SpeechStarted(1.0), partial("b"))
    assert await taken(outbox) == [SpeechStarted(1.0), partial("b")]


async def test_of_acknowledgements_only_the_newest_waits() -> None:
    outbox = outbox_with(ack(1.0), partial("a"), ack(2.0), partial("b"), ack(3.0))
    assert await taken(outbox) == [partial("b"), ack(3.0)]


async def test_what_was_taken_is_not_replaced() -> None:
    outbox = outbox_with(partial("a"))
    assert await outbox.take() == partial("a")
    outbox.put(partial("b"))
    assert await taken(outbox) == [partial("b")]


async def test_nothing_of_another_kind_is_replaced() -> None:
    messages: list[ServerMessage] = [
        SpeechStarted(1.0),
        SpeechStarted(2.0),
        WasReset(1.0),
        WasReset(1.0),
    ]
    assert await taken(outbox_with(*messages)) == messages


async def test_the_taker_waits_for_a_message() -> None:
    outbox = Outbox()
    taker = asyncio.create_task(outbox.take())
    await asyncio.sleep(0)
    assert not taker.done()
    outbox.put(WasReset(1.0))
    assert await asyncio.wait_for(taker, 1.0) == WasReset(1.0)


async def test_the_taker_is_told_of_the_end_while_it_waits() -> None:
    outbox = Outbox()
    taker = asyncio.create_task(outbox.take())
    await asyncio.sleep(0)
    outbox.finish()
    assert await asyncio.wait_for(taker, 1.0) is None


async def test_what_waits_at_the_end_is_still_given() -> None:
    outbox = outbox_with(WasReset(1.0))
    outbox.finish()
    assert await outbox.take() == WasReset(1.0)
    assert await outbox.take() is None


def test_a_reader_who_only_misses_partials_and_acknowledgements_never_fills_it() -> None:
    outbox = Outbox()
    for number in range(3 * MAX_WAITING):
        outbox.put(partial(str(number)))
        outbox.put(ack(number))
    assert not outbox.is_full


def test_it_is_full_when_nothing_else_is_read_either() -> None:
    outbox = outbox_with(*[WasReset(1.0)] * (MAX_WAITING - 1))
    assert not outbox.is_full
    outbox.put(WasReset(1.0))
    assert outbox.is_full
