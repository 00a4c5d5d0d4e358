"""What the service costs beside its engine: CPU time of long files by the way that they go.

    .venv/bin/python -m benchmarks.service_tax --corpus ../shared/audio --config config.json

The same recordings, `--at-once` of them at the same time, in three ways:

- *engine*: only the windows, in the engine in a process of its own. They were noted down when
  the recordings were transcribed there once; a recording's windows go in one after the other.
- *in process*: whole files through `Transcriber` on that engine.
- *service*: whole files posted to the running service; all its processes count.

The tax is what the service takes over what the engine takes. It is divided into unpacking the
files and finding the speech, each measured alone, what the service takes when nobody asks, and
the rest: HTTP, Ray, joining.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.corpus import Recording, read_corpus
from benchmarks.figures import heading, machine, row, shown, write_json
from benchmarks.load import Meter, run
from benchmarks.ours import EnginePort, load_engine, transcribe_all
from benchmarks.processes import PROJECT, Service, served
from whisper_serve.config import Config
from whisper_serve.config_file import load_config
from whisper_serve.engines.base import DecodeTask
from whisper_serve.pipeline import find_speech
from whisper_serve.ports import Transcribes
from whisper_serve.text.transcript import Hypothesis

IDLE_S = 10.0
Chains = list[list[DecodeTask]]
Submit = Callable[[DecodeTask], Future[Hypothesis]]


class Noting:
    """Notes down what is asked of `port`, by request id."""

    def __init__(self, port: Transcribes) -> None:
        self._port = port
        self.asked: dict[str, list[DecodeTask]] = defaultdict(list)

    async def transcribe(self, task: DecodeTask) -> Hypothesis:
        self.asked[task.request_id].append(task)
        return await self._port.transcribe(task)


def replay(submit: Submit, chains: Chains, at_once: int) -> None:
    """Each chain's windows one after the other, `at_once` chains side by side."""

    def follow(chain: Sequence[DecodeTask]) -> None:
        for task in chain:
            submit(task).result()

    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(follow, chains))


def cpu_of(work: Callable[[], object]) -> float:
    """Seconds of CPU that all threads of this process take for it."""
    gc.collect()
    began = time.process_time()
    work()
    return time.process_time() - began


def in_process(config: Config, recordings: Sequence[Recording], at_once: int, rounds: int) -> Any:
    """Seconds of CPU of each round, by what was done."""
    engine = load_engine(config)
    port = Noting(EnginePort(engine))

    def transcribe(port: Transcribes) -> None:
        asyncio.run(transcribe_all(port, config, recordings, at_once))

    transcribe(port)
    chains = list(port.asked.values())
    samples = [recording.samples() for recording in recordings]
    works: dict[str, Callable[[], object]] = {
        "engine": lambda: replay(engine.submit, chains, at_once),
        "in process": lambda: transcribe(EnginePort(engine)),
        "unpacking": lambda: [recording.samples() for recording in recordings],
        "finding speech": lambda: [find_speech(heard, config.vad) for heard in samples],
    }
    used = [{name: cpu_of(work) for name, work in works.items()} for _ in range(rounds)]
    engine.close()
    return {"windows": sum(map(len, chains)), "rounds": used}


async def through_service(
    service: Service, recordings: Sequence[Recording], at_once: int, rounds: int
) -> list[dict[str, float]]:
    """Of each round: seconds of CPU and of the clock, and CPU by second when nobody asks."""
    connector, timeout = aiohttp.TCPConnector(limit=at_once), aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:

        async def post(recording: Recording) -> None:
            form = aiohttp.FormData({"language": "en"})
            form.add_field("file", recording.path.read_bytes(), filename=recording.path.name)
            async with session.post(f"{service.url}/transcribe", data=form) as answer:
                answer.raise_for_status()
                await answer.read()

        await asyncio.gather(*map(post, recordings))  # warm
        used = []
        for _ in range(rounds):
            idle = Meter(service)
            await asyncio.sleep(IDLE_S)
            idle_cores = idle.read().cores or 0.0
            meter = Meter(service)
            await asyncio.gather(*map(post, recordings))
            busy = meter.read()
            used.append(
                {"service": busy.cpu_s or 0.0, "took": busy.seconds, "idle_cores": idle_cores}
            )
        return used


def medians(rounds: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(used[name] for used in rounds) for name in rounds[0]}


def divided(inside: dict[str, float], outside: dict[str, float]) -> dict[str, float]:
    """Seconds of CPU by where they went, whole ways first and then parts of the service."""
    engine, service = inside["engine"], outside["service"]
    known = {
        "unpacking": inside["unpacking"],
        "finding speech": inside["finding speech"],
        "Ray and all else when nobody asks": outside["idle_cores"] * outside["took"],
    }
    known["the rest"] = service - engine - sum(known.values())
    return {
        "engine": engine,
        "in process": inside["in process"],
        "service": service,
        **{f"of the service: {name}": cpu_s for name, cpu_s in known.items()},
    }


def report(parts: dict[str, float], audio_s: float) -> None:
    engine = parts["engine"]
    print(heading(["", "CPU s", "CPU ms / audio s", "by the engine's"]))
    for name, cpu_s in parts.items():
        print(row([name, shown(cpu_s), shown(1000 * cpu_s / audio_s, 1), shown(cpu_s / engine, 3)]))
    print(f"\ntax: {100 * (parts['service'] / engine - 1):.1f} %")


def child(options: argparse.Namespace) -> dict[str, Any]:
    """`in_process` in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "result.json")
        command = [sys.executable, "-m", "benchmarks.service_tax", "--in-process", str(out)]
        command += ["--corpus", str(options.corpus.resolve())]
        command += ["--config", str(options.config.resolve())]
        command += ["--at-once", str(options.at_once), "--repeat", str(options.repeat)]
        command += ["--limit", str(options.limit)] if options.limit else []
        subprocess.run(command, cwd=PROJECT, check=True)
        result: dict[str, Any] = json.loads(out.read_text())
        return result


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--config", type=Path, default=Path("config.json"))
    parser.add_argument("--at-once", type=int, default=6, metavar="N", help="files side by side")
    parser.add_argument("--repeat", type=int, default=1, help="rounds; the median counts")
    parser.add_argument("--limit", type=int, help="only the first so many recordings")
    parser.add_argument("--json", type=Path, help="keep all rounds")
    parser.add_argument("--in-process", type=Path, metavar="OUT", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    options = arguments()
    recordings = read_corpus(options.corpus, "long")[: options.limit]
    if options.in_process:
        config = load_config(options.config, os.environ)
        inside = in_process(config, recordings, options.at_once, options.repeat)
        options.in_process.write_text(json.dumps(inside))
        return
    results: dict[str, Any] = {"in_process": child(options)}
    with served(options.config, {}) as service:
        engine = service.engine()
        results["service"] = run(
            through_service(service, recordings, options.at_once, options.repeat)
        )
    audio_s = sum(recording.seconds for recording in recordings)
    print(f"{engine}; {machine()}; {len(recordings)} recordings, {audio_s:.0f} s of audio,")
    print(f"{results['in_process']['windows']} windows, {options.at_once} files at once, ", end="")
    print(f"rounds: {options.repeat}\n")
    parts = divided(medians(results["in_process"]["rounds"]), medians(results["service"]))
    report(parts, audio_s)
    write_json(options.json, {"engine": engine, "audio_s": audio_s, **results})


if __name__ == "__main__":
    main()
