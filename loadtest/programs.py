"""What the commands do: put a load together, run it level by level, tell what came of it."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from benchmarks.figures import heading, machine, quantile, row, shown, write_json
from benchmarks.load import base_url
from benchmarks.load import run as run_in_loop
from loadtest import concurrency, levels
from loadtest.arrivals import ARRIVALS, within
from loadtest.concurrency import Crowd, CrowdLevel, run_crowd
from loadtest.dialects import native
from loadtest.files import Access, Clip
from loadtest.judging import Bounds
from loadtest.levels import Level, Offer, Run, files_run, streams_run
from loadtest.page import Page, Picture, Table, write_page
from loadtest.plots import Chart, draw_to, drawn
from loadtest.recordings import clips, whole_recordings
from loadtest.speech import Speech, find_speech
from loadtest.summary import SHARES
from loadtest.tally import Tally
from whisper_serve.client.access import headers_with, trusting
from whisper_serve.client.connection import http_url
from whisper_serve.errors import ConnectionLost

PASSED, FAILED, NOT_BELIEVED = 0, 1, 3
ASKING_LIMIT_S = 10.0


@dataclass(frozen=True, slots=True)
class Findings:
    """What a program tells, to people and to files. `failed`: why it did not pass; `doubts`: why
    its figures are not to be believed."""

    title: str
    facts: dict[str, str]
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    raw: Sequence[Any]
    charts: Sequence[Chart]
    failed: Sequence[str]
    doubts: Sequence[str]


# Open loop


def open_loop(options: argparse.Namespace) -> Findings:
    """At one rate, or at one after the other."""
    access, bounds = access_of(options), bounds_of(options)
    facts = {**facts_of([access]), "load": _load_of(options)}
    begin(facts, levels.COLUMNS)
    run = _run_of(options, access, bounds)
    done = [_level(run, offer, options, number) for number, offer in enumerate(_offers(options))]
    what = "users" if options.users else f"{options.kind}: offered a second"
    failed, doubts = levels.notes(done, bounds)
    return Findings(
        title=f"{options.program}: {_load_of(options)}",
        facts=facts,
        columns=levels.COLUMNS,
        rows=[level.cells() for level in done],
        raw=[level.facts() for level in done],
        charts=levels.rising(done, what) if len(done) > 1 else levels.spread(done[0]),
        failed=failed,
        doubts=doubts,
    )


def _load_of(options: argparse.Namespace) -> str:
    what = options.file_kind if options.kind == "rest" else f"streams of {options.seconds:g} s"
    if options.users:
        return f"{what}, all within {options.spread:g} s"
    return f"{what}, {options.arrivals} arrivals for {options.duration:g} s, seed {options.seed}"


def _level(run: Run, offer: Offer, options: argparse.Namespace, number: int) -> Level:
    if number:
        time.sleep(options.pause)
    level = run_in_loop(run(offer))
    print(row(level.cells()), flush=True)
    tell_faults(f"at {offer.name:g}", level.tally)
    return level


def _offers(options: argparse.Namespace) -> list[Offer]:
    # Streams are spoken at their own pace, and only then does waiting for them begin.
    spoken_s = options.seconds if options.kind == "stream" else 0.0
    patience_s = spoken_s + options.patience
    return [
        Offer(name, times, options.max_open, patience_s) for name, times in _times(options).items()
    ]


def _times(options: argparse.Namespace) -> dict[float, list[float]]:
    """When requests are due, by the rate or the number of users."""
    if options.users:
        return {
            users: [options.spread * number / users for number in range(users)]
            for users in options.users
        }
    arrivals = ARRIVALS[options.arrivals]
    rates = options.rates if options.program == "sweep" else [options.rate]
    return {rate: within(arrivals(rate, options.seed), options.duration) for rate in rates}


def _run_of(options: argparse.Namespace, access: Access, bounds: Bounds) -> Run:
    if options.kind == "rest":
        return files_run(access, clips_of(options), bounds)
    speeches = find_speech(options.corpus, options.seconds)
    said = [(each, native(_config_of(options, each))) for each in speeches]
    return streams_run(access, said, bounds)


def _config_of(options: argparse.Namespace, speech: Speech) -> dict[str, Any]:
    return {
        "language": options.language or speech.language,
        "model": options.model,
        "chunk_duration": options.chunk,
        "interim": not options.final_only,
    }


# Crowds


def crowds(options: argparse.Namespace) -> Findings:
    """Only the first service is judged; the other is there to be compared with."""
    bounds, files = bounds_of(options), clips_of(options)
    services = [access_of(options), *([beside(options)] if options.beside else [])]
    facts = {**facts_of(services), "load": _crowd_load(options, files)}
    begin(facts, concurrency.COLUMNS)
    done = [_crowd_level(services, files, crowd, bounds) for crowd in _crowds_of(options)]
    ours = [level for level, *_ in done]
    return Findings(
        title=f"concurrency: {facts['load']}",
        facts=facts,
        columns=concurrency.COLUMNS,
        rows=[level.cells() for both in done for level in both],
        raw=[[level.facts() for level in both] for both in done],
        charts=concurrency.rising(ours),
        failed=[why for level in ours for why in level.why_failed(bounds)],
        doubts=[doubt for level in ours for doubt in level.doubts(bounds)],
    )


def _crowd_load(options: argparse.Namespace, files: Sequence[Clip]) -> str:
    mean_s = sum(clip.speech.seconds for clip in files) / len(files)
    manner = "until they are served" if options.patient else "once"
    what = f"{len(files)} different {options.file_kind} files of {mean_s:.1f} s on average"
    return f"{what}, asked for {manner}"


def _crowds_of(options: argparse.Namespace) -> list[Crowd]:
    return [
        Crowd(clients, options.each, options.patient, options.patience)
        for clients in options.levels
    ]


def _crowd_level(
    services: Sequence[Access], files: Sequence[Clip], crowd: Crowd, bounds: Bounds
) -> list[CrowdLevel]:
    """At one service after the other."""
    found = []
    for access in services:
        level = run_in_loop(run_crowd(access, files, crowd, bounds))
        found.append(level)
        print(row(level.cells()), flush=True)
        tell_faults(f"{crowd.clients} clients at {access.url}", level.tally)
    if len(found) > 1:
        print(compared(*found), file=sys.stderr)
    return found


def compared(ours: CrowdLevel, other: CrowdLevel) -> str:
    """The other service's delays in multiples of ours, and our throughput in multiples of its."""
    ratios = [
        f"p{100 * share:.0f} {_ratio(_quantile(other, share), _quantile(ours, share))}"
        for share in SHARES
    ]
    throughput = _ratio(ours.throughput, other.throughput)
    clients = ours.crowd.clients
    return f"{clients} clients, times better: {', '.join(ratios)}, throughput {throughput}"


