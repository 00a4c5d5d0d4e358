"""Mixed load for a long time: does memory, do threads or open files grow?

    .venv/bin/python -m benchmarks.soak --corpus ../shared/audio --minutes 20

Live streams in all dialects that end, break off or are cut and resumed, files, jobs where the
service has them, and what nobody can use, all at once. Every few seconds each process of the
service is looked at.

- *MiB/h*: growth of the memory that only such a process holds (USS), by least squares over the
  last two thirds of the time, with the interval that holds it in 95 of 100 cases. A process that
  was started again has a level of its own.
- *threads/h*, *files/h*: the same of threads and open files.

Exit code 1 when the memory of one kind of process grows by more than `--bound` MiB/h (and surely
not by nothing), or when something happened that never should: an answer of 500, a stream that
ended with 1011, a job that was lost. Short runs only show that processes warm up: measure at
least 20 minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import httpx

from benchmarks.corpus import read_corpus
from benchmarks.family import Sample, samples
from benchmarks.figures import heading, machine, row, shown, write_json
from benchmarks.load import add_service, allow_many_sockets, asked_service, run
from benchmarks.processes import ProcessTree, Service
from benchmarks.relay import Relay, relayed
from benchmarks.slopes import Points, Slope, last_part, slope
from benchmarks.traffic import (
    DIALECTS,
    FILE_REQUESTS,
    JobDesk,
    Speech,
    Tally,
    Work,
    heard,
    http_client,
    post_file,
    send_nonsense,
    speak,
    talk_nonsense,
    until,
)

JUDGED_SHARE = 2 / 3
# What happens to a stream of a dialect: most end, others break off.
BREAKS_OFF = 0.3
CUT_EVERY_S = 5.0
NONSENSE_EVERY_S = 0.3
REFUSED_PAUSE_S = 1.0
JOB_PATIENCE_S = 300.0
COLUMNS = (
    "process", "how many", "RSS, MiB", "USS, MiB first / last", "MiB/h (95 %)", "threads",
    "threads/h", "files", "files/h",
)  # fmt: skip


class Soak:
    """All the clients, and what they noted."""

    def __init__(self, service: Service, speech: Speech, http: httpx.AsyncClient) -> None:
        self._url = service.url
        self._speech = speech
        self._chance = speech.chance
        self._http = http
        self._desk = JobDesk(http)
        self.tally = Tally()

    async def run(self, options: argparse.Namespace) -> None:
        deadline = time.monotonic() + 60 * options.minutes
        async with relayed(self._url, self._chance) as (relay, url):
            works: list[Work] = [self._dialect] * options.streams
            works += [lambda: self._resumed(url)] * options.resumed
            works += [self._file] * options.files + [self._nonsense] * options.bad
            if await self._desk.is_open():
                works += [self._job] * options.jobs
            cutting = asyncio.create_task(self._cut(relay))
            try:
                await asyncio.gather(*(until(deadline, work) for work in works))
            finally:
                cutting.cancel()

    async def _cut(self, relay: Relay) -> None:
        while True:
            await asyncio.sleep(CUT_EVERY_S * self._chance.uniform(0.5, 1.5))
            if relay.cut():
                self.tally.note("connection", "cut")

    async def _dialect(self) -> None:
        name = self._chance.choice(list(DIALECTS))
        vanish = self._chance.random() < BREAKS_OFF
        samples = self._speech.piece(3.0, 15.0)
        outcome = await speak(self._url, DIALECTS[name], samples, vanish=vanish)
        await self._noted(f"{name} stream", outcome, well=outcome in {"ended", "broken off"})

    async def _resumed(self, url: str) -> None:
        result = await heard(url, self._speech.piece(15.0, 40.0), interim=True)
        outcome = "whole" if result.is_done else result.fault
        if result.is_done and result.reconnections:
            outcome = "whole after resuming"
        await self._noted("own client", outcome, well=result.is_done)

    async def _file(self) -> None:
        path = self._chance.choice(list(FILE_REQUESTS))
        outcome = await post_file(self._http, path, self._speech.piece(2.0, 40.0))
        await self._noted(f"POST {path}", outcome, well=outcome == "200")

    async def _job(self) -> None:
        outcome = await self._desk.submit(self._speech.piece(2.0, 40.0))
        await self._noted("POST /v1/jobs", outcome, well=outcome == "202")
        for job_id in list(self._desk.acknowledged):
            ended = await self._desk.outcome(job_id, JOB_PATIENCE_S)
            self.tally.note("job", ended, wrong=ended != "succeeded")
            await self._desk.delete(job_id)

    async def _nonsense(self) -> None:
        await asyncio.sleep(NONSENSE_EVERY_S * self._chance.random())
        if self._chance.random() < 0.5:
            outcome = await talk_nonsense(self._url, self._chance)
            wrong = outcome in {"closed 1011", "closed 1006"}
            self.tally.note("nonsense on a socket", outcome, wrong=wrong)
        else:
            outcome = await send_nonsense(self._http, self._chance)
            self.tally.note("nonsense", outcome, wrong=not outcome.startswith(("4", "503")))

    async def _noted(self, work: str, outcome: str, *, well: bool) -> None:
        refused = outcome.startswith(("503", "429", "refused 503", "refused 429"))
        self.tally.note(work, outcome, wrong=not (well or refused))
        if not well:
            await asyncio.sleep(REFUSED_PAUSE_S)


async def watched(tree: ProcessTree, every_s: float, seen: list[Sample]) -> None:
    while True:
        seen += await asyncio.to_thread(samples, tree)
        await asyncio.sleep(every_s)


async def soak(service: Service, speech: Speech, options: argparse.Namespace) -> Verdict:
    seen: list[Sample] = []
    watching = None
    if service.tree is not None:
        watching = asyncio.create_task(watched(service.tree, options.every, seen))
    async with http_client(service.url) as http:
        work = Soak(service, speech, http)
        try:
            await work.run(options)
        finally:
            if watching is not None:
                watching.cancel()
    return Verdict(work.tally, seen, options.bound)


class Verdict:
    """What a run showed."""

    def __init__(self, tally: Tally, seen: Sequence[Sample], bound: float) -> None:
        self.tally, self.seen, self._bound = tally, seen, bound
        self.kinds = sorted({sample.kind for sample in seen})
        self._began = min((sample.at for sample in seen), default=0.0)
        self._ended = max((sample.at for sample in seen), default=0.0)

    def growth(self, kind: str, what: str) -> Slope | None:
        """Of a field of `Sample`, in an hour."""
        lines: dict[int, list[tuple[float, float]]] = defaultdict(list)
        for sample in self.seen:
            if sample.kind == kind:
                lines[sample.pid].append((sample.at, float(getattr(sample, what))))
        return slope(self._judged(line) for line in lines.values())

    def _judged(self, line: Points) -> Points:
        return last_part(line, JUDGED_SHARE, self._began, self._ended)

    @property
    def growing(self) -> list[str]:
        found = ((kind, self.growth(kind, "uss_mib")) for kind in self.kinds)
        return [kind for kind, grown in found if grown and grown.is_above(self._bound)]

    @property
    def exit_code(self) -> int:
        return int(bool(self.growing or self.tally.wrong))

    def rows(self) -> list[str]:
        return [row(self._cells(kind)) for kind in self.kinds]

    def _cells(self, kind: str) -> list[object]:
        of_kind = [sample for sample in self.seen if sample.kind == kind]
        last = [sample for sample in of_kind if sample.at > self._ended - 30] or of_kind[-1:]
        newest = list({sample.pid: sample for sample in last}.values())
        return [
            kind,
            len({sample.pid for sample in of_kind}),
            shown(sum(sample.rss_mib for sample in newest), 0),
            f"{of_kind[0].uss_mib:.0f} / {newest[-1].uss_mib:.0f}",
            self.growth(kind, "uss_mib") or "-",
            sum(sample.threads for sample in newest),
            self.growth(kind, "threads") or "-",
            sum(sample.files for sample in newest),
            self.growth(kind, "files") or "-",
        ]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add_service(parser)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--model", default="tiny.en", help="of a service that is started here")
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--every", type=float, default=5.0, help="seconds between two looks")
    parser.add_argument("--bound", type=float, default=20.0, help="growth in MiB/h that fails")
    parser.add_argument("--streams", type=int, default=4, help="at once, of any dialect")
    parser.add_argument("--resumed", type=int, default=2, help="at once, of our client, and cut")
    parser.add_argument("--files", type=int, default=1, help="clients one file after the other")
    parser.add_argument("--jobs", type=int, default=1, help="clients one job after the other")
    parser.add_argument("--bad", type=int, default=1, help="clients that send nonsense")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="keep all samples and counts")
    return parser.parse_args()


def report(verdict: Verdict) -> None:
    print(heading(COLUMNS))
    print("\n".join(verdict.rows()))
    print(f"\n{heading(('work', 'ended', 'times'))}")
    for (work, outcome), times in sorted(verdict.tally.counts.items()):
        print(row((work, outcome, times)))
    for (work, outcome), times in sorted(verdict.tally.wrong.items()):
        print(row((work, f"WRONG: {outcome}", times)))
    for kind in verdict.growing:
        print(f"{kind} grows faster than it may", file=sys.stderr)


def main() -> int:
    options = arguments()
    allow_many_sockets()
    chance = random.Random(options.seed)  # noqa: S311
    recordings = [recording.samples() for recording in read_corpus(options.corpus, "long")]
    with asked_service(options, {"model.size": options.model}) as service:
        print(f"{service.engine()}; {machine()}; {options.minutes:g} minutes\n", flush=True)
        verdict = run(soak(service, Speech(recordings, chance), options))
    report(verdict)
    wrong = {" ".join(key): times for key, times in verdict.tally.wrong.items()}
    counts = {" ".join(key): times for key, times in verdict.tally.counts.items()}
    write_json(options.json, {"counts": counts, "wrong": wrong, "samples": verdict.seen})
    return verdict.exit_code


if __name__ == "__main__":
    sys.exit(main())
