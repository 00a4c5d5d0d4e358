"""How fast something grows: straight lines through samples, and how sure they are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

SECONDS_AN_HOUR = 3_600.0
# Fewer samples beyond what the line itself takes say nothing.
LEAST_FREEDOM = 8
# Of the normal distribution; 95 % lie between it and its negative.
Z95 = 1.959964

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Slope:
    """Change of a value in an hour, and the interval that holds it in 95 of 100 cases. Samples
    that follow each other closely are not independent: then the true interval is wider."""

    per_hour: float
    low: float
    high: float

    def is_above(self, bound: float) -> bool:
        """Above `bound`, and surely not flat."""
        return self.per_hour > bound and self.low > 0

    def __str__(self) -> str:
        return f"{self.per_hour:+.1f} ({self.low:+.1f} to {self.high:+.1f})"


def slope(series: Iterable[Points]) -> Slope | None:
    """The line of least squares through (seconds, value) of several series, each on a level of
    its own, with the slope that they share. None when there are too few samples."""
    lines = [_around_mean(points) for points in series if len(points) > 1]
    if not lines:
        return None
    at, value = (np.concatenate(parts) for parts in zip(*lines, strict=True))
    freedom = len(at) - len(lines) - 1
    spread = float(at @ at)
    if freedom < LEAST_FREEDOM or not spread:
        return None
    rise = float(at @ value) / spread
    noise = float(np.sum((value - rise * at) ** 2)) / freedom
    margin = _t95(freedom) * (noise / spread) ** 0.5
    return Slope(*(SECONDS_AN_HOUR * x for x in (rise, rise - margin, rise + margin)))


def _around_mean(points: Points) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    at, value = np.asarray(points, np.float64).T
    return at - at.mean(), value - value.mean()


def _t95(freedom: int) -> float:
    """Student's t, expanded around the normal distribution.

    Source: Abramowitz and Stegun, "Handbook of Mathematical Functions", 26.7.5.
    """
    first = (Z95**3 + Z95) / (4 * freedom)
    second = (5 * Z95**5 + 16 * Z95**3 + 3 * Z95) / (96 * freedom**2)
    return Z95 + first + second


def last_part(points: Points, share: float, began: float, ended: float) -> Points:
    """What was sampled in the last `share` of the time from `began` to `ended`."""
    first = ended - share * (ended - began)
    return [point for point in points if point[0] >= first]
