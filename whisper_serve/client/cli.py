"""`whisper-serve transcribe` and `whisper-serve stream`: the client in a terminal."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tqdm import tqdm

from whisper_serve.client.access import key_in
from whisper_serve.client.answers import Transcription
from whisper_serve.client.async_client import GIVE_UP_AFTER_S, AsyncClient
from whisper_serve.client.events import Event, Failed, Final, Partial, Ready, Reconnecting, Warned
from whisper_serve.client.options import StreamOptions, TranscribeOptions
from whisper_serve.client.recorder import Microphone, microphone
from whisper_serve.client.sources import InThread, Source
from whisper_serve.client.stream import Stream
from whisper_serve.client.terminal import Screen, renderer
from whisper_serve.errors import InvalidParameter, WhisperServeError

FAILED = 1
INTERRUPTED = 130
STDIN = "-"
STDIN_BYTES = 3_200
SUFFIXES = {"text": ".txt", "json": ".json", "srt": ".srt", "vtt": ".vtt"}
STREAM_OPTIONS = (
    *("model", "language", "task", "policy", "chunk_duration", "overlap"),
    *("encoding", "sample_rate", "channels"),
)


def transcribe(options: argparse.Namespace) -> int:
    """Returns 1 when a file failed, of which one line tells; the others are done."""
    if options.output_dir is not None:
        check_targets(options.files, options.output_dir, options.format)
    return run(_transcribe_all(client_of(options), options))


def stream(options: argparse.Namespace) -> int:
    """Returns 1 when the stream failed."""
    client = client_of(options, give_up_after_s=options.give_up_after)
    return run(_stream(client, options))


def client_of(options: argparse.Namespace, give_up_after_s: float = GIVE_UP_AFTER_S) -> AsyncClient:
    """Raises `InvalidParameter`."""
    key_file: Path | None = options.api_key_file
    return AsyncClient(
        options.url,
        api_key=None if key_file is None else key_in(key_file),
        ca_file=options.ca_file,
        give_up_after_s=give_up_after_s,
    )


def run(work: Coroutine[Any, Any, int]) -> int:
    """The exit code of `work`."""
    try:
        return asyncio.run(work)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


# transcribe


async def _transcribe_all(client: AsyncClient, options: argparse.Namespace) -> int:
    async with client:
        done = [await _try(client, path, options) for path in options.files]
    return 0 if all(done) else FAILED


async def _try(client: AsyncClient, path: Path, options: argparse.Namespace) -> bool:
    try:
        transcription = await _transcribe(client, path, options)
        give_out(written(transcription, path, options.format), path, options)
    except BrokenPipeError:
        raise
    except (WhisperServeError, OSError) as exc:
        complain(f"{path}: {exc}")
        return False
    return True


async def _transcribe(
    client: AsyncClient, path: Path, options: argparse.Namespace
) -> Transcription:
    with tqdm(desc=path.name, unit="B", unit_scale=True, leave=False, disable=None) as bar:

        def sent(count: int, total: int) -> None:
            bar.total = total
            bar.update(count - bar.n)
            if count == total:
                bar.set_description(f"{path.name}: transcribing")

        return await client.transcribe(path, progress=sent, **options_of(options))


def options_of(options: argparse.Namespace) -> TranscribeOptions:
    # Subtitles are cut at the times of words.
    with_words = options.word_timestamps or options.format in {"srt", "vtt"}
    chosen = TranscribeOptions(task=options.task, word_timestamps=with_words)
    if options.model:
        chosen["model"] = options.model
    if options.language:
        chosen["language"] = options.language
    return chosen


def written(transcription: Transcription, name: str | Path, form: str) -> str:
    match form:
        case "srt":
            return transcription.to_srt()
        case "vtt":
            return transcription.to_vtt()
        case "json":
            fields = {"file": str(name), **transcription.model_dump(mode="json")}
            return json.dumps(fields, ensure_ascii=False) + "\n"
    return transcription.text + "\n"


def give_out(text: str, path: Path, options: argparse.Namespace) -> None:
    if options.output_dir is not None:
        target = _target(path, options.output_dir, options.format)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        text = f"{target}\n"
    elif len(options.files) > 1 and options.format != "json":
        text = f"==> {path} <==\n{text}\n"
    print(text, end="", flush=True)  # noqa: T201


def _target(path: Path, folder: Path, form: str) -> Path:
    return folder / f"{path.stem}{SUFFIXES[form]}"


def check_targets(files: Sequence[Path], folder: Path, form: str) -> None:
    taken: dict[Path, Path] = {}
    for path in files:
        target = _target(path, folder, form)
        if target in taken:
            raise InvalidParameter("--output-dir", f"{taken[target]} and {path} share {target}")
        taken[target] = path


# stream


async def _stream(client: AsyncClient, options: argparse.Namespace) -> int:
    chosen = {key: getattr(options, key) for key in STREAM_OPTIONS}
    config: StreamOptions = {k: v for k, v in chosen.items() if v is not None}  # type: ignore[assignment]
    source = _source(options)
    screen = Screen(sys.stdout, sys.stderr, renderer(options.format))
    async with client, client.stream(source, realtime=options.realtime, **config) as events:
        _stop_at_ctrl_c(source)
        try:
            return await _show(events, screen, listening=options.mic)
        finally:
            screen.close()


async def _show(events: Stream, screen: Screen, *, listening: bool) -> int:
    try:
        async for event in events:
            _show_event(event, screen, listening=listening)
    except WhisperServeError as exc:
        screen.close()
        complain(str(exc))
        return FAILED
    return 0


def _show_event(event: Event, screen: Screen, *, listening: bool) -> None:
    match event:
        case Partial():
            screen.partial(event.text)
        case Final():
            screen.final(event)
        case Ready() if listening:
            screen.note("listening; Ctrl+C ends")
        case Reconnecting():
            again = f"trying again in {event.delay_s:.1f} s"
            screen.note(f"whisper-serve: no connection: {event.reason}; {again}")
        case Warned() | Failed():
            screen.note(f"whisper-serve: {event.message}")


def _source(options: argparse.Namespace) -> Source:
    if options.mic:
        device: str | None = options.device
        return microphone(int(device) if device and device.isdecimal() else device)
    if options.source == STDIN:
        return InThread(_read_stdin(sys.stdin.fileno()))
    return Path(options.source)


def _read_stdin(number: int) -> Iterator[bytes]:
    # Without Python's buffer, whose lock a blocked thread would hold when the process ends.
    while data := os.read(number, STDIN_BYTES):
        yield data


def _stop_at_ctrl_c(source: Source) -> None:
    """What was spoken so far is still transcribed; a second Ctrl+C breaks off."""
    if not isinstance(source, (Microphone, InThread)):
        return
    loop = asyncio.get_running_loop()

    def stop() -> None:
        loop.remove_signal_handler(signal.SIGINT)
        source.stop()

    # Without it, as on Windows or outside the main thread, the first Ctrl+C breaks off.
    with suppress(RuntimeError, ValueError):
        loop.add_signal_handler(signal.SIGINT, stop)


def complain(text: str) -> None:
    print(f"whisper-serve: error: {text}", file=sys.stderr)  # noqa: T201
