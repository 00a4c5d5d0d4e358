"""Tables as pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.figures import quantile

SHARES = (0.5, 0.95, 0.99)


def plot_streams(levels: Sequence[Mapping[str, Any]], title: str, path: Path) -> None:
    """Streams against the delay of final text, CPU and memory. The suffix of `path` tells the
    format."""
    import matplotlib as mpl  # noqa: PLC0415

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    streams = [level["streams"] for level in levels]
    figure, (delays, cores, memory) = plt.subplots(3, sharex=True, figsize=(7, 8))
    for share in SHARES:
        found = [quantile(level["final_s"], share) for level in levels]
        _draw(delays, streams, found, f"p{100 * share:.0f}")
    delays.set_ylabel("delay of final text, s")
    _draw(cores, streams, [level["cores"] for level in levels], "service")
    _draw(cores, streams, [level["generator_cores"] for level in levels], "generator of the load")
    cores.set_ylabel("cores")
    _draw(memory, streams, [level["memory_mib"] for level in levels], "service")
    memory.set_ylabel("memory, MiB")
    memory.set_xlabel("live streams")
    for axes in (delays, cores, memory):
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.set_ylim(0, 1.1 * max(axes.dataLim.ymax, 0.1))
            axes.legend()
    figure.suptitle(title, fontsize=9)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


def _draw(axes: Any, streams: Sequence[int], values: Sequence[float | None], name: str) -> None:
    """Where there is a value; a quantile of too few samples has none."""
    known = [(x, y) for x, y in zip(streams, values, strict=True) if y is not None]
    if known:
        axes.plot(*zip(*known, strict=True), marker="o", label=name)
