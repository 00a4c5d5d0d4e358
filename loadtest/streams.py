"""One live stream at the pace of speech, in an event loop; what it decides, `Conversation` does."""

from __future__ import annotations

import asyncio
import time

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import InvalidStatus

from benchmarks.concurrent_clips import retry_after_s
from benchmarks.live_streams import OPEN_TIMEOUT_S
from loadtest.conversation import Conversation
from loadtest.files import Access
from whisper_serve.client.connection import LOST, dial, ws_url


async def converse(access: Access, conversation: Conversation) -> None:
    """From the handshake to the service's last word. It is tried once: who comes at a time of
    his own and is refused goes away."""
    conversation.tries(time.monotonic())
    try:
        socket = await _opened(access, conversation)
    except InvalidStatus as exc:
        told_s = retry_after_s(exc.response.headers.get("Retry-After"))
        conversation.refused(time.monotonic(), exc.response.status_code, told_s)
        return
    except LOST as exc:
        conversation.failed(time.monotonic(), type(exc).__name__)
        return
    await _spoken(socket, conversation)


async def _opened(access: Access, conversation: Conversation) -> ClientConnection:
    dialect = conversation.dialect
    url = ws_url(access.url, dialect.path)
    socket = await dial(url, access.headers, OPEN_TIMEOUT_S, access.trust)
    try:
        if dialect.opening is not None:
            await socket.send(dialect.opening)
        if dialect.is_greeted:
            greeting = await asyncio.wait_for(socket.recv(), OPEN_TIMEOUT_S)
            conversation.received(time.monotonic(), str(greeting))
    except BaseException:
        await socket.close()
        raise
    return socket


async def _spoken(socket: ClientConnection, conversation: Conversation) -> None:
    conversation.began(time.monotonic())
    speaking = asyncio.create_task(_speak(socket, conversation))
    try:
        async for message in socket:
            conversation.received(time.monotonic(), str(message))
        await speaking
        conversation.ended(time.monotonic())
    except LOST as exc:
        conversation.failed(time.monotonic(), type(exc).__name__)
    finally:
        speaking.cancel()
        await asyncio.gather(speaking, return_exceptions=True)
        await socket.close()


async def _speak(socket: ClientConnection, conversation: Conversation) -> None:
    while (at := conversation.next_at) is not None:
        await asyncio.sleep(max(0.0, at - time.monotonic()))
        await socket.send(conversation.next_piece)
        conversation.sent(time.monotonic())
    await socket.send(conversation.dialect.ending)
