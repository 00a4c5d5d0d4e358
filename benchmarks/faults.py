"""Kill the service's processes one by one, and see what clients lose.

    .venv/bin/python -m benchmarks.faults --corpus ../shared/audio --rounds 3

The service is started here. In each round some live streams of our own client, which resumes,
are spoken at once, clients post files and hand in jobs, and one process of one kind is ended with
SIGKILL in the middle. What cannot heal by itself (the driver, the node) is started again at the
same address, as an init system would do it. Then every stream's text is compared word by word
with what the same audio gave undisturbed, and every job that was acknowledged has to be done and
to say what it should.

- *interrupted*: streams that had to connect again; *whole*: those that ended with all their
  words, each once; *missing / doubled / other*: words of all streams, see
  `benchmarks.word_diffs`. Under load a word may be heard differently, since windows then differ.
- *jobs lost*: acknowledged and gone, failed, or without their words.
- *well after*: seconds from the death to `/health` 200 with the process back; *started again*:
  how often that needed a new start.

Exit code 1 when anything that was acknowledged is lost: a job, or words of a stream.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.corpus import read_corpus
from benchmarks.family import CONTROLLER, DRIVER, ENGINE, GCS, INGRESS, JOBS, PROXY, RAYLET
from benchmarks.figures import heading, machine, row, shown, write_json
from benchmarks.load import allow_many_sockets, run
from benchmarks.restarts import Kept, kept
from benchmarks.traffic import JobDesk, heard, http_client, post_file
from benchmarks.word_diffs import WordDiff, word_diff
from whisper_serve.audio.pcm import Samples, to_samples
from whisper_serve.config import Config

KINDS = {
    "engine": ENGINE,
    "ingress": INGRESS,
    "proxy": PROXY,
    "controller": CONTROLLER,
    "jobs": JOBS,
    "driver": DRIVER,
    "raylet": RAYLET,
    "gcs": GCS,
}
STREAM_CONFIG: dict[str, Any] = {"language": "en", "policy": "chunk"}
FILE_S = 8.0
PAUSE_S = 1.0
JOB_PATIENCE_S = 300.0
COLUMNS = (
    "killed", "rounds", "streams", "interrupted", "whole", "missing / doubled / other of words",
    "jobs", "jobs lost", "files", "files failed", "well after, s (each)", "started again",
)  # fmt: skip


@dataclass(slots=True)
class Losses:
    """What the deaths of one kind of process cost."""

    kind: str
    rounds: int = 0
    streams: int = 0
    interrupted: int = 0
    whole: int = 0
    words: WordDiff = field(default_factory=WordDiff)
    stream_faults: Counter[str] = field(default_factory=Counter)
    jobs: int = 0
    jobs_lost: Counter[str] = field(default_factory=Counter)
    files: Counter[str] = field(default_factory=Counter)
    healed_s: list[float] = field(default_factory=list)
    starts: int = 0

    @property
    def is_lossless(self) -> bool:
        """Whether all that was acknowledged is there."""
        return not self.jobs_lost and self.whole == self.streams

    def show(self) -> str:
        words, failed = self.words, Counter(self.files)
        done = failed.pop("200", 0)
        return row(
            [
                self.kind,
                self.rounds,
                self.streams,
                self.interrupted,
                self.whole,
                f"{words.missing} / {words.doubled} / {words.other} of {words.words}",
                self.jobs,
                _told(self.jobs_lost),
                done,
                _told(failed),
                ", ".join(shown(healed, 1) for healed in self.healed_s),
                self.starts,
            ]
        )


def _told(counts: Counter[str]) -> str:
    return ", ".join(f"{times} x {what}" for what, times in sorted(counts.items())) or "0"


@dataclass(frozen=True, slots=True)
class Reference:
    """Audio, and what it gives when nothing disturbs."""

    samples: Samples
    text: str


class Round:
    """One death under load."""

    def __init__(
        self,
        service: Kept,
        losses: Losses,
        streams: Sequence[Reference],
        files: Sequence[Reference],
    ) -> None:
        self._service, self._losses = service, losses
        self._streams, self._files = streams, files
        self._url = service.service.url
        self._over = asyncio.Event()

    async def run(self, at_s: float, n_file_clients: int, n_job_clients: int) -> None:
        """`at_s` seconds after the streams began, one dies."""
        async with http_client(self._url) as http:
            desk = JobDesk(http)
            has_jobs = n_job_clients and await desk.is_open()
            load = [self._post_files(n) for n in range(n_file_clients)]
            load += [self._hand_in(desk, n) for n in range(n_job_clients if has_jobs else 0)]
            loading = asyncio.gather(*load)
            streaming = asyncio.gather(*(self._stream(reference) for reference in self._streams))
            await asyncio.sleep(at_s)
            await asyncio.to_thread(self._strike)
            await streaming
            self._over.set()
            await loading
            await self._collect(desk)
        self._losses.rounds += 1

    def _strike(self) -> None:
        starts = self._service.starts
        if self._service.kill(self._losses.kind):
            self._losses.healed_s.append(self._service.heal(self._losses.kind))
            self._losses.starts += self._service.starts - starts

    async def _stream(self, reference: Reference) -> None:
        losses = self._losses
        result = await heard(self._url, reference.samples, **STREAM_CONFIG)
        diff = word_diff(reference.text, result.text)
        losses.streams += 1
        losses.interrupted += bool(result.reconnections)
        losses.whole += result.is_done and diff.is_whole
        losses.words += diff
        if result.fault:
            losses.stream_faults[result.fault] += 1

    async def _post_files(self, number: int) -> None:
        async with http_client(self._url) as http:
            while not self._over.is_set():
                reference = self._files[number % len(self._files)]
                outcome = await post_file(http, "/transcribe", reference.samples)
                self._losses.files[outcome] += 1
                await asyncio.sleep(PAUSE_S)

    async def _hand_in(self, desk: JobDesk, number: int) -> None:
        while not self._over.is_set():
            reference = self._files[number % len(self._files)]
            await desk.submit(reference.samples, reference.text)
            await asyncio.sleep(PAUSE_S)

    async def _collect(self, desk: JobDesk) -> None:
        """Every job that was acknowledged has to be done."""
        for job_id, expected in list(desk.acknowledged.items()):
            self._losses.jobs += 1
            outcome = await desk.outcome(job_id, JOB_PATIENCE_S)
            if outcome != "succeeded":
                self._losses.jobs_lost[outcome] += 1
            elif not word_diff(expected, await desk.text(job_id)).is_whole:
                self._losses.jobs_lost["without its words"] += 1
            await desk.delete(job_id)


async def streamed_alone(url: str, recordings: Sequence[Samples]) -> list[Reference]:
    """What each gives as a stream while nothing else goes on."""
    return [
        Reference(samples, (await heard(url, samples, **STREAM_CONFIG)).text)
        for samples in recordings
    ]


async def posted_alone(url: str, recordings: Sequence[Samples]) -> list[Reference]:
    """What the beginning of each gives as a job, or else as nothing."""
    references = []
    async with http_client(url) as http:
        desk = JobDesk(http)
        for samples in (recording[: to_samples(FILE_S)] for recording in recordings):
            text = ""
            if await desk.is_open() and await desk.submit(samples) == "202":
                (job_id,) = desk.acknowledged
                await desk.outcome(job_id, JOB_PATIENCE_S)
                text = await desk.text(job_id)
                await desk.delete(job_id)
            references.append(Reference(samples, text))
    return references


async def strike_all(
    service: Kept, recordings: Sequence[Samples], options: argparse.Namespace
) -> list[Losses]:
    chance = random.Random(options.seed)  # noqa: S311
    url = service.service.url
    alone = await streamed_alone(url, recordings)
    files = await posted_alone(url, recordings)
    streams = [alone[number % len(alone)] for number in range(options.streams)]
    found = []
    print(heading(COLUMNS))
    for name in options.kinds:
        losses = Losses(KINDS[name])
        for _ in range(options.rounds):
            at_s = chance.uniform(0.3, 0.7) * options.seconds
            one = Round(service, losses, streams, files)
            await one.run(at_s, options.files, options.jobs)
        print(losses.show(), flush=True)
        for fault, times in losses.stream_faults.items():
            print(f"{losses.kind}: {times} x {fault}", file=sys.stderr)
        found.append(losses)
    return found


def several_of(known: Collection[str]) -> Callable[[str], list[str]]:
    """Reads `engine,ingress` as an argument."""

    def names_of(text: str) -> list[str]:
        names = text.split(",")
        if not set(names) <= set(known):
            raise argparse.ArgumentTypeError(f"known are {', '.join(known)}")
        return names

    return names_of


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--config", type=Path, default=Path("config.json"))
    parser.add_argument("--model", default="tiny.en")
    parser.add_argument("--kinds", type=several_of(KINDS), default=list(KINDS), metavar="KIND,...")
    parser.add_argument("--rounds", type=int, default=3, help="deaths of each kind")
    parser.add_argument("--streams", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=30.0, help="length of each stream")
    parser.add_argument("--files", type=int, default=1, help="clients that post files")
    parser.add_argument("--jobs", type=int, default=1, help="clients that hand in jobs")
    parser.add_argument("--replicas", type=int, default=1, help="of the engine")
    parser.add_argument(
        "--patience", type=float, default=60.0, help="seconds to heal before a new start"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="keep the findings")
    return parser.parse_args()


def settings_of(options: argparse.Namespace, folder: Path) -> dict[str, object]:
    settings: dict[str, object] = {
        "model.size": options.model,
        "deployment.num_replicas": options.replicas,
        "deployment.health_check_period_s": 1.0,
        # However long an answer takes: what is heard must not depend on what else there is to do.
        "streaming.target_answer_s": "null",
    }
    if "jobs" in Config.model_fields:
        settings["jobs.database"] = folder / "jobs.sqlite3"  # of all lives of the service
    return settings


def main() -> int:
    options = arguments()
    allow_many_sockets()
    began = time.monotonic()
    length = to_samples(options.seconds)
    recordings = [one.samples()[:length] for one in read_corpus(options.corpus, "long")]
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        settings = settings_of(options, Path(folder))
        with kept(options.config, settings, options.patience) as service:
            print(f"{service.service.engine()}; {machine()}\n", flush=True)
            losses = run(strike_all(service, recordings[: options.streams], options))
    print(f"\n{time.monotonic() - began:.0f} s")
    write_json(options.json, {"losses": losses})
    return 0 if all(one.is_lossless for one in losses) else 1


if __name__ == "__main__":
    sys.exit(main())
