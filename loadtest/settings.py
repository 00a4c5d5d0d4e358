"""The options that Locust's command line has here besides its own.

They are strings and numbers only, because a master sends them to its workers.
"""

from __future__ import annotations

import json
import math
from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.load import numbers
from loadtest.conversation import PIECE
from loadtest.files import Access
from loadtest.speech import CORPUS_VARIABLE
from whisper_serve.audio.pcm import seconds
from whisper_serve.client.access import KEY_VARIABLE, headers_with, trusting
from whisper_serve.client.connection import http_url
from whisper_serve.errors import InvalidParameter

if TYPE_CHECKING:  # importing Locust changes how the whole process waits
    from locust.argument_parser import LocustArgumentParser

HOST = "http://127.0.0.1:8000"


def add_settings(parser: LocustArgumentParser) -> None:
    _add_speech(parser)
    _add_service(parser)
    _add_verdict(parser)
    _add_reports(parser)


def _add_speech(parser: LocustArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--corpus",
        default="",
        env_var=CORPUS_VARIABLE,
        help="folder of recordings with transcripts (default: ../shared/audio, else a sample)",
    )
    add("--seconds", type=_positive, default=60.0, help="of each stream or file (default: 60)")
    add(
        "--recordings",
        type=_whole,
        default=0,
        help="after which a user leaves (default: 1; with -t or --steps as many as fit)",
    )
    add("--language", default="", help="of the speech (default: what the corpus says)")
    add("--model", default="", help="one of the service's models (default: its own)")
    add("--openai-model", default="whisper-1", help="of OpenAIFile (default: %(default)s)")
    add("--final-only", action="store_true", help="ask for no partial text")
    add(
        "--stream-config",
        type=_json_object,
        default="{}",
        help='more settings of live streams, as JSON: {"policy": "agreement"}',
    )


def _add_service(parser: LocustArgumentParser) -> None:
    add = parser.add_argument
    add("--key", default="", help=f"API key (better in {KEY_VARIABLE})", include_in_web_ui=False)
    add("--ca-file", default="", help="certificates to trust instead of the system's")
    add("--patience", type=_positive, default=300.0, help="seconds to try to be let in")
    add("--last-words", type=_positive, default=60.0, help="seconds to wait behind the end")


def _add_verdict(parser: LocustArgumentParser) -> None:
    add = parser.add_argument
    add("--most-failed", type=_share, default=0.0, help="share that may fail (default: 0)")
    add("--most-wer", type=_positive, default=0.6, help="of one answer (default: %(default)s)")
    add("--most-late", type=_positive, default=0.1, help="seconds of this program itself, in 1 of "
        "100 pieces (default: %(default)s)")  # fmt: skip


def _add_reports(parser: LocustArgumentParser) -> None:
    add = parser.add_argument
    add("--steps", type=_steps, default="", help="users step by step, instead of -u: 5,10,20")
    add("--step-time", type=_positive, default=120.0, help="seconds of a step (default: 120)")
    add("--report-json", default="", help="figures and all samples", include_in_web_ui=False)
    add("--report-html", default="", help="a page with plots", include_in_web_ui=False)
    add("--plot", default="", help="the plots alone: .svg or .png", include_in_web_ui=False)


@dataclass(frozen=True)
class Settings:
    """The options, checked. `recordings`: 0 for as many as fit."""

    access: Access
    corpus: Path | None
    seconds: float
    recordings: int
    language: str
    model: str
    openai_model: str
    stream_config: Mapping[str, Any]
    patience_s: float
    last_words_s: float
    steps: tuple[int, ...]
    step_s: float

    @classmethod
    def of(cls, options: Namespace, host: str | None) -> Settings:
        """Raises `InvalidParameter`."""
        if options.seconds < seconds(PIECE):
            raise InvalidParameter("seconds", f"a piece is {seconds(PIECE):g} s")
        is_endless = bool(options.steps or options.run_time)
        return cls(
            access=_access(options, host or HOST),
            corpus=Path(options.corpus) if options.corpus else None,
            seconds=options.seconds,
            recordings=options.recordings or (0 if is_endless else 1),
            language=options.language,
            model=options.model,
            openai_model=options.openai_model,
            stream_config=_stream_config(options),
            patience_s=options.patience,
            last_words_s=options.last_words,
            steps=tuple(numbers(options.steps)) if options.steps else (),
            step_s=options.step_time,
        )


def _access(options: Namespace, host: str) -> Access:
    url = http_url(host, "")
    headers = headers_with(options.key or None, None, url)
    return Access(url, dict(headers), trusting(options.ca_file or None, url))


def _stream_config(options: Namespace) -> dict[str, Any]:
    """The first message of a stream, without its language."""
    model = {"model": options.model} if options.model else {}
    return {"interim": not options.final_only, **model, **json.loads(options.stream_config)}


def path_of(option: str) -> Path | None:
    return Path(option) if option else None


def _checked(check: Callable[[str], bool], wanted: str) -> Callable[[str], str]:
    """The text as it is, when it is right."""

    def checked(text: str) -> str:
        try:
            is_right = check(text)
        except ValueError:
            is_right = False
        if not is_right:
            raise ArgumentTypeError(f"{wanted} wanted, not {text!r}")
        return text

    return checked


def _positive(text: str) -> float:
    return float(_checked(lambda given: 0 < float(given) < math.inf, "more than 0 is")(text))


def _share(text: str) -> float:
    return float(_checked(lambda given: 0 <= float(given) <= 1, "a share from 0 to 1 is")(text))


def _whole(text: str) -> int:
    return int(_checked(lambda given: int(given) >= 0, "a number is")(text))


_steps = _checked(lambda given: not given or min(numbers(given)) >= 1, "numbers from 1 are")
_json_object = _checked(lambda given: isinstance(json.loads(given), dict), "an object as JSON is")
