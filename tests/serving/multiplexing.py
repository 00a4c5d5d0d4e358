"""What holds further models in a replica, without a replica around it."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Any

from whisper_serve.serving.models import Hold, Multiplex


def shelf(places: int) -> Multiplex:
    """Holds and lets go of what Ray Serve would (`_ModelMultiplexWrapper`)."""

    def multiplex(load: Hold) -> Hold:
        held: OrderedDict[str, Any] = OrderedDict()
        lock = asyncio.Lock()

        async def hold(name: str) -> object:
            if name in held:
                held.move_to_end(name)
                return held[name]
            async with lock:
                if name not in held:
                    if len(held) >= places:
                        _, oldest = held.popitem(last=False)
                        await oldest.__del__()
                        oldest.__del__ = lambda _: None
                    held[name] = await load(name)
                return held[name]

        return hold

    return multiplex
