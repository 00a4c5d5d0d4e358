"""Working for a client for as long as it is there, and no longer than allowed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

from starlette.types import Receive

from whisper_serve.deadline import within
from whisper_serve.errors import ClientGone, DeadlineExceeded

Result = TypeVar("Result")


async def while_asked(
    receive: Receive, timeout_s: float, work: Coroutine[Any, Any, Result]
) -> Result:
    """As `while_there`, for no longer than `timeout_s`: then it raises `DeadlineExceeded`."""
    try:
        return await while_there(receive, within(timeout_s, work))
    except asyncio.TimeoutError as exc:
        raise DeadlineExceeded(timeout_s) from exc


async def while_there(receive: Receive, work: Awaitable[Result]) -> Result:
    """What `work` gives. Raises `ClientGone`; `work` is cancelled then, and over.

    The request's body must have been read, so that nothing but the client's departure can
    be received.
    """
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(_departure(receive))
    try:
        await asyncio.wait([working, leaving], return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGone
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.wait([working, leaving])


async def _departure(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def in_time(
    timeout_s: float, items: AsyncGenerator[Result, None]
) -> AsyncGenerator[Result, None]:
    """The items, all within `timeout_s` from now. Raises `DeadlineExceeded`; the generator is
    closed then."""
    expires_at = time.monotonic() + timeout_s
    async with aclosing(items):
        while True:
            try:
                item = await within(expires_at - time.monotonic(), _next(items))
            except asyncio.TimeoutError as exc:
                raise DeadlineExceeded(timeout_s) from exc
            except StopAsyncIteration:
                return
            yield item


async def _next(items: AsyncGenerator[Result, None]) -> Result:
    return await anext(items)
