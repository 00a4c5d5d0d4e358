"""Waiting no longer than allowed."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


async def within(timeout_s: float, work: Coroutine[Any, Any, Result]) -> Result:
    """What `work` gives. Raises `asyncio.TimeoutError`; `work` is cancelled then.

    `asyncio.wait_for` before Python 3.12 loses a cancellation that comes just when the work
    is done, and the caller lives on.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait([task], timeout=timeout_s)
        if not task.done():
            raise asyncio.TimeoutError
        return task.result()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
