"""Live streams at real time through a running service: delays, word errors, CPU and memory.

    .venv/bin/python -m benchmarks.live_streams --corpus ../shared/audio --streams 1,8,16,32

Each stream is one of the six long recordings from its beginning, sent in pieces as a microphone
would give them, with plain `websockets`. Streams start spread over the length of a chunk.

- *final*: from when the last sample was sent that a `final` message's window needed, until it
  came. Where speech ends in a pause of two seconds its window ends before the pause does, and up
  to 1.5 s of waiting for speech count too.
- *word shown*, *word final*: from the end of each word in the audio.
- WER: against what was said until the stream was cut off, see `scores.spoken_text`.
- *cores*, *MiB*: of the service with all its processes, while all streams ran.
- *generator*: cores that this program took, and how late it sent a piece at the worst; when it
  is late itself, no other figure counts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from benchmarks.corpus import Recording, read_corpus
from benchmarks.delays import Answers, Sent, final_word_delays, shown_word_delays
from benchmarks.figures import heading, machine, percent, row, shown, shown_quantiles, write_json
from benchmarks.load import Meter, add_service, allow_many_sockets, asked_service, numbers, run
from benchmarks.plots import plot_streams
from benchmarks.processes import Service
from benchmarks.scores import WordErrors, spoken_text, word_errors
from whisper_serve.audio.pcm import SAMPLE_RATE, seconds, to_samples

END = '{"type": "end"}'
OPEN_TIMEOUT_S = 60.0
HEAD_START_S = 1.0
COLUMNS = (
    "streams", "failed", "finals", "final p50 / p95 / p99 / max, s", "words",
    "word shown p50 / p95, s", "word final p50 / p95, s", "WER", "ins / del / sub", "cores",
    "MiB", "generator: cores", "late by, s",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Manner:
    """How streams are sent. `config` is their first message, `piece` counts samples."""

    config: Mapping[str, Any]
    length_s: float
    piece: int
    spread_s: float
    patience_s: float


@dataclass(slots=True)
class Stream:
    """One stream: what it will say, and what came of it."""

    recording: Recording
    pieces: Sequence[bytes]
    sent: Sent
    received: list[tuple[float, str]] = field(default_factory=list)
    fault: str = ""

    @property
    def ended_s(self) -> float:
        """Seconds of audio that were sent."""
        return min(seconds(len(self.sent.at) * self.sent.piece), self.recording.seconds)


async def run_level(
    service: Service, recordings: Sequence[tuple[Recording, Sequence[bytes]]], count: int,
    manner: Manner,
) -> dict[str, Any]:  # fmt: skip
    """`count` streams side by side, and all that there is to tell about them."""
    chosen = [recordings[number % len(recordings)] for number in range(count)]
    sockets = await asyncio.gather(
        *(opened(service, manner) for _ in chosen), return_exceptions=True
    )
    began = time.monotonic() + HEAD_START_S
    streams = [
        Stream(*said, Sent(began + manner.spread_s * number / count, manner.piece))
        for number, said in enumerate(chosen)
    ]
    streaming = asyncio.gather(
        *(streamed(*pair, manner) for pair in zip(streams, sockets, strict=True))
    )
    usage = await _usage(service, began, manner)
    await streaming
    return {"streams": count, **usage, **findings(streams)}


async def opened(service: Service, manner: Manner) -> ClientConnection:
    socket = await connect(
        service.socket_url,
        compression=None,
        max_queue=None,
        ping_interval=None,
        open_timeout=OPEN_TIMEOUT_S,
        proxy=None,
    )
    await socket.send(json.dumps(manner.config))
    await asyncio.wait_for(socket.recv(), OPEN_TIMEOUT_S)  # `ready`
    return socket


async def streamed(
    stream: Stream, socket: ClientConnection | BaseException, manner: Manner
) -> None:
    """A stream from its first sample to the service's last word; faults are noted."""
    if isinstance(socket, BaseException):
        stream.fault = repr(socket)
        return
    speaking = asyncio.create_task(_speak(stream, socket))
    limit_s = HEAD_START_S + manner.spread_s + manner.length_s + manner.patience_s
    try:
        await asyncio.wait_for(_listen(stream, socket), limit_s)
        await speaking
    except (WebSocketException, OSError, asyncio.TimeoutError) as exc:
        stream.fault = repr(exc)
    finally:
        speaking.cancel()
        await asyncio.gather(speaking, return_exceptions=True)
        await socket.close()


async def _speak(stream: Stream, socket: ClientConnection) -> None:
    piece_s = seconds(stream.sent.piece)
    for number, piece in enumerate(stream.pieces, 1):
        wait_s = stream.sent.began + number * piece_s - time.monotonic()
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        await socket.send(piece)
        stream.sent.at.append(time.monotonic())
    await socket.send(END)


async def _listen(stream: Stream, socket: ClientConnection) -> None:
    """Only notes what comes: it is read when nothing is measured any more."""
    async for message in socket:
        assert isinstance(message, str)
        stream.received.append((time.monotonic(), message))


async def _usage(service: Service, began: float, manner: Manner) -> dict[str, Any]:
    """From when all streams have started until the first of them ends."""
    await _until(began + min(manner.spread_s, manner.length_s / 2))
    meter = await asyncio.to_thread(Meter, service)
    await _until(began + manner.length_s)
    used = await asyncio.to_thread(meter.read)
    memory = await asyncio.to_thread(service.tree.memory_mib) if service.tree else None
    return {"cores": used.cores, "generator_cores": used.own_cores, "memory_mib": memory}


