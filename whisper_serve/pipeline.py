"""A whole recording: bytes in, transcript out.

decode -> find speech and cut long pauses out -> hear it window by window -> put the times
back. Steps that block run in worker threads.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from whisper_serve.audio.decode import decode
from whisper_serve.audio.pcm import Samples, seconds
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
    """What a client may choose for one recording; `beam_size` and `use_context` None are the
    configured way."""

    language: str | None = None
    task: Task = "transcribe"
    prompt: str = ""
    hotwords: str = ""
    temperature: float = 0.0
    beam_size: int | None = None
    best_of: int = 5
    suppress_tokens: tuple[int, ...] = (-1,)
    use_context: bool | None = None
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
        async with self._decoding:
            speech = await asyncio.to_thread(self._read, data)
        heard = await self._hear(speech, options) if speech.regions else Heard()
        return Transcript(
            segments=tuple(speech.timeline.restore(segment) for segment in heard.segments),
            language=heard.language or options.language,
            language_probability=heard.language_probability,
            duration=speech.duration_s,
            gpu_memory_gib=heard.gpu_memory_gib,
        )

    def _read(self, data: BinaryIO) -> Speech:
        recording = decode(
            data,
            accepted=self._config.model.supported_formats,
            max_duration_s=self._config.limits.max_audio_s,
        )
        return find_speech(recording, self._config.vad)

    async def _hear(self, speech: Speech, options: TranscribeOptions) -> Heard:
        chunking = self._config.chunking
        cutter = WindowCutter(
            speech.regions,
            len(speech.timeline.samples),
            length_s=chunking.chunk_duration,
            overlap_s=chunking.overlap,
        )
        task = self._task(options)
        listener = Listener(self._port, speech.timeline.samples, cutter, task)
        use_context = options.use_context
        if chunking.use_context if use_context is None else use_context:
            return await listener.in_sequence()
        return await listener.side_by_side(self._config.limits.max_windows_per_file)

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
            timeout_s=self._config.limits.window_timeout_s,
        )


def find_speech(recording: Samples, config: VadConfig) -> Speech:
    """Silero's view of a recording: pauses longer than `max_pause_s` are cut out, all else
    is kept as it is, with `padding_s` around it."""
    vad = SileroVad()
    detector = SpeechDetector(
        VadOptions(threshold=config.threshold, min_speech_s=config.min_speech_s)
    )
    regions = [*detector.push(vad.push(recording)), *detector.push(vad.finish())]
    regions += detector.finish()
    regions = [Region(r.start, min(r.end, len(recording))) for r in regions]
    kept = merge(
        regions, max_gap_s=config.max_pause_s, pad_s=config.padding_s, total=len(recording)
    )
    timeline = SpeechTimeline(recording, kept)
    return Speech(seconds(len(recording)), timeline, tuple(timeline.locate(regions)))
