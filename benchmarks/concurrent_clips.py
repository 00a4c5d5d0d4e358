"""Clips of five seconds over HTTP, many at once: throughput and latency.

    .venv/bin/python -m benchmarks.concurrent_clips --corpus ../shared/audio --concurrency 1,64,512

So many clients, each of which asks again as soon as it is answered. Who is refused with 503 waits
as long as `Retry-After` says before it asks again. Latencies are of clips that were transcribed;
where some were unfinished when the time was up, the slowest are missing in them.
With `--baseline` the design that this service took the place of is asked instead.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import sys
import time
import wave
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

import aiohttp

from benchmarks.corpus import Recording, read_corpus
from benchmarks.figures import heading, machine, quantile, row, shown, write_json
from benchmarks.load import (
    Meter,
    Used,
    add_service,
    allow_many_sockets,
    asked_service,
    numbers,
    run,
)
from benchmarks.processes import Service, free_port, started
from whisper_serve.audio.pcm import SAMPLE_RATE, to_samples

CLIP_S = 5.0
BOUNDARY = "a-boundary-that-is-in-no-clip"
FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
# What a client waits that failed or was refused and was not told how long.
UNTOLD_S = 1.0
ERROR_CHARS = 200
LEAST_REQUESTS, REQUESTS_EACH = 60, 4
SHARES = (0.5, 0.9, 0.95, 0.99)
COLUMNS = (
    "clients", "asked", "ok", "503", "without Retry-After", "other", "unfinished", "clips / s",
    "audio s / s", *(f"p{100 * share:.0f}, s" for share in SHARES), "max, s", "CPU s / audio s",
    "generator: cores",
)  # fmt: skip


@dataclass(slots=True)
class Level:
    """What `clients` clients met. `asked` counts refused attempts too; `other`: by name."""

    clients: int
    asked: int = 0
    latencies_s: list[float] = field(default_factory=list)
    refused: int = 0
    untold: int = 0
    other: Counter[str] = field(default_factory=Counter)
    unfinished: int = 0
    used: Used | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """No more than `requests` attempts, none after `seconds`; answers are then awaited for
    `patience_s`."""

    requests: int
    seconds: float
    patience_s: float


class Clients:
    """Clients that share a count of what is still to be asked."""

    def __init__(self, url: str, bodies: Sequence[bytes], level: Level, limits: Limits) -> None:
        self._url = f"{url}/transcribe"
        self._bodies = cycle(bodies)
        self._level = level
        self._limits = limits
        self._last_at = time.monotonic() + limits.seconds

    async def run(self) -> None:
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            tasks = [asyncio.create_task(self._client(session)) for _ in range(self._level.clients)]
            patience_s = self._limits.seconds + self._limits.patience_s
            done, late = await asyncio.wait(tasks, timeout=patience_s)
            self._level.unfinished = len(late)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
            for task in done:
                task.result()

    async def _client(self, session: aiohttp.ClientSession) -> None:
        while self._level.asked < self._limits.requests and time.monotonic() < self._last_at:
            self._level.asked += 1
            try:
                pause_s = await self._ask(session)
            except (aiohttp.ClientError, OSError) as exc:
                self._level.other[type(exc).__name__] += 1
                pause_s = UNTOLD_S
            left_s = max(0.0, self._last_at - time.monotonic())
            await asyncio.sleep(min(pause_s, left_s))

    async def _ask(self, session: aiohttp.ClientSession) -> float:
        """One attempt; returns how long to wait until the next."""
        level, began = self._level, time.monotonic()
        async with session.post(self._url, data=next(self._bodies), headers=FORM) as answer:
            body = await answer.text()
        if answer.ok:
            level.latencies_s.append(time.monotonic() - began)
            return 0.0
        if answer.status != 503:
            level.other[f"{answer.status} {body[:ERROR_CHARS]}"] += 1
            return UNTOLD_S
        level.refused += 1
        if (told_s := retry_after_s(answer.headers.get("Retry-After"))) is None:
            level.untold += 1
            return UNTOLD_S
        return told_s


def retry_after_s(header: str | None) -> float | None:
    """Whole seconds, at least one; None for a header that says nothing of the kind."""
    if header is None or not header.isdecimal() or int(header) < 1:
        return None
    return float(header)


async def run_level(
    service: Service, bodies: Sequence[bytes], clients: int, limits: Limits
) -> Level:
    """One clip alone first: what was left of an earlier level is done then."""
    alone = Limits(requests=1, seconds=1.0, patience_s=600.0)
    await Clients(service.url, bodies, Level(clients=1), alone).run()
    level = Level(clients)
    meter = Meter(service)
    await Clients(service.url, bodies, level, limits).run()
    level.used = meter.read()
    return level


def show(level: Level) -> str:
    assert level.used is not None
    used, ok = level.used, len(level.latencies_s)
    cost = used.cpu_s / (ok * CLIP_S) if used.cpu_s is not None and ok else None
    return row(
        [
            level.clients,
            level.asked,
            ok,
            level.refused,
            level.untold,
            level.other.total(),
            level.unfinished,
            f"{ok / used.seconds:.2f}",
            f"{ok * CLIP_S / used.seconds:.1f}",
            *(shown(quantile(level.latencies_s, share)) for share in SHARES),
            shown(max(level.latencies_s, default=None)),
            shown(cost, 3),
            shown(used.own_cores),
        ]
    )


def clip_bodies(recordings: Sequence[Recording]) -> list[bytes]:
    """The recordings in pieces of `CLIP_S`, each a whole form with a WAV file in it."""
    length = to_samples(CLIP_S)
    return [
        form_with(wav(samples[at : at + length].tobytes()))
        for samples in (recording.samples() for recording in recordings)
        for at in range(0, len(samples) - length + 1, length)
    ]


def wav(pcm: bytes) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(SAMPLE_RATE)
        writer.writeframes(pcm)
    return file.getvalue()


def form_with(file: bytes) -> bytes:
    """Made once a clip and not once a request, so that the generator has little to do."""
    head = (
        f"--{BOUNDARY}\r\n"
        'Content-Disposition: form-data; name="file"; filename="clip.wav"\r\n'
        "Content-Type: audio/wav\r\n\r\n"
    )
    return b"".join([head.encode(), file, f"\r\n--{BOUNDARY}--\r\n".encode()])


@contextmanager
def baseline(options: argparse.Namespace) -> Iterator[Service]:
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.baseline_service", "--port", str(port)]
    command += ["--model", options.model, "--model-dir", str(options.model_dir.resolve())]
    with started(command, port) as service:
        yield service


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add_service(parser)
    parser.add_argument("--baseline", action="store_true", help="ask the old design instead")
    parser.add_argument("--model", default="base", help="of the baseline")
    parser.add_argument("--model-dir", type=Path, default=Path("models"))
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument(
        "--concurrency", type=numbers, default=[1, 4, 16, 64, 256, 512], metavar="N,N,..."
    )
    parser.add_argument(
        "--requests",
        type=int,
        help=f"of each level (default: {REQUESTS_EACH} a client, at least {LEAST_REQUESTS})",
    )
    parser.add_argument("--seconds", type=float, default=120.0, help="no more is asked after them")
    parser.add_argument(
        "--patience", type=float, default=120.0, help="seconds to wait then for answers"
    )
    parser.add_argument("--json", type=Path, help="keep all latencies")
    return parser.parse_args()


def limits_of(options: argparse.Namespace, clients: int) -> Limits:
    requests = options.requests or max(LEAST_REQUESTS, REQUESTS_EACH * clients)
    return Limits(requests, options.seconds, options.patience)


def main() -> None:
    options = arguments()
    allow_many_sockets()
    bodies = clip_bodies(read_corpus(options.corpus, "long"))
    levels = []
    with baseline(options) if options.baseline else asked_service(options, {}) as service:
        engine = service.engine()
        print(f"{engine}; {machine()}; clips of {CLIP_S:g} s, closed loop\n")
        print(heading(COLUMNS))
        for clients in options.concurrency:
            level = run(run_level(service, bodies, clients, limits_of(options, clients)))
            levels.append(level)
            print(show(level), flush=True)
            if level.other:
                print(f"{clients} clients: {dict(level.other)}", file=sys.stderr)
    write_json(options.json, {"engine": engine, "levels": levels})


if __name__ == "__main__":
    main()
