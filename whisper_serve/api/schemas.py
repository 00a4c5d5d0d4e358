"""What goes over the wire in the native REST API, both ways."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
    field_validator,
)

from whisper_serve.errors import InvalidParameter
from whisper_serve.streaming.messages import (
    MAX_HOTWORDS_CHARS,
    MAX_MODEL_CHARS,
    MAX_PROMPT_CHARS,
    Alternatives,
    TokenIds,
)
from whisper_serve.text.languages import language_code
from whisper_serve.text.transcript import Segment, Transcript, Word

ResponseFormat = Literal["json", "text", "srt", "vtt", "verbose_json"]


class TranscribeParameters(BaseModel):
    """Query or form fields of `POST /transcribe`; all are optional."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    model: str = Field(
        "",
        max_length=MAX_MODEL_CHARS,
        description="Name of a served model; without it the default one.",
    )
    language: str | None = Field(
        None, description="Code or English name; without it the language is detected."
    )
    task: Literal["transcribe", "translate"] = Field(
        "transcribe", description="`translate` writes English whatever is spoken."
    )
    prompt: str = Field(
        "",
        max_length=MAX_PROMPT_CHARS,
        description="Text in the style and spelling that the transcript shall have.",
    )
    hotwords: str = Field(
        "", max_length=MAX_HOTWORDS_CHARS, description="Words that are likely to be spoken."
    )
    word_timestamps: bool = Field(False, description="Answer with each word and its times.")
    temperature: float = Field(
        0.0, ge=0.0, le=1.0, description="Where Whisper's ladder of temperatures begins."
    )
    beam_size: Alternatives | None = Field(
        None,
        description="Alternatives that are kept at temperature 0, as configured by default; "
        "1 is greedy.",
    )
    best_of: Alternatives = Field(
        5, description="Samples of which the likeliest is taken, at temperatures above 0."
    )
    suppress_tokens: Annotated[TokenIds, WithJsonSchema({"type": "string"})] = Field(
        (-1,),
        description="Ids of tokens that the text may not hold, with commas between them; "
        "-1 stands for marks that nobody speaks.",
        json_schema_extra={"default": "-1"},
    )
    use_context: bool | None = Field(
        None, description="Decode each window with the text before it as prompt."
    )
    response_format: ResponseFormat = Field("json", description="Form of the answer.")

    @field_validator("language", mode="before")
    @classmethod
    def _language_code(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return language_code(value) if value.strip() else None

    @field_validator("suppress_tokens", mode="before")
    @classmethod
    def _token_ids(cls, value: object) -> object:
        """Written as on openai-whisper's command line; nothing at all is no ids."""
        if not isinstance(value, str):
            return value
        try:
            return tuple(int(part) for part in value.split(",")) if value.strip() else ()
        except ValueError as exc:
            raise ValueError("token ids are whole numbers with commas between them") from exc

    @classmethod
    def parse(cls, fields: Mapping[str, str]) -> TranscribeParameters:
        """Raises `InvalidParameter` for the first field that is wrong."""
        try:
            return cls.model_validate(fields)
        except ValidationError as exc:
            error = exc.errors()[0]
            name = ".".join(str(part) for part in error["loc"])
            reason = error["msg"].removeprefix("Value error, ")
            if error["type"] == "extra_forbidden":
                reason = f"unknown parameter; known: {', '.join(cls.model_fields)}"
            raise InvalidParameter(name, reason) from exc


class WordOut(BaseModel):
    """A word and its times in seconds from the start of the recording."""

    word: str
    start: float
    end: float
    probability: float

    @classmethod
    def of(cls, word: Word) -> WordOut:
        return cls(
            word=word.text.strip(),
            start=round(word.start, 3),
            end=round(word.end, 3),
            probability=round(word.probability, 4),
        )


class SegmentOut(BaseModel):
    """A stretch of speech, its times in seconds from the start of the recording."""

    id: int
    start: float
    end: float
    text: str

    @classmethod
    def of(cls, number: int, segment: Segment) -> SegmentOut:
        return cls(
            id=number,
            start=round(segment.start, 3),
            end=round(segment.end, 3),
            text=segment.text.strip(),
        )


class VerboseSegmentOut(SegmentOut):
    """A segment with the numbers of the decode that gave it, as Whisper names them."""

    seek: int
    tokens: list[int]
    temperature: float
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float

    @classmethod
    def of(cls, number: int, segment: Segment) -> VerboseSegmentOut:
        return cls(
            **SegmentOut.of(number, segment).model_dump(),
            seek=segment.seek_frames,
            tokens=list(segment.tokens),
            temperature=segment.temperature,
            avg_logprob=segment.avg_logprob,
            compression_ratio=segment.compression_ratio,
            no_speech_prob=segment.no_speech_prob,
        )


class TranscriptionOut(BaseModel):
    """The answer to `POST /transcribe`, and, with `success` false, to every failure.

    The first six fields are a promise to existing clients. `latency` is in seconds,
    `gpu_memory` in GiB, `duration` the recording's length in seconds.
    """

    success: bool
    text: str
    latency: float
    word_count: int
    gpu_memory: float
    error: str | None
    code: str | None = None
    language: str | None = None
    language_probability: float | None = None
    duration: float | None = None
    segments: list[VerboseSegmentOut | SegmentOut] | None = None
    words: list[WordOut] | None = None
    request_id: str

    @classmethod
    def of(
        cls,
        transcript: Transcript,
        *,
        latency_s: float,
        request_id: str,
        with_words: bool,
        verbose: bool,
    ) -> TranscriptionOut:
        segment_out = VerboseSegmentOut if verbose else SegmentOut
        return cls(
            success=True,
            text=transcript.text,
            latency=round(latency_s, 3),
            word_count=transcript.word_count,
            gpu_memory=round(transcript.gpu_memory_gib, 3),
            error=None,
            language=transcript.language,
            language_probability=round(transcript.language_probability, 4),
            duration=round(transcript.duration, 3),
            segments=[segment_out.of(i, s) for i, s in enumerate(transcript.segments)],
            words=[WordOut.of(word) for word in transcript.words] if with_words else None,
            request_id=request_id,
        )

    @classmethod
    def failure(
        cls, *, error: str, code: str, latency_s: float, request_id: str
    ) -> TranscriptionOut:
        return cls(
            success=False,
            text="",
            latency=round(latency_s, 3),
            word_count=0,
            gpu_memory=0.0,
            error=error,
            code=code,
            request_id=request_id,
        )


class HealthOut(BaseModel):
    """The answer to `GET /health` and `GET /readyz`; all but `status` and `reason` are of
    the engine that answered. `load_s`: seconds that loading its weights took. `audio_waiting_s`:
    seconds of audio in the windows that wait."""

    status: Literal["healthy", "unhealthy", "draining"]
    reason: str | None = None
    version: str
    engine: str | None = None
    model: str | None = None
    device: str | None = None
    compute_type: str | None = None
    load_s: float | None = None
    windows_waiting: int | None = None
    audio_waiting_s: float | None = None
    windows_running: int | None = None
