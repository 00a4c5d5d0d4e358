"""Twice as many streams as there is room for: do those that were admitted notice?

    .venv/bin/python -m benchmarks.overload --corpus ../shared/audio --streams 16

`--streams` is the capacity C; without it, it is found: the most streams, all admitted, whose
`final` messages come within `--delay` seconds in 95 of 100 cases. Then C and 2C streams are
offered to the same service, each at its own time within `--spread` seconds, and at the same time
clients that post files one after the other, as many in the first level and twice as many in the
second. A client that is refused goes away; one that posts files asks again when it was told to.

- *final*: as in `benchmarks.live_streams`, of admitted streams.
- *refused in*: from asking to the answer 503 or 429, in milliseconds. The upload of a file is
  part of it.

The last lines are the second level divided by the first, from one run.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from websockets.exceptions import InvalidStatus, WebSocketException

from benchmarks.concurrent_clips import FORM, clip_bodies, retry_after_s
from benchmarks.corpus import Recording, read_corpus
from benchmarks.delays import Sent
from benchmarks.figures import heading, machine, quantile, row, shown, shown_quantiles, write_json
from benchmarks.live_streams import Manner, Stream, findings, opened, said_by, streamed
from benchmarks.load import add_service, allow_many_sockets, asked_service, run
from benchmarks.processes import Service
from whisper_serve.audio.pcm import SAMPLE_RATE

Said = Sequence[tuple[Recording, Sequence[bytes]]]
REFUSALS = (429, 503)
FIRST_GUESS = 2
MOST_STREAMS = 512
ENGINES_REST_S = 5.0
UNTOLD_S = 1.0
COLUMNS = (
    "offered", "admitted", "failed", "finals", "final p50 / p95 / max, s", "refused",
    "refused in p50 / p95 / max, ms", "file clients", "files", "file p50 / p95, s",
    "files refused", "refused in p50 / p95 / max, ms",
)  # fmt: skip


@dataclass(slots=True)
class Level:
    """What `offered` streams and `clients` that post files met; all times in seconds."""

    offered: int
    clients: int
    admitted: int = 0
    finals_s: list[float] = field(default_factory=list)
    refused_s: list[float] = field(default_factory=list)
    files_s: list[float] = field(default_factory=list)
    files_refused_s: list[float] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)

    def is_within(self, delay_s: float) -> bool:
        """Whether all were admitted, none failed, and text came in time."""
        p95 = quantile(self.finals_s, 0.95)
        return not (self.refused_s or self.faults) and p95 is not None and p95 <= delay_s

    def show(self) -> str:
        return row(
            [
                self.offered,
                self.admitted,
                self.faults.total(),
                len(self.finals_s),
                f"{shown_quantiles(self.finals_s, (0.5, 0.95))} / {_longest(self.finals_s)}",
                len(self.refused_s),
                _in_ms(self.refused_s),
                self.clients,
                len(self.files_s),
                shown_quantiles(self.files_s, (0.5, 0.95)),
                len(self.files_refused_s),
                _in_ms(self.files_refused_s),
            ]
        )


def _longest(values: Sequence[float]) -> str:
    return shown(max(values, default=None))


def _in_ms(seconds: Sequence[float]) -> str:
    values = [1000 * value for value in seconds]
    return f"{shown_quantiles(values, (0.5, 0.95), 0)} / {shown(max(values, default=None), 0)}"


def ratio(overloaded: Sequence[float], full: Sequence[float], share: float) -> float | None:
    """Of two quantiles; None where one of them cannot be told, or is nothing."""
    above, below = quantile(overloaded, share), quantile(full, share)
    return above / below if above is not None and below else None


class Offer:
    """Streams and files offered to `service` at one level."""

    def __init__(self, service: Service, said: Said, manner: Manner, level: Level) -> None:
        self._service, self._said, self._manner = service, said, manner
        self._level = level
        self._streams: list[Stream] = []

    async def run(self, bodies: Sequence[bytes]) -> Level:
        manner, count = self._manner, self._level.offered
        began = time.monotonic()
        arrivals = [began + manner.spread_s * number / count for number in range(count)]
        until = began + manner.spread_s + manner.length_s
        asking = [self._file_client(bodies, n, until) for n in range(self._level.clients)]
        await asyncio.gather(*(self._arrive(n, at) for n, at in enumerate(arrivals)), *asking)
        self._level.finals_s = findings(self._streams)["final_s"]
        return self._level

    async def _arrive(self, number: int, at: float) -> None:
        await asyncio.sleep(at - time.monotonic())
        asked_at, level = time.monotonic(), self._level
        try:
            socket = await opened(self._service, self._manner)
        except InvalidStatus as exc:
            if exc.response.status_code in REFUSALS:
                level.refused_s.append(time.monotonic() - asked_at)
            else:
                level.faults[f"stream {exc.response.status_code}"] += 1
            return
        except (WebSocketException, OSError, asyncio.TimeoutError) as exc:
            level.faults[f"stream {exc!r}"] += 1
            return
        level.admitted += 1
        said = self._said[number % len(self._said)]
        stream = Stream(*said, Sent(time.monotonic(), self._manner.piece))
        self._streams.append(stream)
        await streamed(stream, socket, self._manner)
        if stream.fault:
            level.faults[f"stream {stream.fault}"] += 1

    async def _file_client(self, bodies: Sequence[bytes], number: int, until: float) -> None:
        timeout = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while time.monotonic() < until:
                pause_s = await self._post(session, bodies[number % len(bodies)])
                number += self._level.clients
                await asyncio.sleep(min(pause_s, max(0.0, until - time.monotonic())))

    async def _post(self, session: aiohttp.ClientSession, body: bytes) -> float:
        """One file; returns how long to wait until the next."""
        began, level = time.monotonic(), self._level
        url = f"{self._service.url}/transcribe"
        try:
            async with session.post(url, data=body, headers=FORM) as answer:
                await answer.read()
        except (aiohttp.ClientError, OSError) as exc:
            level.faults[f"file {type(exc).__name__}"] += 1
            return UNTOLD_S
        took_s = time.monotonic() - began
        if answer.ok:
            level.files_s.append(took_s)
            return 0.0
        if answer.status in REFUSALS:
            level.files_refused_s.append(took_s)
        else:
            level.faults[f"file {answer.status}"] += 1
        return retry_after_s(answer.headers.get("Retry-After")) or UNTOLD_S


Try = Callable[[int], Awaitable[bool]]


async def capacity(fits: Try, most: int) -> int:
    """The largest number that `fits`, found by doubling and then by halving; 0 for none."""
    good, bad = 0, FIRST_GUESS
    while bad <= most and await fits(bad):
        good, bad = bad, 2 * bad
    bad = min(bad, most + 1)
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if await fits(middle) else (good, middle)
    return good


async def found(service: Service, said: Said, manner: Manner, options: argparse.Namespace) -> int:
    async def fits(count: int) -> bool:
        level = await Offer(service, said, manner, Level(count, 0)).run([])
        print(level.show(), flush=True)
        await asyncio.sleep(ENGINES_REST_S)
        return level.is_within(options.delay)

    return await capacity(fits, MOST_STREAMS)


async def measured(
    service: Service, said: Said, manner: Manner, options: argparse.Namespace
) -> list[Level]:
    """The level at capacity and the one beyond."""
    print(heading(COLUMNS))
    count = options.streams or await found(service, said, manner, options)
    bodies = clip_bodies([recording for recording, _ in said])
    levels = []
    for times in (1, options.times):
        level = Level(max(1, round(times * count)), round(times * options.files))
        await Offer(service, said, manner, level).run(bodies)
        levels.append(level)
        print(level.show(), flush=True)
        for fault, number in level.faults.items():
            print(f"{level.offered} streams: {number} x {fault}", file=sys.stderr)
        await asyncio.sleep(ENGINES_REST_S)
    return levels


def compared(full: Level, overloaded: Level) -> str:
    """The second level divided by the first."""
    admitted = (f"{level.admitted} of {level.offered}" for level in (full, overloaded))
    lines = [f"admitted: {', then '.join(admitted)}"]
    for name, share in (("p50", 0.5), ("p95", 0.95)):
        streams = shown(ratio(overloaded.finals_s, full.finals_s, share))
        files = shown(ratio(overloaded.files_s, full.files_s, share))
        lines.append(f"{name}: finals {streams} times, files {files} times")
    return "\n".join(lines)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add_service(parser)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--model", default="base", help="of a service that is started here")
    parser.add_argument("--streams", type=int, help="the capacity (default: it is found)")
    parser.add_argument("--delay", type=float, default=3.0, help="p95 of finals that is in time")
    parser.add_argument("--times", type=float, default=2.0, help="how far beyond the capacity")
    parser.add_argument("--seconds", type=float, default=40.0, help="length of each stream")
    parser.add_argument("--spread", type=float, default=20.0, help="seconds of arrivals")
    parser.add_argument("--files", type=int, default=2, help="clients that post files")
    parser.add_argument("--room", type=int, help="streaming.max_sessions (default: as configured)")
    parser.add_argument("--patience", type=float, default=120.0)
    parser.add_argument("--json", type=Path, help="keep all delays")
    return parser.parse_args()


def settings_of(options: argparse.Namespace) -> Mapping[str, object]:
    settings: dict[str, Any] = {"model.size": options.model}
    if options.room:
        settings["streaming.max_sessions"] = options.room
    # All clients are on this machine.
    return {**settings, "streaming.max_sessions_per_client": options.room or MOST_STREAMS}


def main() -> None:
    options = arguments()
    allow_many_sockets()
    config = {"language": "en", "policy": "chunk", "chunk_duration": 5.0, "interim": False}
    piece = SAMPLE_RATE // 10
    manner = Manner(config, options.seconds, piece, options.spread, options.patience)
    said = said_by(read_corpus(options.corpus, "long"), manner)
    with asked_service(options, settings_of(options)) as service:
        engine = service.engine()
        print(f"{engine}; {machine()}; streams of {options.seconds:g} s, {config}\n")
        full, overloaded = run(measured(service, said, manner, options))
    print(f"\n{compared(full, overloaded)}")
    write_json(options.json, {"engine": engine, "levels": [full, overloaded]})


if __name__ == "__main__":
    main()
