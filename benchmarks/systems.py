"""What `engines.py` compares: each system hears files, and one process measures one of them.

    .venv/bin/python -m benchmarks.systems ours --corpus ../shared/audio --out result.json

All are told that the language is English, decode the files themselves, keep their own rules for
a decode that went wrong, and have all cores.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import resource
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from benchmarks.corpus import PARTS, Recording, read_corpus
from benchmarks.models import CPUS, Model, as_floats

LADDER = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
KIB_PER_MIB = 1024


class Hears(Protocol):
    """A loaded system."""

    def texts(self, recordings: Sequence[Recording]) -> list[str]: ...


@dataclass(frozen=True, slots=True)
class System:
    """`slow` ones may be given fewer files, `long_only` ones have nothing for short files."""

    name: str
    settings: str
    load: Callable[[Model], Hears]
    long_only: bool = False
    slow: bool = False


class Ours:
    """`window_s`: windows side by side, so long at most; None: in sequence, as by default."""

    def __init__(
        self,
        model: Model,
        *,
        engine: str,
        beam_size: int,
        at_once: int,
        window_s: float | None = None,
    ) -> None:
        from benchmarks.ours import (  # noqa: PLC0415
            EnginePort,
            load_engine,
            make_config,
            side_by_side,
        )

        self._config = make_config(model, engine=engine, beam_size=beam_size)
        if window_s is not None:
            self._config = side_by_side(self._config, window_s)
        self._port = EnginePort(load_engine(self._config))
        self._at_once = at_once

    def texts(self, recordings: Sequence[Recording]) -> list[str]:
        from benchmarks.ours import transcribe_all  # noqa: PLC0415

        return asyncio.run(transcribe_all(self._port, self._config, recordings, self._at_once))


class FasterWhisper:
    """`workers` files side by side, each on its share of the CPUs."""

    def __init__(self, model: Model, *, beam_size: int, workers: int) -> None:
        from faster_whisper import WhisperModel  # noqa: PLC0415

        self._model = WhisperModel(
            str(model.folder()),
            device="cpu",
            compute_type="int8",
            cpu_threads=max(1, CPUS // workers),
            num_workers=workers,
        )
        self._beam_size, self._workers = beam_size, workers

    def texts(self, recordings: Sequence[Recording]) -> list[str]:
        with ThreadPoolExecutor(self._workers) as pool:
            return list(pool.map(self._text, recordings))

    def _text(self, recording: Recording) -> str:
        segments, _ = self._model.transcribe(
            str(recording.path), language="en", beam_size=self._beam_size
        )
        return "".join(segment.text for segment in segments)


class FasterWhisperBatched:
    """Windows of one file side by side."""

    def __init__(self, model: Model, *, batch_size: int) -> None:
        from faster_whisper import BatchedInferencePipeline, WhisperModel  # noqa: PLC0415

        loaded = WhisperModel(
            str(model.folder()), device="cpu", compute_type="int8", cpu_threads=CPUS
        )
        self._pipeline, self._batch_size = BatchedInferencePipeline(loaded), batch_size

    def texts(self, recordings: Sequence[Recording]) -> list[str]:
        return [self._text(recording) for recording in recordings]

    def _text(self, recording: Recording) -> str:
        segments, _ = self._pipeline.transcribe(
            str(recording.path), language="en", beam_size=1, batch_size=self._batch_size
        )
        return "".join(segment.text for segment in segments)


class OpenAIWhisper:
    def __init__(self, model: Model) -> None:
        import torch  # noqa: PLC0415

        torch.set_num_threads(CPUS)
        self._model = model.torch_model()

    def texts(self, recordings: Sequence[Recording]) -> list[str]:
        return [self._text(recording) for recording in recordings]

    def _text(self, recording: Recording) -> str:
        audio = as_floats(recording.path.read_bytes())
        heard = self._model.transcribe(audio, language="en", temperature=LADDER, fp16=False)
        text: str = heard["text"]
        return text


class WhisperCpp:
    def __init__(self, model: Model) -> None:
        from pywhispercpp.model import (  # type: ignore[import-not-found,unused-ignore] # noqa: PLC0415
            Model as Cpp,
        )

        from benchmarks.ggml import write_ggml  # noqa: PLC0415

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, f"{model.name}.bin")
            write_ggml(model.checkpoint(), path)
            self._model: Any = Cpp(
                str(path), n_threads=CPUS, print_progress=False, redirect_whispercpp_logs_to=None
            )

    def texts(self, recordings: Sequence[Recording]) -> list[str]:
        return [self._text(recording) for recording in recordings]

    def _text(self, recording: Recording) -> str:
        segments = self._model.transcribe(as_floats(recording.path.read_bytes()), language="en")
        return " ".join(segment.text for segment in segments)


MANY = 1_000
SYSTEMS: Mapping[str, System] = {
    "ours": System(
        "whisper_serve",
        "ctranslate2 int8, beam 2, windows of 16 s side by side, all files at once",
        partial(Ours, engine="ctranslate2", beam_size=2, at_once=MANY, window_s=16.0),
    ),
    "ours-greedy": System(
        "whisper_serve",
        "ctranslate2 int8, greedy, windows of 16 s side by side, all files at once",
        partial(Ours, engine="ctranslate2", beam_size=1, at_once=MANY, window_s=16.0),
    ),
    "ours-one": System(
        "whisper_serve",
        "ctranslate2 int8, beam 2, windows of 16 s side by side, one file after the other",
        partial(Ours, engine="ctranslate2", beam_size=2, at_once=1, window_s=16.0),
    ),
    "ours-default": System(
        "whisper_serve",
        "ctranslate2 int8, beam 5, windows of 30 s in sequence, all files at once",
        partial(Ours, engine="ctranslate2", beam_size=5, at_once=MANY),
    ),
    "ours-torch": System(
        "whisper_serve",
        "torch float32, greedy, windows of 16 s side by side, all files at once",
        partial(Ours, engine="torch", beam_size=1, at_once=MANY, window_s=16.0),
        slow=True,
    ),
    "faster-whisper": System(
        "faster-whisper",
        f"int8, greedy, {CPUS} threads, one file after the other",
        partial(FasterWhisper, beam_size=1, workers=1),
    ),
    "faster-whisper-workers": System(
        "faster-whisper",
        f"int8, greedy, {CPUS} workers of one thread, a file each",
        partial(FasterWhisper, beam_size=1, workers=CPUS),
    ),
    "faster-whisper-beam": System(
        "faster-whisper",
        f"int8, beam 5, {CPUS} threads, one file after the other",
        partial(FasterWhisper, beam_size=5, workers=1),
    ),
    "faster-whisper-beam-workers": System(
        "faster-whisper",
        f"int8, beam 5, {CPUS} workers of one thread, a file each",
        partial(FasterWhisper, beam_size=5, workers=CPUS),
    ),
    **{
        f"faster-whisper-batched-{size}": System(
            "faster-whisper",
            f"int8, greedy, BatchedInferencePipeline, batches of {size}",
            partial(FasterWhisperBatched, batch_size=size),
            long_only=True,
        )
        for size in (4, 8, 16)
    },
    "whisper.cpp": System(
        "whisper.cpp (pywhispercpp)", f"float16, greedy, {CPUS} threads", WhisperCpp, slow=True
    ),
    "openai-whisper": System(
        "openai-whisper", f"float32, greedy, {CPUS} threads", OpenAIWhisper, slow=True
    ),
}
# Ratios are to the faster one of them.
REFERENCE = ("faster-whisper", "faster-whisper-workers")


def cpu_s() -> float:
    """User and system time of this process and of those that it waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def measure(hears: Hears, recordings: Sequence[Recording]) -> dict[str, Any]:
    gc.collect()
    used_s, began = cpu_s(), time.monotonic()
    texts = hears.texts(recordings)
    took_s = time.monotonic() - began
    return {
        "files": len(recordings),
        "audio_s": sum(recording.seconds for recording in recordings),
        "took_s": took_s,
        "cpu_s": cpu_s() - used_s,
        "references": [recording.text for recording in recordings],
        "texts": texts,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("system", choices=SYSTEMS)
    parser.add_argument("--model", default="base")
    parser.add_argument("--model-dir", type=Path, default=Path("models"))
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--limit", type=int, help="only the first so many files of each part")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    system = SYSTEMS[options.system]
    hears = system.load(Model(options.model, options.model_dir))
    parts = {part: read_corpus(options.corpus, part)[: options.limit] for part in PARTS}
    hears.texts(parts["utterances"][:1])
    results = {
        part: measure(hears, recordings)
        for part, recordings in parts.items()
        if not (system.long_only and part != "long")
    }
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / KIB_PER_MIB
    options.out.write_text(json.dumps({"parts": results, "memory_mib": peak}))


if __name__ == "__main__":
    main()
