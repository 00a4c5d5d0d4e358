"""The command line of `python -m loadtest`, checked."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from benchmarks.load import numbers
from loadtest.arrivals import ARRIVALS
from loadtest.concurrency import too_few_descriptors
from loadtest.formats import KINDS
from loadtest.speech import CORPUS_VARIABLE
from whisper_serve.client.access import KEY_VARIABLE

LEVELS = (4, 8, 16, 32, 64, 128, 192, 256, 512)


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Ends the program with 2 and a sentence when an option is wrong."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if wrong := _wrong(options):
        parser.error(wrong)
    return options


def _wrong(options: argparse.Namespace) -> str:
    if options.kind == "rest" and options.shortest > options.longest:
        return "--shortest is more than --longest"
    if options.program == "concurrency":
        return too_few_descriptors(max(options.levels))
    return too_few_descriptors(options.max_open)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m loadtest",
        description="Load for a service that runs, and what it makes of it.",
        epilog="Exit codes: 0 passed, 1 too much failed, 2 wrong options, 3 the figures are not "
        "to be believed: this program could not keep up, or did not send all.",
    )
    programs = parser.add_subparsers(dest="program", required=True)
    _add_kinds(programs, _add_rate)
    sweep = programs.add_parser("sweep", help="at one rate after the other, as a table")
    _add_kinds(sweep.add_subparsers(dest="kind", required=True), _add_rates)
    _add_concurrency(programs)
    return parser


Parsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def _add_kinds(kinds: Parsers, add_rate: Callable[[argparse.ArgumentParser], None]) -> None:
    """Each has options of its own: one that means nothing is not taken."""
    for kind, what, add in (
        ("rest", "files that come at a rate", _add_files),
        ("stream", "live streams that come at a rate", _add_streams),
    ):
        parser = kinds.add_parser(kind, help=what)
        parser.set_defaults(kind=kind)
        add_rate(parser)
        _add_open_loop(parser)
        add(parser)
        _add_shared(parser, late_s=0.1)


def _add_rate(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(users=None)
    parser.add_argument("--rate", type=_positive, default=1.0, help="a second (default: 1)")


def _add_rates(parser: argparse.ArgumentParser) -> None:
    offered = parser.add_mutually_exclusive_group()
    rates = [0.5, 1.0, 2.0, 4.0]
    offered.add_argument("--rates", type=_listed(_positive), default=rates, metavar="R,R,...")
    offered.add_argument(
        "--users", type=_levels, metavar="N,N,...", help="so many in all, evenly within --spread"
    )
    add = parser.add_argument
    add("--spread", type=_positive, default=5.0, help="seconds, of --users (default: 5)")
    add("--pause", type=_not_negative, default=5.0, help="seconds between levels (default: 5)")


def _add_concurrency(programs: Parsers) -> None:
    crowds = programs.add_parser("concurrency", help="so many clients at once with a file each")
    crowds.add_argument("--levels", type=_levels, default=list(LEVELS), metavar="N,N,...")
    crowds.add_argument("--each", type=_counted, default=1, help="clips of a client (default: 1)")
    crowds.add_argument(
        "--patient", action="store_true", help="who is refused waits as told and asks again"
    )
    crowds.add_argument("--beside", metavar="URL", help="another service, to be compared with")
    crowds.set_defaults(kind="rest")
    _add_files(crowds)
    _add_shared(crowds, late_s=1.0)


def _add_open_loop(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--duration", type=_positive, default=60.0, help="seconds, of rates (default: 60)")
    add("--arrivals", choices=list(ARRIVALS), default="poisson", help="of rates")
    add("--seed", type=int, default=1, help="of the arrivals (default: 1)")
    add("--max-open", type=_counted, default=1000, help="at once; what is more is not sent")


def _add_streams(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--seconds", type=_positive, default=20.0, help="of speech in a stream (default: 20)")
    add("--chunk", type=_positive, default=5.0, help="of a stream, in seconds (default: 5)")
    add("--final-only", action="store_true", help="ask for no partial text")


def _add_files(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--shortest", type=_not_negative, default=0.0, help="seconds of a file to take")
    add("--longest", type=_positive, default=3600.0, help="seconds of a file to take")
    add("--as", dest="file_kind", choices=list(KINDS), default="wav", help="files (default: wav)")


def _add_shared(parser: argparse.ArgumentParser, *, late_s: float) -> None:
    add = parser.add_argument
    add("--url", default="http://127.0.0.1:8000", help="default: %(default)s")
    add("--key", help=f"of the service's API (default: that in {KEY_VARIABLE})")
    add("--ca-file", type=Path, help="certificates to trust instead of the system's")
    add("--model", default="", help="one of the service's models (default: its own)")
    add("--language", help="of the speech (default: what the corpus says)")
    corpus = os.environ.get(CORPUS_VARIABLE)
    add(
        "--corpus",
        type=Path,
        default=corpus and Path(corpus),
        help=f"recordings with their transcripts (default: {CORPUS_VARIABLE}, or what is there)",
    )
    add("--patience", type=_positive, default=600.0, help="seconds to wait for what is open")
    add("--most-failed", type=_share, default=0.0, help="share of requests (default: 0)")
    add("--most-wer", type=_positive, default=0.6, help="of one answer (default: %(default)s)")
    add(
        "--most-late",
        type=_positive,
        default=late_s,
        help="seconds this program may be late in 1 of 100 cases (default: %(default)s)",
    )
    add("--json", type=Path, help="keep all delays")
    add("--html", type=Path, help="a page with the table and pictures")
    add("--plot", type=Path, help="draw it: .svg or .png")


def _listed(of: Callable[[str], float]) -> Callable[[str], list[float]]:
    def listed(text: str) -> list[float]:
        return [of(part) for part in text.split(",")]

    return listed


def _levels(text: str) -> list[int]:
    found = numbers(text)
    if min(found) < 1:
        raise argparse.ArgumentTypeError("numbers from 1 are wanted")
    return found


def _counted(text: str) -> int:
    return _levels(text)[0] if "," not in text else _no("one number is wanted")


def _positive(text: str) -> float:
    number = float(text)
    return number if 0 < number < math.inf else _no("more than 0 is wanted")


def _not_negative(text: str) -> float:
    number = float(text)
    return number if 0 <= number < math.inf else _no("0 or more is wanted")


def _share(text: str) -> float:
    number = float(text)
    return number if 0 <= number <= 1 else _no("a share from 0 to 1 is wanted")


def _no(why: str) -> int:
    raise argparse.ArgumentTypeError(why)
