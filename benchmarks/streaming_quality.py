"""Word error rates and delays of live streams, by policy, beside the same engine offline.

    .venv/bin/python benchmarks/streaming_quality.py --corpus ../shared/audio --weights models/base

Each of the corpus's long recordings is fed to a session in pieces of 100 ms, in the order of
real time, with an engine in this process. Time is simulated: audio comes by the clock, and an
answer comes as long after its window was asked for as the decode really took; a window waits
for the one before it. So a delay is what one stream on an otherwise idle engine sees, without
the network, and the run takes only as long as the decodes do.

For each word of the transcript: the delay from the word's end in the audio until it was first
shown, in a `partial` or `final`, and until it was final.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
from whisper.normalizers import EnglishTextNormalizer

from whisper_serve.audio.decode import decode
from whisper_serve.audio.pcm import Samples, seconds
from whisper_serve.audio.silero import SileroVad
from whisper_serve.config import Config
from whisper_serve.engines.base import DecodeTask
from whisper_serve.engines.build import build_engine
from whisper_serve.pipeline import TranscribeOptions, Transcriber
from whisper_serve.serving.app import engine_options
from whisper_serve.serving.plan import Node, make_plan
from whisper_serve.streaming.listener import LiveWindow
from whisper_serve.streaming.messages import End, Final, Partial, StreamConfig
from whisper_serve.streaming.session import StreamOptions, StreamSession
from whisper_serve.text.normalize import normalize_word
from whisper_serve.text.transcript import Hypothesis

PIECE = 1_600
OFFLINE = "offline"
normalize = EnglishTextNormalizer()
RUNS: dict[str, dict[str, Any]] = {
    "chunk 5.0/0.5": {},
    "chunk 5.0/0.5, no context": {"use_context": False},
    "chunk 2.0/0.5": {"chunk_duration": 2.0},
    "chunk 10.0/0.5": {"chunk_duration": 10.0},
    "agreement": {"policy": "agreement"},
    "utterance": {"policy": "utterance"},
    "chunk 5.0/0.5, endpointing 0.5": {"endpointing": 0.5},
    "chunk 5.0/0.5, endpointing 0.3": {"endpointing": 0.3},
}


@dataclass(frozen=True)
class Recording:
    path: Path
    text: str
    samples: Samples = field(repr=False)


@dataclass
class Heard:
    """What streams gave: one text a recording, delays in seconds, and the work."""

    texts: list[str] = field(default_factory=list)
    shown_s: list[float] = field(default_factory=list)
    final_s: list[float] = field(default_factory=list)
    windows: int = 0
    worked_s: float = 0.0


class LoadedEngine:
    """Decodes one window at a time; the caller is told how long it took."""

    def __init__(self, weights: Path, threads: int, config: Config) -> None:
        chosen = config.model.model_copy(
            update={
                "size": str(weights),
                "engine": "ctranslate2",
                "device": "cpu",
                "compute_type": "int8",
            }
        )
        config = config.model_copy(update={"model": chosen})
        options = engine_options(config, make_plan(config, [Node(threads)]))
        self._engine = build_engine(replace(options, workers=1, threads_per_worker=threads))
        self._config = config

    async def transcribe(self, task: DecodeTask) -> Hypothesis:
        return await asyncio.wrap_future(self._engine.submit(task))

    def hear(self, window: LiveWindow) -> tuple[Hypothesis, float]:
        began = time.monotonic()
        task = DecodeTask(
            window.samples,
            language=window.language,
            context=window.context,
            prefix=window.prefix,
            beam_size=self._config.streaming.beam_size if window.final else 1,
            full_padding=window.thorough,
        )
        return self._engine.submit(task).result(), time.monotonic() - began


class Clocked:
    """One stream on a simulated clock."""

    def __init__(self, engine: LoadedEngine, config: Config, values: dict[str, Any]) -> None:
        self._engine = engine
        self._session = StreamSession(
            StreamConfig.parse({"language": "en", **values}),
            StreamOptions(reach_s=config.streaming.reach_s),
            session_id="benchmark",
            make_vad=SileroVad,
        )
        self._now = self._free_at = 0.0
        self._asked: tuple[float, LiveWindow, Hypothesis] | None = None
        self._final: list[tuple[str, float, float]] = []  # text, end, final at
        self._shown: list[tuple[float, list[str]]] = []  # at, all words on the screen
        self.windows, self.worked_s = 0, 0.0

    def stream(self, samples: Samples) -> None:
        for first in range(0, len(samples), PIECE):
            piece = samples[first : first + PIECE]
            self._now = seconds(first + len(piece))
            self._answer()
            self._session.receive_audio(piece)
            self._ask()
        self._session.receive(End())
        self._ask()
        while self._asked is not None:
            self._now = max(self._now, self._asked[0])
            self._answer()
            self._ask()

    def _ask(self) -> None:
        while (window := self._session.next_window()) is not None:
            hypothesis, took_s = self._engine.hear(window)
            self.windows, self.worked_s = self.windows + 1, self.worked_s + took_s
            # A partial that is overtaken keeps the engine busy all the same.
            self._free_at = max(self._now, self._free_at) + took_s
            self._asked = (self._free_at, window, hypothesis)
        self._look()

    def _answer(self) -> None:
        if self._asked is not None and self._asked[0] <= self._now:
            _, window, hypothesis = self._asked
            self._asked = None
            self._session.receive_hypothesis(window, hypothesis)
            self._look()

    def _look(self) -> None:
        for message in self._session.messages_to_send():
            if isinstance(message, Final):
                self._final += [(word.text, word.end, self._now) for word in message.words]
            if isinstance(message, Final | Partial):
                words = [text for text, _, _ in self._final]
                words += message.text.split() if isinstance(message, Partial) else []
                self._shown.append((self._now, [normalize_word(word) for word in words]))

    def into(self, heard: Heard) -> None:
        heard.texts.append("".join(text for text, _, _ in self._final))
        for number, (text, end_s, final_at) in enumerate(self._final):
            word = normalize_word(text)
            shown_at = next(at for at, words in self._shown if words[number : number + 1] == [word])
            if self._session.config.interim:
                heard.shown_s.append(max(0.0, shown_at - end_s))
            heard.final_s.append(max(0.0, final_at - end_s))
        heard.windows += self.windows
        heard.worked_s += self.worked_s


def streamed(
    recordings: Sequence[Recording],
    engine: LoadedEngine,
    config: Config,
    values: dict[str, Any],
    shown: int,
) -> Heard:
    """`shown`: of so many recordings partial text is asked for too."""
    heard = Heard()
    for number, recording in enumerate(recordings):
        interim = number < shown or values.get("policy") == "agreement"
        stream = Clocked(engine, config, {**values, "interim": interim})
        stream.stream(recording.samples)
        stream.into(heard)
    return heard


async def offline(recordings: Sequence[Recording], engine: LoadedEngine, config: Config) -> Heard:
    transcriber, heard = Transcriber(engine, config), Heard()
    began = time.monotonic()
    for recording in recordings:
        with recording.path.open("rb") as file:
            transcript = await transcriber.transcribe(file, TranscribeOptions(language="en"))
        heard.texts.append(transcript.text)
    heard.worked_s = time.monotonic() - began
    return heard


def row(name: str, recordings: Sequence[Recording], heard: Heard) -> str:
    errors = jiwer.process_words(
        [normalize(recording.text) for recording in recordings],
        [normalize(text) for text in heard.texts],
    )
    total_s = sum(seconds(len(recording.samples)) for recording in recordings)
    return (
        f"| {name} | {100 * errors.wer:.2f} % | {errors.insertions} | {errors.deletions} "
        f"| {errors.substitutions} | {quantiles(heard.shown_s)} | {quantiles(heard.final_s)} "
        f"| {heard.windows} | {total_s / heard.worked_s:.1f} x |"
    )


def quantiles(delays_s: Sequence[float]) -> str:
    if not delays_s:
        return "-"
    return f"{np.quantile(delays_s, 0.5):.1f} / {np.quantile(delays_s, 0.95):.1f}"


def read_corpus(corpus: Path) -> list[Recording]:
    entries = json.loads((corpus / "librispeech.json").read_text())
    recordings = []
    for entry in entries:
        path = corpus / entry["file"]
        if path.parent.name == "long":
            with path.open("rb") as file:
                samples = decode(file, accepted=(".flac", ".wav"), max_duration_s=3600.0)
            recordings.append(Recording(path, entry["text"], samples))
    return recordings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2, help="of the engine")
    parser.add_argument(
        "--shown",
        type=int,
        default=99,
        help="recordings of which partial text is asked for, which makes no difference to final "
        "text but to the time that it takes (default: all)",
    )
    parser.add_argument("--run", action="append", choices=[OFFLINE, *RUNS], help="default: all")
    options = parser.parse_args()
    config = Config()
    engine = LoadedEngine(options.weights, options.threads, config)
    recordings = read_corpus(options.corpus)
    words = sum(len(normalize(recording.text).split()) for recording in recordings)
    print(
        f"{options.weights.name}, ctranslate2 int8, {options.threads} threads, "
        f"{platform.machine()}; {len(recordings)} recordings, {words} words; "
        f"beam {config.streaming.beam_size}, reach {config.streaming.reach_s:g} s; "
        "delays p50 / p95 in seconds"
    )
    print("| | WER | ins | del | sub | first shown | final | windows | speed |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for name in options.run or [OFFLINE, *RUNS]:
        if name == OFFLINE:
            heard = asyncio.run(offline(recordings, engine, config))
        else:
            heard = streamed(recordings, engine, config, RUNS[name], options.shown)
        print(row(name, recordings, heard), flush=True)


if __name__ == "__main__":
    main()
