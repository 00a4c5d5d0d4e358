"""When requests come, decided before the first of them and whatever becomes of it.

Both are endless and rise; `within` ends them. Times are seconds from the start of the load.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import accumulate, count, repeat, takewhile

Arrivals = Callable[[float, int], Iterator[float]]


def poisson(rate: float, seed: int) -> Iterator[float]:
    """As many callers who know nothing of each other come: `rate` of them a second on average.
    The same `seed` gives the same times."""
    chance = random.Random(seed)
    return accumulate(chance.expovariate(rate) for _ in repeat(None))


def uniform(rate: float, seed: int) -> Iterator[float]:  # noqa: ARG001 - as the other is called
    """One every `1 / rate` seconds, the first at once. Each is multiplied and not added up, so
    that nothing drifts."""
    return (number / rate for number in count())


ARRIVALS: dict[str, Arrivals] = {"poisson": poisson, "uniform": uniform}


def within(times: Iterator[float], duration_s: float) -> list[float]:
    """Those before `duration_s`."""
    return list(takewhile(lambda time_s: time_s < duration_s, times))
