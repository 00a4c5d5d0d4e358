"""Word error rates through the running service, and faster-whisper's on the same files.

    .venv/bin/python benchmarks/transcription_quality.py --url http://127.0.0.1:8000 \
        --corpus ../shared/audio [--weights models/base]

The corpus is a folder with `librispeech.json` (a list of `file`, `text`, `seconds`), `fleurs/`,
`formats/` and `nonspeech/`. Words are compared after openai-whisper's English normalization.
With `--weights`, faster-whisper decodes the same recordings greedily with the same weights in
this process, before the service is asked, so that both have the machine to themselves.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import jiwer
from whisper.normalizers import EnglishTextNormalizer

normalize = EnglishTextNormalizer()
Transcribe = Callable[[Path], str]


@dataclass(frozen=True)
class Recording:
    path: Path
    text: str
    seconds: float


@dataclass(frozen=True)
class Score:
    """Errors over `recordings` recordings of `seconds` in all, done in `took_s`."""

    recordings: int
    seconds: float
    took_s: float
    errors: jiwer.WordOutput

    def row(self, name: str) -> str:
        e = self.errors
        words = e.hits + e.substitutions + e.deletions
        return (
            f"| {name} | {self.recordings} | {words} | {100 * e.wer:.2f} % | {e.insertions} "
            f"| {e.deletions} | {e.substitutions} | {self.seconds / self.took_s:.1f} x |"
        )


def score(recordings: Sequence[Recording], transcribe: Transcribe) -> Score:
    """One recording after the other."""
    began = time.monotonic()
    texts = [transcribe(recording.path) for recording in recordings]
    took_s = time.monotonic() - began
    errors = jiwer.process_words(
        [normalize(recording.text) for recording in recordings], [normalize(t) for t in texts]
    )
    return Score(len(recordings), sum(r.seconds for r in recordings), took_s, errors)


class Service:
    """The service at `url`, asked with `POST /transcribe`."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=600.0)

    def engine(self) -> str:
        health = self._client.get("/health").raise_for_status().json()
        return " ".join(health[key] for key in ("model", "engine", "compute_type", "device"))

    def ask(self, recording: Path, **fields: str) -> dict[str, str]:
        with recording.open("rb") as file:
            answer = self._client.post("/transcribe", files={"file": file}, data=fields)
        body: dict[str, str] = answer.raise_for_status().json()
        return body

    def text(self, recording: Path) -> str:
        return self.ask(recording)["text"]

    def text_without_context(self, recording: Path) -> str:
        return self.ask(recording, use_context="false")["text"]


def faster_whisper(weights: Path) -> Transcribe:
    """Greedy, int8, all cores for one recording at a time."""
    from faster_whisper import WhisperModel  # noqa: PLC0415

    model = WhisperModel(str(weights), compute_type="int8", cpu_threads=os.cpu_count() or 1)

    def transcribe(recording: Path) -> str:
        segments, _ = model.transcribe(str(recording), beam_size=1)
        return "".join(segment.text for segment in segments)

    return transcribe


def load(corpus: Path, folder: str) -> list[Recording]:
    entries = json.loads((corpus / "librispeech.json").read_text())
    return [
        Recording(corpus / entry["file"], entry["text"], entry["seconds"])
        for entry in entries
        if entry["file"].startswith(folder)
    ]


def report_errors(corpus: Path, service: Service, weights: Path | None) -> None:
    utterances, long = load(corpus, "utterances"), load(corpus, "long")
    print("| system | recordings | words | WER | ins | del | sub | speed |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    if weights is not None:
        reference = faster_whisper(weights)
        print(score(utterances, reference).row("faster-whisper greedy, utterances"), flush=True)
        print(score(long, reference).row("faster-whisper greedy, long"), flush=True)
    print(score(utterances, service.text).row("service, utterances"), flush=True)
    print(score(long, service.text).row("service, long"), flush=True)
    side_by_side = score(long, service.text_without_context)
    print(side_by_side.row("service, long, windows side by side"), flush=True)


def report_checks(corpus: Path, service: Service) -> None:
    clips = sorted((corpus / "fleurs").glob("*.ogg"))
    right = sum(service.ask(clip)["language"] == clip.name.split("-")[1] for clip in clips)
    print(f"languages detected: {right} of {len(clips)} clips")
    for stem in ("jfk", "audioformats_p001"):
        files = [f for f in sorted((corpus / "formats").glob(f"{stem}.*")) if f.stat().st_size]
        texts = {normalize(service.text(file)) for file in files}
        print(f"{stem}: {len(files)} containers, {len(texts)} different texts")
    silent = sorted((corpus / "nonspeech").iterdir())
    empty = sum(service.text(clip) == "" for clip in silent)
    print(f"without speech: {empty} of {len(silent)} clips give an empty text")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--weights", type=Path, help="CTranslate2 folder for faster-whisper")
    options = parser.parse_args()
    service = Service(options.url)
    print(f"{service.engine()}; {os.cpu_count()} cores, {platform.machine()}; one at a time\n")
    report_errors(options.corpus, service, options.weights)
    print()
    report_checks(options.corpus, service)


if __name__ == "__main__":
    main()
