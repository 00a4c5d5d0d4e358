"""A whole recording: bytes in, transcript out.

decode -> find speech and cut long pauses out -> hear it window by window -> put the times
back. Steps that block run in worker threads. The transcript comes in pieces, each when its
window is heard, or whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from itertools import chain
from typing import BinaryIO

import numpy as np

from whisper_serve.account import Account
from whisper_serve.audio.decode import decode
from whisper_serve.audio.isolation import Decodes
from whisper_serve.audio.pcm import Samples, seconds, to_samples
from whisper_serve.audio.silero import SileroVad
from whisper_serve.audio.timeline import SpeechTimeline
from whisper_serve.audio.vad import Region, SpeechDetector, VadOptions, merge
from whisper_serve.audio.windows import WindowCutter
from whisper_serve.config import Config, VadConfig
from whisper_serve.engines.base import DecodeTask, Task, TemperaturePolicy
from whisper_serve.listening import Heard, Listener
from whisper_serve.observability.tracing import span
from whisper_serve.ports import Transcribes
from whisper_serve.text.transcript import Transcript

# Told how many seconds a recording has; what it raises ends the work.
Admits = Callable[[float], Awaitable[None]]


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
    """Transcribes recordings with the engines behind `port`. `decoder` unpacks them; for files
    that anybody can send it should be an `IsolatedDecoder`."""

    def __init__(self, port: Transcribes, config: Config, decoder: Decodes = decode) -> None:
        self._port = port
        self._config = config
        self._decode = decoder
        self._decoding = asyncio.Semaphore(config.limits.max_decoding_files)
        self._unpacking = 0

    @property
    def unpacking(self) -> int:
        """Files that are unpacked and searched for speech, or wait for that."""
        return self._unpacking

    async def transcribe(
        self, data: BinaryIO, options: TranscribeOptions, admit: Admits | None = None
    ) -> Transcript:
        """Raises `InvalidRequest` or `TooLarge` for what is in `data`, and what the port and
        `admit` raise."""
        async with aclosing(self.stream(data, options, admit)) as pieces:
            return joined([piece async for piece in pieces])

    async def stream(
        self, data: BinaryIO, options: TranscribeOptions, admit: Admits | None = None
    ) -> AsyncGenerator[Transcript, None]:
        """The transcript in pieces, at least one, each as soon as it is final. `admit` is asked
        before engines are.

        A piece has its own segments; all else tells of the whole recording, as far as it is
        known by then. `data` is read before the first piece comes and not needed behind it.
        Raises what `transcribe` raises. Closing the generator gives up the windows that wait.
        """
        speech = await self._unpacked(data, options)
        if admit is not None:
            await admit(speech.duration_s)
        so_far, account = Heard(), Account(self._port)
        heard = self._listen(speech, options, account) if speech.regions else _nothing()
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
        account.report("a recording was heard", speech.duration_s, options.model)

    async def _unpacked(self, data: BinaryIO, options: TranscribeOptions) -> Speech:
        self._unpacking += 1
        try:
            async with self._decoding:
                with span("read audio") as reading:
                    speech = await asyncio.to_thread(self._read, data, options)
                    reading.set_attribute("whisper_serve.audio_s", round(speech.duration_s, 3))
        finally:
            self._unpacking -= 1
        return speech

    def _read(self, data: BinaryIO, options: TranscribeOptions) -> Speech:
        recording = self._decode(
            data,
            accepted=self._config.model.supported_formats,
            max_duration_s=self._config.limits.max_audio_s,
        )
        vad = options.vad or self._config.vad
        return find_speech(recording, vad, prefix_padding_s=options.prefix_padding_s)

    def _listen(
        self, speech: Speech, options: TranscribeOptions, port: Transcribes
    ) -> AsyncGenerator[Heard, None]:
        chunking = self._config.chunking
        cutter = WindowCutter(
            speech.regions,
            len(speech.timeline.samples),
            length_s=chunking.chunk_duration,
            overlap_s=chunking.overlap,
            joints=speech.timeline.joints,
        )
        task = self._task(options)
        listener = Listener(port, speech.timeline.samples, cutter, task)
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


def joined(pieces: Sequence[Transcript]) -> Transcript:
    """The whole of what `Transcriber.stream` gave."""
    segments = chain.from_iterable(piece.segments for piece in pieces)
    return replace(pieces[-1], segments=tuple(segments))


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