async def _until(time_s: float) -> None:
    await asyncio.sleep(max(0.0, time_s - time.monotonic()))


def findings(streams: Sequence[Stream]) -> dict[str, Any]:
    """What the messages tell; streams that were never begun count as failed only."""
    begun = [stream for stream in streams if stream.sent.at]
    heard = [(stream, Answers.parse(stream.received)) for stream in begun]
    words = [(stream, answers.words()) for stream, answers in heard]
    told: Counter[str] = Counter()
    for _, answers in heard:
        told.update(f"{m['type']} {m['code']}" for _, m in answers.messages if "code" in m)
    return {
        "faults": [stream.fault for stream in streams if stream.fault],
        "told": dict(told),
        "final_s": [delay for s, answers in heard for delay in answers.final_delays(s.sent)],
        "word_final_s": [d for s, said in words for d in final_word_delays(said, s.sent.began)],
        "word_shown_s": [d for s, said in words for d in shown_word_delays(said, s.sent.began)]
        if any(word.shown_at is not None for _, said in words for word in said)
        else [],
        "late_s": max((lag for stream in begun for lag in stream.sent.lags()), default=0.0),
        "texts": [answers.text for _, answers in heard],
        "references": [
            spoken_text(stream.recording, stream.ended_s, answers.text) for stream, answers in heard
        ],
    }


def show(level: Mapping[str, Any]) -> str:
    errors = _errors(level)
    longest = max(level["final_s"], default=None)
    return row(
        [
            level["streams"],
            len(level["faults"]),
            len(level["final_s"]),
            f"{shown_quantiles(level['final_s'], (0.5, 0.95, 0.99))} / {shown(longest)}",
            len(level["word_final_s"]),
            shown_quantiles(level["word_shown_s"], (0.5, 0.95)),
            shown_quantiles(level["word_final_s"], (0.5, 0.95)),
            percent(errors.rate) if errors else "-",
            errors.kinds if errors else "-",
            shown(level["cores"]),
            shown(level["memory_mib"], 0),
            shown(level["generator_cores"]),
            shown(level["late_s"]),
        ]
    )


def _errors(level: Mapping[str, Any]) -> WordErrors | None:
    return word_errors(level["references"], level["texts"]) if level["texts"] else None


def said_by(recordings: Sequence[Recording], manner: Manner) -> list[tuple[Recording, list[bytes]]]:
    """Each recording with its pieces, s16le."""
    return [(recording, _pieces(recording, manner)) for recording in recordings]


def _pieces(recording: Recording, manner: Manner) -> list[bytes]:
    samples = recording.samples()[: to_samples(manner.length_s)]
    size = manner.piece
    return [samples[at : at + size].astype("<i2").tobytes() for at in range(0, len(samples), size)]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add_service(parser)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--streams", type=numbers, default=[1, 8, 16, 32], metavar="N,N,...")
    parser.add_argument("--seconds", type=float, default=60.0, help="length of each stream")
    parser.add_argument("--policy", choices=["chunk", "agreement", "utterance"], default="chunk")
    parser.add_argument("--chunk", type=float, default=5.0, help="seconds (default: %(default)s)")
    parser.add_argument("--overlap", type=float, default=0.5, help="seconds (default: %(default)s)")
    parser.add_argument("--interim", action="store_true", help="ask for partial text too")
    parser.add_argument("--piece", type=float, default=100.0, help="of audio, in milliseconds")
    parser.add_argument(
        "--spread", type=float, help="seconds over which streams start (default: a chunk)"
    )
    parser.add_argument(
        "--patience", type=float, default=120.0, help="seconds to wait behind a stream's end"
    )
    parser.add_argument("--plot", type=Path, help="draw the table: .svg or .png")
    parser.add_argument("--json", type=Path, help="keep all delays and texts")
    return parser.parse_args()


def manner_of(options: argparse.Namespace) -> Manner:
    config = {
        "language": "en",
        "policy": options.policy,
        "chunk_duration": options.chunk,
        "overlap": options.overlap,
        "interim": options.interim,
    }
    return Manner(
        config=config,
        length_s=options.seconds,
        piece=round(options.piece * SAMPLE_RATE / 1000),
        spread_s=options.chunk if options.spread is None else options.spread,
        patience_s=options.patience,
    )


def main() -> None:
    options = arguments()
    allow_many_sockets()
    manner = manner_of(options)
    said = said_by(read_corpus(options.corpus, "long"), manner)
    room = max(options.streams)
    settings = {"streaming.max_sessions": room, "streaming.max_sessions_per_client": room}
    levels = []
    with asked_service(options, settings) as service:
        engine = service.engine()
        print(f"{engine}; {machine()}; streams of {manner.length_s:g} s, {manner.config}\n")
        print(heading(COLUMNS))
        for count in options.streams:
            level = run(run_level(service, said, count, manner))
            levels.append(level)
            print(show(level), flush=True)
            for fault, times in Counter([*level["faults"], *level["told"]]).items():
                print(f"{count} streams: {times} x {fault}", file=sys.stderr)
    write_json(options.json, {"engine": engine, "config": manner.config, "levels": levels})
    if options.plot:
        plot_streams(levels, f"{engine}; {machine()}", options.plot)


if __name__ == "__main__":
    main()
