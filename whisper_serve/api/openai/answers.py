"""What `/v1/audio` answers with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, Field
from starlette.responses import JSONResponse, Response

from whisper_serve.api.openai.parameters import FileParameters
from whisper_serve.api.plain_bodies import plain_body
from whisper_serve.api.schemas import VerboseSegmentOut
from whisper_serve.engines.base import Task
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


class TranscriptionSegment(VerboseSegmentOut):
    """As the native API has it, but with the space before its text."""

    @classmethod
    def of(cls, number: int, segment: Segment) -> TranscriptionSegment:
        native = VerboseSegmentOut.of(number, segment).model_dump()
        return cls(**{**native, "text": segment.text})


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
        case "text" | "srt" | "vtt" as form:
            return plain_body(transcript, form)
        case "json":
            short = Transcription.of(transcript, with_logprobs=parameters.with_logprobs)
            return JSONResponse(short.model_dump())
        case "verbose_json":
            verbose = VerboseTranscription.of(transcript, parameters, task)
            return JSONResponse(verbose.model_dump())
