"""Bounds of connections, over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket
from uvicorn import Config, Server
from uvicorn import config as uvicorn_config
from websockets.asyncio.client import connect

from whisper_serve.serving.bounded_http import MAX_HEAD_BYTES, BoundedHttp, bound_requests

PATIENCE_S = 20.0
SHORT_S = 0.3
BIG = 64 << 20
HEAD = b"GET / HTTP/1.1\r\nHost: here\r\n"

Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Hasty(BoundedHttp):
    head_timeout_s = unread_timeout_s = SHORT_S


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Tells how much body came and which headers; `/big` is more than anybody's buffers hold."""
    if scope["type"] == "websocket":
        socket = WebSocket(scope, receive, send)
        await socket.accept()
        await socket.send_text(await socket.receive_text())
        await socket.close()
        return
    request = Request(scope, receive)
    body = await request.body()
    if scope["path"] == "/big":
        await Response(bytes(BIG))(scope, receive, send)
        return
    text = f"{len(body)} {','.join(request.headers)}"
    await PlainTextResponse(text)(scope, receive, send)


@asynccontextmanager
async def served(protocol: type[BoundedHttp]) -> AsyncIterator[int]:
    server = Server(Config(app, port=0, http=protocol, lifespan="off", log_config=None))
    running = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - nothing tells when it has
        await asyncio.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await asyncio.wait_for(running, PATIENCE_S)


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Pair]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with closing(writer):
        yield reader, writer


async def answer_to(port: int, *parts: bytes) -> bytes:
    """All that the server says until it closes the connection."""
    async with connected(port) as (reader, writer):
        with suppress(ConnectionError):
            for part in parts:
                writer.write(part)
                await writer.drain()
        with suppress(ConnectionError):
            return await asyncio.wait_for(reader.read(), PATIENCE_S)
        return b""


async def test_an_ordinary_request_is_served() -> None:
    async with served(BoundedHttp) as port:
        said = await answer_to(port, HEAD + b"Connection: close\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 200 OK")


async def test_requests_may_follow_each_other() -> None:
    async with served(Hasty) as port, connected(port) as (reader, writer):
        for _ in range(5):
            writer.write(HEAD + b"\r\n")
            await writer.drain()
            said = await asyncio.wait_for(reader.readuntil(b"host"), PATIENCE_S)
            assert b"200 OK" in said


@pytest.mark.parametrize(
    "line", [b"X-Long: " + b"a" * (1 << 20), b"".join(b"X-%d: a\r\n" % n for n in range(9_000))]
)
async def test_a_head_without_end_is_refused(line: bytes) -> None:
    async with served(BoundedHttp) as port:
        said = await answer_to(
            port, HEAD, *[line[n : n + 4_096] for n in range(0, len(line), 4_096)]
        )
    assert said == b"" or said.startswith(b"HTTP/1.1 431")


async def test_a_long_address_is_refused() -> None:
    async with served(BoundedHttp) as port:
        said = await answer_to(port, b"GET /", *[b"a" * 4_096] * 64)
    assert said == b"" or said.startswith(b"HTTP/1.1 431")


async def test_a_head_of_many_kilobytes_is_served() -> None:
    long = b"X-Long: " + b"a" * (MAX_HEAD_BYTES // 2) + b"\r\n"
    async with served(BoundedHttp) as port:
        said = await answer_to(port, HEAD + long + b"Connection: close\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize(
    "begin", [b"", b"GET / HT", HEAD], ids=["nothing", "half a line", "a line"]
)
async def test_a_head_that_does_not_come_ends_the_connection(begin: bytes) -> None:
    async with served(Hasty) as port:
        assert await answer_to(port, begin) == b""


async def test_so_does_one_behind_another_request() -> None:
    async with served(Hasty) as port:
        said = await answer_to(port, HEAD + b"\r\n", b"GET / HT")
    assert said.count(b"HTTP/1.1") == 1


async def test_a_body_is_as_long_as_it_likes() -> None:
    body = bytes(4 * MAX_HEAD_BYTES)
    head = b"POST / HTTP/1.1\r\nHost: here\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    async with served(Hasty) as port, connected(port) as (reader, writer):
        writer.write(head % len(body) + body[:100])
        await asyncio.sleep(2 * SHORT_S)  # a body has other limits
        writer.write(body[100:])
        said = await asyncio.wait_for(reader.read(), PATIENCE_S)
    assert b"%d host" % len(body) in said


CHUNKED = b"POST / HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n"


async def test_small_chunks_are_served() -> None:
    chunks = b"1\r\nx\r\n" * MAX_HEAD_BYTES
    async with served(BoundedHttp) as port, connected(port) as (reader, writer):
        writer.write(CHUNKED + chunks + b"0\r\n\r\n")
        said = await asyncio.wait_for(reader.readuntil(b"host"), PATIENCE_S)
    assert b"%d host" % MAX_HEAD_BYTES in said


async def test_what_comes_behind_a_body_is_no_header_and_has_an_end() -> None:
    trailer = b"X-Late: yes\r\n"
    async with served(BoundedHttp) as port, connected(port) as (reader, writer):
        writer.write(CHUNKED + b"1\r\nx\r\n0\r\n" + trailer + b"\r\n")
        said = await asyncio.wait_for(reader.readuntil(b"encoding"), PATIENCE_S)
        assert b"x-late" not in said
    async with served(BoundedHttp) as port:
        said = await answer_to(port, CHUNKED + b"0\r\nX-Late: ", *[b"a" * 4_096] * 64)
    assert said == b"" or said.startswith(b"HTTP/1.1 431")


async def test_a_client_that_does_not_read_is_cut_off() -> None:
    async with served(Hasty) as port, connected(port) as (reader, writer):
        writer.write(b"GET /big HTTP/1.1\r\nHost: here\r\n\r\n")
        await asyncio.sleep(4 * SHORT_S)  # the client does something else
        received = 0
        with suppress(ConnectionError):
            while part := await asyncio.wait_for(reader.read(1 << 20), PATIENCE_S):
                received += len(part)
    assert received < BIG


async def test_a_client_that_reads_gets_everything() -> None:
    async with served(Hasty) as port:
        said = await answer_to(
            port, b"GET /big HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n"
        )
    assert len(said) > BIG


async def test_a_socket_lives_on_behind_its_handshake() -> None:
    async with served(Hasty) as port, connect(f"ws://127.0.0.1:{port}/") as socket:
        await asyncio.sleep(2 * SHORT_S)
        await socket.send("still here")
        assert await asyncio.wait_for(socket.recv(), PATIENCE_S) == "still here"


def test_every_server_of_the_process_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uvicorn_config, "HTTP_PROTOCOLS", dict(uvicorn_config.HTTP_PROTOCOLS))
    bound_requests()
    config = Config(app)
    config.load()
    assert config.http_protocol_class is BoundedHttp