def _quantile(level: CrowdLevel, share: float) -> float | None:
    return quantile(level.tally.delays_s, share)


def _ratio(above: float | None, below: float | None) -> str:
    return shown(above / below if above is not None and below else None, 1)


# What all share


def bounds_of(options: argparse.Namespace) -> Bounds:
    return Bounds(options.most_wer, options.most_failed, options.most_late)


def access_of(options: argparse.Namespace) -> Access:
    url = base_url(options.url)
    headers = headers_with(options.key, None, url)
    return Access(url, dict(headers), trusting(options.ca_file, url))


def beside(options: argparse.Namespace) -> Access:
    """The other service is shown nobody's key."""
    return Access(base_url(options.beside), {})


def clips_of(options: argparse.Namespace) -> list[Clip]:
    speeches = whole_recordings(options.corpus, options.shortest, options.longest)
    fields = {"model": options.model} if options.model else {}
    return clips(speeches, options.file_kind, options.language, fields)


def facts_of(services: Sequence[Access]) -> dict[str, str]:
    named = zip(("service", "beside it"), services, strict=False)
    told = {name: f"{access.url}: {engine_of(access)}" for name, access in named}
    return {**told, "this machine": machine()}


def engine_of(access: Access) -> str:
    """What the service says it is. Raises `ConnectionLost` when nobody answers."""
    url = http_url(access.url, "/health")
    verify = True if access.trust is None else access.trust
    try:
        answer = httpx.get(url, headers=access.headers, timeout=ASKING_LIMIT_S, verify=verify)
        told: dict[str, Any] = answer.json()
    except (httpx.HTTPError, ValueError) as exc:
        raise ConnectionLost(f"{url} does not answer: {exc!r}") from exc
    return " ".join(
        str(told.get(key, "?")) for key in ("model", "engine", "compute_type", "device")
    )


def begin(facts: dict[str, str], columns: Sequence[str]) -> None:
    print("; ".join(facts.values()), end="\n\n")
    print(heading(columns), flush=True)


def tell_faults(name: str, tally: Tally) -> None:
    for fault, times in tally.failed.most_common():
        print(f"{name}: {times} x {fault}", file=sys.stderr)


def told(options: argparse.Namespace, found: Findings) -> int:
    """Write what was asked for; returns the exit code. What is not to be believed has neither
    passed nor failed."""
    write_json(options.json, {**found.facts, "columns": found.columns, "levels": found.raw})
    if options.plot:
        draw_to(options.plot, found.charts)
    if options.html:
        write_page(options.html, page_of(found))
    for word, sentences in (("FAILED", found.failed), ("INVALID", found.doubts)):
        for sentence in sentences:
            print(f"{word} {sentence}", file=sys.stderr)
    if found.doubts:
        return NOT_BELIEVED
    return FAILED if found.failed else PASSED


def page_of(found: Findings) -> Page:
    return Page(
        title=found.title,
        facts=found.facts,
        faults=[*found.failed, *found.doubts],
        tables=[Table("Levels", found.columns, found.rows)],
        pictures=[Picture("", drawn(found.charts))],
    )


Program = Callable[[argparse.Namespace], Findings]
PROGRAMS: dict[str, Program] = {
    "rest": open_loop,
    "stream": open_loop,
    "sweep": open_loop,
    "concurrency": crowds,
}
