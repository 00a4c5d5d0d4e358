"""Engines that misbehave on purpose, built inside the replicas.

`EngineOptions.model_dir` is a scratch folder of the test: `built` gets a line with the process
id for each engine, `decoded` one for each window.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tests.streaming.speaker import heard_words
from whisper_serve.engines.base import DecodeTask, Engine
from whisper_serve.engines.build import EngineOptions, build_engine
from whisper_serve.engines.fake import FakeWorker
from whisper_serve.engines.intake import Limits
from whisper_serve.engines.threaded import ThreadedEngine
from whisper_serve.text.transcript import Hypothesis, Segment, Word

SLOW_S = 3.0
GROWTH_BYTES, MOST_GROWTH_BYTES = 128 * 2**20, 2 * 2**30


def note(folder: Path, name: str) -> None:
    with (folder / name).open("a") as file:
        file.write(f"{os.getpid()}\n")


def notes(folder: Path, name: str) -> list[int]:
    path = folder / name
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def one_word(text: str, task: DecodeTask) -> Hypothesis:
    """`text` for the whole window."""
    word = Word(f" {text}", 0.0, task.duration_s, 0.9)
    return Hypothesis((Segment(0.0, task.duration_s, word.text, (word,)),), "en", 1.0)


def _engine(options: EngineOptions, hear: Callable[[DecodeTask], Hypothesis]) -> Engine:
    note(options.model_dir, "built")

    def noted(task: DecodeTask) -> Hypothesis:
        note(options.model_dir, "decoded")
        return hear(task)

    limits = Limits(options.max_queued, options.rows)
    return ThreadedEngine(FakeWorker([noted]), limits, threads=options.workers)


def build_throwing(options: EngineOptions) -> Engine:
    def throw(_task: DecodeTask) -> Hypothesis:
        raise ZeroDivisionError("secret detail")

    return _engine(options, throw)


def build_hanging(options: EngineOptions) -> Engine:
    def hang(task: DecodeTask) -> Hypothesis:
        threading.Event().wait()
        return one_word("never", task)

    return _engine(options, hang)


def build_slow(options: EngineOptions) -> Engine:
    def slow(task: DecodeTask) -> Hypothesis:
        time.sleep(SLOW_S)
        return one_word("slow", task)

    return _engine(options, slow)


def build_growing(options: EngineOptions) -> Engine:
    """Understands the speech of `speaker`, and keeps some memory of every window."""
    kept: list[bytearray] = []

    def hear(task: DecodeTask) -> Hypothesis:
        if len(kept) * GROWTH_BYTES < MOST_GROWTH_BYTES:
            kept.append(bytearray(b"x" * GROWTH_BYTES))
        time.sleep(0.2)
        words = heard_words(task.samples, {})[len(task.prefix.split()) :]
        segments = (Segment(0.0, task.duration_s, "").with_words(words),) if words else ()
        return Hypothesis(segments, "en", 1.0)

    return _engine(options, hear)


def build_held(options: EngineOptions) -> Engine:
    """Understands the speech of `speaker`, but answers nothing while there is a file `hold`."""

    def hear(task: DecodeTask) -> Hypothesis:
        while (options.model_dir / "hold").exists():
            time.sleep(0.05)
        words = heard_words(task.samples, {})[len(task.prefix.split()) :]
        segments = (Segment(0.0, task.duration_s, "").with_words(words),) if words else ()
        return Hypothesis(segments, "en", 1.0)

    return _engine(options, hear)


def build_named(options: EngineOptions) -> Engine:
    """Hears the model's name in everything. Once there is a file `broken`, no model can be
    loaded any more; `loaded` gets a line for each that could."""
    if (options.model_dir / "broken").exists():
        raise MemoryError("secret detail")
    with (options.model_dir / "loaded").open("a") as file:
        file.write(f"{options.model}\n")

    def hear(task: DecodeTask) -> Hypothesis:
        time.sleep(0.1)
        return one_word(options.model, task)

    return _engine(options, hear)


def build_noted(options: EngineOptions) -> Engine:
    """The real engine, which notes its process id too."""
    engine = build_engine(options)
    note(options.model_dir, "built")
    return engine
