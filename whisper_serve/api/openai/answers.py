"""What `/v1/audio` answers with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, Field
from starlette.responses import JSONResponse, PlainTextResponse, Response

from whisper_serve.api.openai.parameters import FileParameters
from whisper_serve.api.routes.transcribe import SRT_TYPE
from whisper_serve.engines.base import Task
from whisper_serve.text.formats import to_srt, to_vtt
from whisper_serve.text.languages import LANGUAGES
from whisper_serve.text.transcript import Segment, Transcript, Word

# What OpenAI's API says of a token that is not likely at all.
IMPOSSIBLE = -9999.0


def _absent(value: object) -> bool:
    return value is None


class Usage(BaseModel):
    """`seconds`: length of the recording, rounded up."""

    type: Literal["duration"] = "duration"
    seconds: int

    @classmethod
    def of(cls, duration_s: float) -> Usage:
        return cls(seconds=math.ceil(duration_s))


class Logprob(BaseModel):
    """The log probability of a word, which stands for that of a token; `bytes` are its UTF-8."""

    token: str
    bytes: list[int]
    logprob: float

    @classmethod
    def of(cls, word: Word) -> Logprob:
        logprob = math.log(word.probability) if word.probability > 0 else IMPOSSIBLE
        return cls(
            token=word.text, bytes=list(word.text.encode()), logprob=round(min(0.0, logprob), 6)
        )


class Transcription(BaseModel):
    """The answer in `json`; `logprobs` are there when they are asked for."""

    text: str
    logprobs: list[Logprob] | None = Field(None, exclude_if=_absent)
    usage: Usage

    @classmethod
    def of(cls, transcript: Transcript, *, with_logprobs: bool) -> Transcription:
        return cls(
            text=transcript.text,
            logprobs=logprobs_of(transcript.segments) if with_logprobs else None,
            usage=Usage.of(transcript.duration),
        )


class TranscriptionSegment(BaseModel):
    """A stretch of speech with the numbers of the decode that gave it, as Whisper names them.
    Times are seconds from the start of the recording, `seek` is in frames of 10 ms."""

    id: int
    seek: int
    start: float
    end: float
    text: str
    tokens: list[int]
    temperature: float
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float

    @classmethod
    def of(cls, number: int, segment: Segment) -> TranscriptionSegment:
        return cls(
            id=number,
            seek=segment.seek_frames,
            start=round(segment.start, 3),
            end=round(segment.end, 3),
            text=segment.text,
            tokens=list(segment.tokens),
            temperature=segment.temperature,
            avg_logprob=segment.avg_logprob,
            compression_ratio=segment.compression_ratio,
            no_speech_prob=segment.no_speech_prob,
        )


class TranscriptionWord(BaseModel):
    """A word and its times in seconds from the start of the recording."""

    word: str
    start: float
    end: float

    @classmethod
    def of(cls, word: Word) -> TranscriptionWord:
        return cls(word=word.text.strip(), start=round(word.start, 3), end=round(word.end, 3))


class VerboseTranscription(BaseModel):
    """The answer in `verbose_json`; `segments` and `words` are there when their times are asked
    for. `language`: name of the language that is written; empty when nobody speaks."""

    task: Task
    language: str
    duration: float
    text: str
    segments: list[TranscriptionSegment] | None = Field(None, exclude_if=_absent)
    words: list[TranscriptionWord] | None = Field(None, exclude_if=_absent)
    usage: Usage

    @classmethod
    def of(
        cls, transcript: Transcript, parameters: FileParameters, task: Task
    ) -> VerboseTranscription:
        wanted = parameters.granularities
        segments = [TranscriptionSegment.of(i, s) for i, s in enumerate(transcript.segments)]
        return cls(
            task=task,
            language="english" if task == "translate" else language_name(transcript.language),
            duration=round(transcript.duration, 3),
            text=transcript.text,
            segments=segments if "segment" in wanted else None,
            words=[*map(TranscriptionWord.of, transcript.words)] if "word" in wanted else None,
            usage=Usage.of(transcript.duration),
        )


class TextDelta(BaseModel):
    """More text; the transcript is all deltas, one behind the other."""

    type: Literal["transcript.text.delta"] = "transcript.text.delta"
    delta: str
    logprobs: list[Logprob] | None = Field(None, exclude_if=_absent)


class TextDone(BaseModel):
    """The end of a stream, with the whole text."""

    type: Literal["transcript.text.done"] = "transcript.text.done"
    text: str
    logprobs: list[Logprob] | None = Field(None, exclude_if=_absent)
    usage: Usage


def logprobs_of(segments: Sequence[Segment]) -> list[Logprob]:
    return [Logprob.of(word) for segment in segments for word in segment.words]


def language_name(code: str | None) -> str:
    """Its English name; empty for None."""
    return LANGUAGES.get(code, code) if code else ""


def answer(transcript: Transcript, parameters: FileParameters, task: Task) -> Response:
    match parameters.response_format:
        case "text":
            return PlainTextResponse(transcript.text + "\n")
        case "srt":
            return Response(to_srt(transcript.segments), media_type=SRT_TYPE)
        case "vtt":
            return Response(to_vtt(transcript.segments), media_type="text/vtt")
        case "json":
            short = Transcription.of(transcript, with_logprobs=parameters.with_logprobs)
            return JSONResponse(short.model_dump())
        case "verbose_json":
            verbose = VerboseTranscription.of(transcript, parameters, task)
            return JSONResponse(verbose.model_dump())
