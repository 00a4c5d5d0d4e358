"""Take machines from a cluster one by one, and see what clients lose.

    .venv/bin/python -m benchmarks.nodes --corpus ../shared/audio --rounds 2

The cluster is all on this machine, see `benchmarks.machines`; clients reach it through a balancer
that looks after the proxies, as one before a cluster does. In each round live streams of our own
client, which resumes, are spoken at once, clients post files, probes ask how the service is, and
a machine is taken away in the middle; when Ray knows it another one joins, as Kubernetes would
bring it. Which machine it is, is by what runs on it, and there are two ways to go: *killed*, its
processes end and its connections are reset; *silent*, it says nothing any more, as when its power
or its network fails, and only time can tell.

Columns are those of `benchmarks.faults`, and

- *noticed after*: seconds until Ray knows that the machine is gone;
- *well after*: until all replicas run elsewhere, three answers of `/readyz` in a row are good and
  the machine is known to be gone;
- *probes*: answers of `/readyz`, `/v1/status` and `/metrics` that were not 200, and the slowest.

Exit code 1 when words of a stream are lost, or a job.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from benchmarks.clusters import Cluster, Machine, balanced, cluster, wait_until
from benchmarks.corpus import read_corpus
from benchmarks.faults import COLUMNS as FAULTS
from benchmarks.faults import Losses, Reference, Round, posted_alone, several_of, streamed_alone
from benchmarks.figures import heading, machine, row, shown, write_json
from benchmarks.load import allow_many_sockets, run
from whisper_serve.audio.pcm import Samples, to_samples

IMPORT_PATH = "whisper_serve.serving.app:build_app"
ENGINE, INGRESS = "WhisperASR", "Ingress"
# A machine with an ingress may have an engine too.
KINDS = ("engine killed", "engine silent", "ingress killed", "ingress silent")
PROBES = ("/readyz", "/v1/status", "/metrics")
PROBE_EVERY_S, PROBE_LIMIT_S = 0.5, 30.0
WELL_TIMES, WELL_LIMIT_S = 3, 180.0
COLUMNS = (*FAULTS[:-1], "noticed after, s (each)", "probes that failed", "slowest probe, s")


@dataclass(slots=True)
class Service:
    """Where it is reached, as `benchmarks.faults` wants it."""

    url: str


@dataclass(slots=True)
class Probes:
    """What those saw who asked how the service is."""

    failed: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0

    async def ask(self, url: str) -> None:
        """For ever, all of them side by side."""
        async with httpx.AsyncClient(base_url=url, timeout=PROBE_LIMIT_S, trust_env=False) as http:
            await asyncio.gather(*(self._ask(http, path) for path in PROBES))

    async def _ask(self, http: httpx.AsyncClient, path: str) -> None:
        while True:
            began = time.monotonic()
            outcome = await _outcome(http, path)
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)
            if outcome != "200":
                self.failed[f"{path} {outcome}"] += 1
            await asyncio.sleep(PROBE_EVERY_S)


async def _outcome(http: httpx.AsyncClient, path: str) -> str:
    try:
        return str((await http.get(path)).status_code)
    except httpx.HTTPError as exc:
        return type(exc).__name__


class Standing:
    """The cluster as the thing that `Round` strikes."""

    starts = 0

    def __init__(self, cluster: Cluster, url: str) -> None:
        self.service = Service(url)
        self.noticed_s: list[float] = []
        self._cluster = cluster
        self._wanted = _count(cluster)

    def kill(self, kind: str) -> bool:
        """Whether there is such a machine."""
        has, _, way = kind.partition(" ")
        victims = self._with(INGRESS if has == "ingress" else ENGINE)
        if victims:
            self._victim = victims[0]
            self._struck_at = time.monotonic()
            self._victim.freeze() if way == "silent" else self._victim.kill()
        return bool(victims)

    def heal(self, _kind: str) -> float:
        """Seconds until all is well. Raises `TimeoutError`."""
        wait_until(lambda: self._victim.name not in self._cluster.alive(), WELL_LIMIT_S)
        self.noticed_s.append(time.monotonic() - self._struck_at)
        self._victim.kill()
        self._cluster.add()
        for _ in range(WELL_TIMES):
            wait_until(self._is_well, WELL_LIMIT_S)
        return time.monotonic() - self._struck_at

    def _with(self, deployment: str) -> list[Machine]:
        """Machines that have it; of those with engines first the ones that have no ingress."""
        has_ingress, wanted = self._cluster.where(INGRESS), self._cluster.where(deployment)
        names = sorted(wanted, key=lambda name: (name in has_ingress, name))
        return [self._cluster.machines[name] for name in names if name != self._cluster.head.name]

    def _is_well(self) -> bool:
        if _count(self._cluster) != self._wanted:
            return False
        if self._victim.name in {each.machine for each in self._cluster.replicas()}:
            return False
        with suppress(httpx.HTTPError):
            url = f"{self._cluster.head.url}/readyz"
            return httpx.get(url, timeout=PROBE_LIMIT_S, trust_env=False).is_success
        return False


def _count(cluster: Cluster) -> Counter[str]:
    return Counter(each.deployment for each in cluster.running())


def show(losses: Losses, probes: Probes, noticed_s: Sequence[float]) -> str:
    failed = ", ".join(f"{times} x {what}" for what, times in sorted(probes.failed.items()))
    own = [", ".join(shown(each, 1) for each in noticed_s), failed or 0, shown(probes.slowest_s, 1)]
    *usual, _starts = losses.show().strip("| ").split(" | ")
    return row([*usual, *own])


@dataclass(frozen=True, slots=True)
class Load:
    """What goes on while a machine is taken, at `url`."""

    url: str
    streams: Sequence[Reference]
    files: Sequence[Reference]
    options: argparse.Namespace

    async def during(self, standing: Any, losses: Losses) -> None:
        chance = random.Random(self.options.seed)  # noqa: S311
        for _ in range(self.options.rounds):
            at_s = chance.uniform(0.3, 0.7) * self.options.seconds
            one = Round(standing, losses, self.streams, self.files)
            await one.run(at_s, self.options.files, self.options.jobs)


async def take_all(
    cluster: Cluster, recordings: Sequence[Samples], options: argparse.Namespace
) -> list[Losses]:
    async with balanced(lambda: _reachable(cluster)) as url:
        alone = await streamed_alone(url, recordings)
        files = await posted_alone(url, recordings)
        streams = [alone[number % len(alone)] for number in range(options.streams)]
        load = Load(url, streams, files, options)
        print(heading(COLUMNS))
        return [await _take(cluster, kind, load) for kind in options.kinds]


async def _take(cluster: Cluster, kind: str, load: Load) -> Losses:
    losses, probes = Losses(kind), Probes()
    standing = await asyncio.to_thread(Standing, cluster, load.url)
    asking = asyncio.create_task(probes.ask(load.url))
    await load.during(standing, losses)
    asking.cancel()
    await asyncio.wait([asking])
    print(show(losses, probes, standing.noticed_s), flush=True)
    for fault, times in losses.stream_faults.items():
        print(f"{kind}: {times} x {fault}", file=sys.stderr)
    return losses


def _reachable(cluster: Cluster) -> list[Machine]:
    """Behind a balancer the head takes no requests, as with KubeRay's
    `excludeHeadPodFromServeSvc`."""
    return [each for each in cluster.machines.values() if each is not cluster.head]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--model", default="tiny.en")
    parser.add_argument("--model-dir", type=Path, default=Path("models"))
    parser.add_argument("--kinds", type=several_of(KINDS), default=list(KINDS), metavar="KIND,...")
    parser.add_argument("--rounds", type=int, default=2, help="deaths of each kind")
    parser.add_argument("--machines", type=int, default=3, help="beside the head")
    parser.add_argument("--ingresses", type=int, default=2)
    parser.add_argument("--engines", type=int, default=2)
    parser.add_argument("--streams", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=30.0, help="length of each stream")
    parser.add_argument("--files", type=int, default=1, help="clients that post files")
    parser.add_argument("--database", help="PostgreSQL for jobs; without one there are none")
    parser.add_argument("--jobs", type=int, default=1, help="clients that hand in jobs")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="keep the findings")
    return parser.parse_args()


def settings_of(options: argparse.Namespace) -> dict[str, Any]:
    """As `config.json` says them: nothing is left to what machines there are."""
    explicit = {"device": "cpu", "engine": "ctranslate2", "compute_type": "int8"}
    weights = {"size": options.model, "model_dir": str(options.model_dir.resolve())}
    return {
        "server": {"dedicated_cpu": True, "num_cpus": 0.5},
        "model": {**weights, **explicit},
        "deployment": {
            "num_replicas": options.engines,
            "cpu_per_replica": 1.0,
            "gpu_per_replica": 0.0,
            "health_check_period_s": 1.0,
            "replicas_per_machine": 1,
        },
        "autoscaling": {"ingress_replicas": [options.ingresses, options.ingresses]},
        # However long an answer takes: what is heard must not depend on what else there is to do.
        "streaming": {"target_answer_s": None, "max_answer_s": None},
        "jobs": {"database": options.database},
        "auth": {"open": True},
        "logging": {"file": None},
    }


def main() -> int:
    options = arguments()
    allow_many_sockets()
    began = time.monotonic()
    length = to_samples(options.seconds)
    recordings = [one.samples()[:length] for one in read_corpus(options.corpus, "long")]
    with tempfile.TemporaryDirectory(prefix="nodes-") as folder:
        config, log = Path(folder, "config.json"), Path(folder, "cluster.log")
        config.write_text(json.dumps(settings_of(options)))
        with cluster(log, machines=options.machines, cpus=2) as machines:
            machines.deploy(IMPORT_PATH, config)
            print(f"{options.machines} machines and a head on one: {machine()}\n", flush=True)
            losses = run(take_all(machines, recordings[: options.streams], options))
    print(f"\n{time.monotonic() - began:.0f} s")
    write_json(options.json, {"losses": losses})
    return 0 if all(one.is_lossless for one in losses) else 1


if __name__ == "__main__":
    sys.exit(main())
