"""Curves as pictures."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Points = Sequence[tuple[float, float | None]]
WIDTH_IN, HEIGHT_IN = 8.0, 2.6


@dataclass(frozen=True, slots=True)
class Chart:
    """`curves` by name; a point without a value is left out. `dots`: curves that are drawn as
    points, because nothing lies between them; `stairs`: those that stay until they change."""

    title: str
    x_label: str
    y_label: str
    curves: Mapping[str, Points]
    dots: frozenset[str] = frozenset()
    stairs: frozenset[str] = frozenset()


def drawn(charts: Sequence[Chart]) -> str:
    """One below the other, as an `<svg>` element."""
    file = io.StringIO()
    _draw_into(file, charts, "svg")
    text = file.getvalue()
    return text[text.index("<svg") :]


def draw_to(path: Path, charts: Sequence[Chart]) -> None:
    """The suffix of `path` tells the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _draw_into(path, charts, path.suffix.removeprefix("."))


def _draw_into(file: Any, charts: Sequence[Chart], form: str) -> None:
    import matplotlib as mpl  # noqa: PLC0415

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    height = HEIGHT_IN * len(charts)
    figure, grid = plt.subplots(len(charts), squeeze=False, figsize=(WIDTH_IN, height))
    for chart, axes in zip(charts, grid[:, 0], strict=True):
        _draw(axes, chart)
    figure.tight_layout()
    figure.savefig(file, format=form)
    plt.close(figure)


def _style(chart: Chart, name: str) -> dict[str, Any]:
    if name in chart.dots:
        return {"marker": "o", "linestyle": "", "markersize": 2}
    return {"drawstyle": "steps-post"} if name in chart.stairs else {"marker": "o"}


def _draw(axes: Any, chart: Chart) -> None:
    for name, points in chart.curves.items():
        known = [(x, y) for x, y in points if y is not None]
        if known:
            axes.plot(*zip(*known, strict=True), label=name, **_style(chart, name))
    axes.set(title=chart.title, xlabel=chart.x_label, ylabel=chart.y_label)
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.set_ylim(0, 1.1 * max(axes.dataLim.ymax, 0.01))
        axes.legend()
