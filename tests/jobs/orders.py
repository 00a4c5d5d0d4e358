"""Orders as callers give them, for tests of everything that works on jobs."""

from __future__ import annotations

import io
from typing import Any

from whisper_serve.config import JobsConfig
from whisper_serve.jobs.job import Job
from whisper_serve.jobs.orders import Order, Orders

CONFIG = JobsConfig(database=None, max_attempts=3, lease_s=30.0)
AUDIO = b"RIFF" + bytes(range(256)) * 20
HOOK = "https://hooks.example.com/jobs"


def order(caller: str = "ada", **given: Any) -> Order:
    return Order(caller, given.pop("parameters", {}), given.pop("request_id", "r1"), **given)


async def submitted(
    orders: Orders, caller: str = "ada", *, now: float = 0.0, audio: bytes = AUDIO, **given: Any
) -> Job:
    return await orders.submit(order(caller, **given), io.BytesIO(audio), len(audio), now)
