"""A whole recording: bytes in, transcript out.

decode -> find speech and cut long pauses out -> hear it window by window -> put the times
back. Steps that block run in worker threads. The transcript comes in pieces, each when its
window is heard, or whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace
from itertools import chain
from typing import BinaryIO

import numpy as np

from whisper_serve.audio.decode import decode
from whisper_serve.audio.pcm import Samples, seconds, to_samples
from whisper_serve.audio.silero import SileroVad
from whisper_serve.audio.timeline import SpeechTimeline
from whisper_serve.audio.vad import Region, SpeechDetector, VadOptions, merge
from whisper_serve.audio.windows import WindowCutter
from whisper_serve.config import Config, VadConfig
from whisper_serve.engines.base import DecodeTask, Task, TemperaturePolicy
from whisper_serve.listening import Heard, Listener
from whisper_serve.ports import Transcribes
from whisper_serve.text.transcript import Transcript


@dataclass(frozen=True, slots=True)
class TranscribeOptions:
    """What a client may choose for one recording; `beam_size`, `use_context` and `vad` None are
    the configured way, and so is an empty `model`. `prefix_padding_s`: what is kept before speech
    when a pause is cut out; None is `vad.padding_s`, as it is behind speech."""

    model: str = ""
    language: str | None = None
    task: Task = "transcribe"
    prompt: str = ""
    hotwords: str = ""
    temperature: float = 0.0
    beam_size: int | None = None
    best_of: int = 5
    suppress_tokens: tuple[int, ...] = (-1,)
    use_context: bool | None = None
    vad: VadConfig | None = None
    prefix_padding_s: float | None = None
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Speech:
    """The speech of a recording of `duration_s`, its long pauses cut out; `regions` say
    where in it people speak."""

    duration_s: float
    timeline: SpeechTimeline
    regions: tuple[Region, ...]


class Transcriber:
    """Transcribes recordings with the engines behind `port`."""

    def __init__(self, port: Transcribes, config: Config) -> None:
        self._port = port
        self._config = config
        self._decoding = asyncio.Semaphore(config.limits.max_decoding_files)

    async def transcribe(self, data: BinaryIO, options: TranscribeOptions) -> Transcript:
        """Raises `InvalidRequest` or `TooLarge` for what is in `data`, and what the port
        raises."""
        async with aclosing(self.stream(data, options)) as pieces:
            parts = [piece async for piece in pieces]
        segments = chain.from_iterable(part.segments for part in parts)
        return replace(parts[-1], segments=tuple(segments))

    async def stream(
        self, data: BinaryIO, options: TranscribeOptions
    ) -> AsyncGenerator[Transcript, None]:
        """The transcript in pieces, at least one, each as soon as it is final.

        A piece has its own segments; all else tells of the whole recording, as far as it is
        known by then. `data` is read before the first piece comes and not needed behind it.
        Raises what `transcribe` raises. Closing the generator gives up the windows that wait.
        """
        async with self._decoding:
            speech = await asyncio.to_thread(self._read, data, options)
        so_far = Heard()
        heard = self._listen(speech, options) if speech.regions else _nothing()
        async with aclosing(heard) as pieces:
            async for piece in pieces:
                so_far = so_far.then(piece)
                yield Transcript(
                    segments=tuple(map(speech.timeline.restore, piece.segments)),
                    language=so_far.language or options.language,
                    language_probability=so_far.language_probability,
                    duration=speech.duration_s,
                    gpu_memory_gib=so_far.gpu_memory_gib,
                )

    def _read(self, data: BinaryIO, options: TranscribeOptions) -> Speech:
        recording = decode(
            data,
            accepted=self._config.model.supported_formats,
            max_duration_s=self._config.limits.max_audio_s,
        )
        vad = options.vad or self._config.vad
        return find_speech(recording, vad, prefix_padding_s=options.prefix_padding_s)

    def _listen(self, speech: Speech, options: TranscribeOptions) -> AsyncGenerator[Heard, None]:
        chunking = self._config.chunking
        cutter = WindowCutter(
            speech.regions,
            len(speech.timeline.samples),
            length_s=chunking.chunk_duration,
            overlap_s=chunking.overlap,
            joints=speech.timeline.joints,
        )
        task = self._task(options)
        listener = Listener(self._port, speech.timeline.samples, cutter, task)
        use_context = options.use_context
        if chunking.use_context if use_context is None else use_context:
            return listener.in_sequence()
        return listener.side_by_side(self._config.limits.max_windows_per_file)

    def _task(self, options: TranscribeOptions) -> DecodeTask:
        configured = self._config.model.beam_size
        return DecodeTask(
            samples=np.zeros(0, np.int16),
            language=options.language,
            task=options.task,
            context=options.prompt,
            hotwords=options.hotwords,
            temperature=TemperaturePolicy.starting_at(options.temperature),
            beam_size=configured if options.beam_size is None else options.beam_size,
            best_of=options.best_of,
            suppress_tokens=options.suppress_tokens,
            request_id=options.request_id,
            model=options.model,
            timeout_s=self._config.limits.window_timeout_s,
        )


async def _nothing() -> AsyncGenerator[Heard, None]:
    yield Heard()


def find_speech(
    recording: Samples, config: VadConfig, *, prefix_padding_s: float | None = None
) -> Speech:
    """Silero's view of a recording: pauses longer than `max_pause_s` are cut out, all else
    is kept as it is, with `padding_s` around it, or `prefix_padding_s` before it."""
    vad = SileroVad()
    detector = SpeechDetector(
        VadOptions(threshold=config.threshold, min_speech_s=config.min_speech_s)
    )
    regions = [*detector.push(vad.push(recording)), *detector.push(vad.finish())]
    regions += detector.finish()
    regions = [Region(r.start, min(r.end, len(recording))) for r in regions]
    behind = to_samples(config.padding_s)
    before = behind if prefix_padding_s is None else to_samples(prefix_padding_s)
    padded = [Region(r.start - before, r.end + behind) for r in regions]
    kept = merge(padded, max_gap_s=config.max_pause_s, pad_s=0.0, total=len(recording))
    timeline = SpeechTimeline(recording, kept)
    return Speech(seconds(len(recording)), timeline, tuple(timeline.locate(regions)))
