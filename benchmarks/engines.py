"""Speed and word error rate of whole files: our engine beside other Whispers.

    .venv/bin/python -m benchmarks.engines --corpus ../shared/audio --model base

The same files and the same weights for all, one system after the other, each in a process of its
own with all cores. Speed is seconds of audio by seconds of the clock, decoding of the files
included and loading of the model not; CPU is user and system time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.corpus import PARTS
from benchmarks.figures import heading, machine, percent, row, shown, write_json
from benchmarks.processes import PROJECT
from benchmarks.scores import word_errors
from benchmarks.systems import REFERENCE, SYSTEMS

# One entry a round: what `benchmarks.systems` wrote.
Rounds = list[dict[str, Any]]
OF_EACH_PART = ("x real time", "x faster-whisper", "CPU s", "WER", "ins / del / sub")


def run(key: str, options: argparse.Namespace) -> dict[str, Any] | None:
    """One system in a process of its own; None when it failed."""
    limit = options.limit
    if SYSTEMS[key].slow and options.limit_slow is not None:
        limit = options.limit_slow
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "result.json")
        arguments = [sys.executable, "-m", "benchmarks.systems", key]
        arguments += ["--model", options.model, "--model-dir", str(options.model_dir.resolve())]
        arguments += ["--corpus", str(options.corpus.resolve()), "--out", str(out)]
        arguments += ["--limit", str(limit)] if limit else []
        try:
            subprocess.run(
                arguments, cwd=PROJECT, stdout=sys.stderr, timeout=options.timeout, check=True
            )
        except subprocess.SubprocessError as exc:
            print(f"{key} failed: {exc}", file=sys.stderr)
            return None
        result: dict[str, Any] = json.loads(out.read_text())
        return result


def speed(rounds: Rounds, part: str) -> float | None:
    """In the median of the rounds."""
    speeds = [r["parts"][part]["audio_s"] / r["parts"][part]["took_s"] for r in _with(rounds, part)]
    return statistics.median(speeds) if speeds else None


def _with(rounds: Rounds, part: str) -> Rounds:
    return [result for result in rounds if part in result["parts"]]


def cells(rounds: Rounds, part: str, reference: float | None) -> list[str]:
    """What `OF_EACH_PART` names; texts are those of the first round."""
    found = speed(rounds, part)
    if found is None:
        return ["-"] * len(OF_EACH_PART)
    results = [result["parts"][part] for result in _with(rounds, part)]
    errors = word_errors(results[0]["references"], results[0]["texts"])
    return [
        f"{found:.1f}",
        f"{found / reference:.2f}" if reference else "-",
        f"{statistics.median(result['cpu_s'] for result in results):.0f}",
        percent(errors.rate),
        errors.kinds,
    ]


def files_heard(rounds: Rounds) -> str:
    return " + ".join(str(part["files"]) for part in rounds[0]["parts"].values())


def report(results: Mapping[str, Rounds]) -> None:
    names = [f"{part}: {name}" for part in PARTS for name in OF_EACH_PART]
    print(heading(["system", "settings", "files", *names, "memory MiB"]))
    references = {part: fastest(results, REFERENCE, part) for part in PARTS}
    for key, rounds in results.items():
        system = SYSTEMS[key]
        figures = [cell for part in PARTS for cell in cells(rounds, part, references[part])]
        memory = max((result["memory_mib"] for result in rounds), default=None)
        heard = files_heard(rounds) if rounds else "failed"
        print(row([system.name, system.settings, heard, *figures, shown(memory, 0)]))


def fastest(results: Mapping[str, Rounds], keys: Sequence[str], part: str) -> float | None:
    speeds = [speed(results.get(key, []), part) for key in keys]
    return max((found for found in speeds if found is not None), default=None)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--model", default="base")
    parser.add_argument("--model-dir", type=Path, default=Path("models"))
    parser.add_argument("--only", action="append", choices=SYSTEMS, help="default: all")
    parser.add_argument("--repeat", type=int, default=1, help="rounds; the median counts")
    parser.add_argument("--limit", type=int, help="only the first so many files of each part")
    parser.add_argument("--limit-slow", type=int, help="the same for systems that are slow")
    parser.add_argument("--timeout", type=float, default=3600.0, help="of one system, in seconds")
    parser.add_argument("--json", type=Path, help="keep raw results and texts")
    options = parser.parse_args()
    keys = options.only or list(SYSTEMS)
    results: dict[str, Rounds] = {key: [] for key in keys}
    for number in range(options.repeat):
        for key in keys:
            print(f"round {number + 1}: {key}", file=sys.stderr, flush=True)
            if (result := run(key, options)) is not None:
                results[key].append(result)
    print(f"{options.model}; {machine()}; rounds: {options.repeat}, one system at a time\n")
    report(results)
    write_json(options.json, {"model": options.model, "results": results})


if __name__ == "__main__":
    main()
