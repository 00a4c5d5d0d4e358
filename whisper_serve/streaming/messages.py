"""What goes over the socket, both ways: `docs/protocol.md` as types.

Client frames are parsed and checked here, once. Server messages are plain values that
`wire` turns into JSON objects.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from whisper_serve.errors import InvalidMessage, InvalidParameter
from whisper_serve.text.languages import language_code
from whisper_serve.text.transcript import Word

PROTOCOL = 1

PolicyName = Literal["chunk", "agreement", "utterance"]
Cause = Literal["silence", "flush"]
Encoding = Literal["pcm_s16le", "pcm_f32le", "mulaw", "alaw", "container"]
# What cannot change once audio flows.
FIXED = (
    *("encoding", "sample_rate", "channels", "resume"),
    *("vad", "vad_threshold", "endpointing", "utterance_end", "prefix_padding"),
)

MAX_MODEL_CHARS = 200
MAX_PROMPT_CHARS = 4_000
MAX_HOTWORDS_CHARS = 1_000
MAX_CONTEXT_CHARS = 4_000
MAX_RESUME_WORDS = 400
# Twenty years, far from where a double cannot tell one sample from the next.
MAX_STREAM_S = 6e8
Seconds = Annotated[float, Field(ge=0.0, le=MAX_STREAM_S)]

MAX_TOKEN_IDS = 1_000
# Of the largest of Whisper's vocabularies.
MAX_TOKEN_ID = 51_865


def _within_bounds(ids: tuple[int, ...]) -> tuple[int, ...]:
    if len(ids) > MAX_TOKEN_IDS:
        raise ValueError(f"at most {MAX_TOKEN_IDS:,} token ids, and these are {len(ids):,}")
    if not all(-1 <= token <= MAX_TOKEN_ID for token in ids):
        raise ValueError(f"token ids are whole numbers from -1 to {MAX_TOKEN_ID}")
    return ids


# How a client may have a window decoded, whether of a stream or of a file.
Alternatives = Annotated[int, Field(ge=1, le=10)]
TokenIds = Annotated[tuple[int, ...], AfterValidator(_within_bounds)]


class KnownWord(NamedTuple):
    """A committed word, its times in seconds of the stream."""

    text: Annotated[str, Field(min_length=1, max_length=200)]
    start: Seconds
    end: Seconds


class ResumePoint(BaseModel):
    """Where an interrupted stream goes on, as `ack` and `final` gave it.

    `window_from` is where the next window begins, somewhat behind `audio_from`; null between
    stretches of speech. `context` was said before it, `words` from there to `committed_until`.
    `position` is where the last window that gave final text ended, and `tail` what it heard
    behind the final text.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    committed_until: Seconds
    context: str = Field("", max_length=MAX_CONTEXT_CHARS)
    audio_from: Seconds | None = None
    window_from: Seconds | None = None
    position: Seconds | None = None
    words: tuple[KnownWord, ...] = Field((), max_length=MAX_RESUME_WORDS)
    tail: tuple[KnownWord, ...] = Field((), max_length=MAX_RESUME_WORDS)
    language: str | None = None

    @model_validator(mode="after")
    def _in_order(self) -> ResumePoint:
        names = ("audio_from", "window_from", "committed_until", "position")
        times = [(name, getattr(self, name)) for name in names if getattr(self, name) is not None]
        for (before, earlier), (name, time) in pairwise(times):
            if time < earlier:
                raise ValueError(f"{name}: must not lie before {before}")
        return self


class StreamConfig(BaseModel):
    """What a client may choose for one stream; see `docs/protocol.md`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    model: str = Field("", max_length=MAX_MODEL_CHARS)
    language: str | None = None
    task: Literal["transcribe", "translate"] = "transcribe"
    policy: PolicyName = "chunk"
    chunk_duration: float = Field(5.0, ge=1.0, le=20.0)
    overlap: float = Field(0.5, ge=0.1)
    use_context: bool = True
    interim: bool = True
    word_timestamps: bool = True
    vad: bool = True
    vad_threshold: float | None = Field(None, gt=0.0, lt=1.0)
    endpointing: float | None = Field(None, ge=0.1, le=10.0)
    utterance_end: float | None = Field(None, ge=0.1, le=10.0)
    prefix_padding: float = Field(0.1, ge=0.0, le=2.0)
    prompt: str = Field("", max_length=MAX_PROMPT_CHARS)
    hotwords: str = Field("", max_length=MAX_HOTWORDS_CHARS)
    beam_size: Alternatives | None = None
    best_of: Alternatives = 5
    suppress_tokens: TokenIds = (-1,)
    encoding: Encoding = "pcm_s16le"
    sample_rate: int = Field(16_000, ge=8_000, le=48_000)
    channels: int = Field(1, ge=1, le=2)
    resume: ResumePoint | None = None

    @field_validator("language")
    @classmethod
    def _language_code(cls, value: str | None) -> str | None:
        return language_code(value) if value else None

    @model_validator(mode="after")
    def _overlap_fits(self) -> StreamConfig:
        if self.overlap >= self.chunk_duration:
            raise ValueError(f"overlap: must be less than chunk_duration, {self.chunk_duration:g}")
        return self

    @model_validator(mode="after")
    def _silence_can_be_told(self) -> StreamConfig:
        for name in ("endpointing", "utterance_end"):
            if not self.vad and getattr(self, name) is not None:
                raise ValueError(f"{name}: needs vad")
        return self

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> StreamConfig:
        """Raises `InvalidParameter` for the first key that is wrong."""
        try:
            # As JSON, so that strictness knows lists as tuples.
            return cls.model_validate_json(json.dumps(values), strict=True)
        except ValidationError as exc:
            raise _refusal(exc) from exc
        except RecursionError as exc:  # what could just be read cannot always be written
            raise InvalidMessage("the settings are nested too deeply") from exc

    def changed(self, values: Mapping[str, Any]) -> StreamConfig:
        """This configuration with `values` over it. Raises `InvalidParameter`."""
        current = self.model_dump(mode="json")
        for name in FIXED:
            if name in values and values[name] != current[name]:
                raise InvalidParameter(name, "it cannot change within a stream")
        return self.parse({**current, **values})


@dataclass(frozen=True, slots=True)
class Configure:
    """Settings to change; those that are not named stay."""

    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Flush:
    """Commit all that was received."""


@dataclass(frozen=True, slots=True)
class Reset:
    """Drop what is not committed, forget the context."""


@dataclass(frozen=True, slots=True)
class Keepalive:
    """Nothing, but the client is there."""


@dataclass(frozen=True, slots=True)
class End:
    """No more audio will come."""


ClientMessage = Configure | Flush | Reset | Keepalive | End
COMMANDS: dict[str, ClientMessage] = {
    "flush": Flush(),
    "reset": Reset(),
    "keepalive": Keepalive(),
    "end": End(),
}


@dataclass(frozen=True, slots=True)
class Ready:
    """The configuration in force, and what the server allows."""

    session_id: str
    config: StreamConfig
    limits: Mapping[str, float]
    kind: ClassVar = "ready"

    def fields(self) -> dict[str, Any]:
        config = self.config.model_dump(mode="json", exclude={"resume"})
        return {
            "session_id": self.session_id,
            "protocol": PROTOCOL,
            "config": config,
            "limits": dict(self.limits),
        }


@dataclass(frozen=True, slots=True)
class Partial:
    """Text that may still change, behind everything final. `words` are those of the text, for
    dialects that tell them; they are not among the `fields`."""

    start: float
    end: float
    text: str
    words: tuple[Word, ...] = ()
    kind: ClassVar = "partial"

    def fields(self) -> dict[str, Any]:
        return {"start": _ms(self.start), "end": _ms(self.end), "text": self.text}


@dataclass(frozen=True, slots=True)
class Final:
    """Text that never changes; `words` (not empty) are those of the text. `text` is given
    whole because the first words of a stream lose their leading space. `endpoint` is the cause
    of the `Endpoint` that follows right behind, if one does."""

    text: str
    words: tuple[Word, ...]
    language: str | None
    language_probability: float
    processing_time: float
    resume: ResumePoint
    with_words: bool = True
    endpoint: Cause | None = None
    kind: ClassVar = "final"

    def fields(self) -> dict[str, Any]:
        return {
            "start": _ms(self.words[0].start),
            "end": _ms(self.words[-1].end),
            "text": self.text,
            "words": [word_fields(word) for word in self.words] if self.with_words else None,
            "language": self.language,
            "language_probability": round(self.language_probability, 4),
            "processing_time": _ms(self.processing_time),
            "committed_until": _ms(self.resume.committed_until),
            "resume": resume_fields(self.resume),
            "endpoint": self.endpoint,
        }


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Everything up to `at` is final: somebody stopped speaking for `endpointing` seconds, or
    a `Flush` is done."""

    at: float
    cause: Cause
    kind: ClassVar = "endpoint"

    def fields(self) -> dict[str, Any]:
        return {"at": _ms(self.at), "cause": self.cause}


@dataclass(frozen=True, slots=True)
class UtteranceEnd:
    """Nobody has spoken for `utterance_end` seconds since the last final word, which ended
    at `at`."""

    at: float
    kind: ClassVar = "utterance_end"

    def fields(self) -> dict[str, Any]:
        return {"at": _ms(self.at)}


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    at: float
    kind: ClassVar = "speech_started"

    def fields(self) -> dict[str, Any]:
        return {"at": _ms(self.at)}


@dataclass(frozen=True, slots=True)
class SpeechStopped:
    at: float
    kind: ClassVar = "speech_stopped"

    def fields(self) -> dict[str, Any]:
        return {"at": _ms(self.at)}


@dataclass(frozen=True, slots=True)
class Ack:
    """How far audio was received and settled; `lag` is the difference in seconds."""

    received_until: float
    resume: ResumePoint
    kind: ClassVar = "ack"

    def fields(self) -> dict[str, Any]:
        return {
            "received_until": _ms(self.received_until),
            "committed_until": _ms(self.resume.committed_until),
            "lag": _ms(max(0.0, self.received_until - self.resume.committed_until)),
            "resume": resume_fields(self.resume),
        }


@dataclass(frozen=True, slots=True)
class Warned:
    """Something that the client can mend, or should know."""

    code: str
    message: str
    kind: ClassVar = "warning"

    def fields(self) -> dict[str, Any]:
        return {"code": self.code, "message": self.message}


@dataclass(frozen=True, slots=True)
class Failed:
    """What went wrong; the stream goes on unless it is `fatal`."""

    code: str
    message: str
    fatal: bool
    kind: ClassVar = "error"

    def fields(self) -> dict[str, Any]:
        return {"code": self.code, "message": self.message, "fatal": self.fatal}


@dataclass(frozen=True, slots=True)
class WasReset:
    """Nothing before `at` will become text any more."""

    at: float
    kind: ClassVar = "reset"

    def fields(self) -> dict[str, Any]:
        return {"at": _ms(self.at)}


@dataclass(frozen=True, slots=True)
class Done:
    """The end of the stream, which lasted `duration` seconds."""

    text: str
    duration: float
    words: int
    statistics: Mapping[str, float]
    kind: ClassVar = "done"

    def fields(self) -> dict[str, Any]:
        return {
            "text": self.text,
            "duration": _ms(self.duration),
            "words": self.words,
            "statistics": dict(self.statistics),
        }


ServerMessage = (
    Ready
    | Partial
    | Final
    | Endpoint
    | UtteranceEnd
    | SpeechStarted
    | SpeechStopped
    | Ack
    | Warned
    | Failed
    | WasReset
    | Done
)


def wire(message: ServerMessage, seq: int) -> dict[str, Any]:
    """The JSON object that goes over the socket as message number `seq`."""
    return {"type": message.kind, "seq": seq, **message.fields()}


def word_fields(word: Word) -> dict[str, Any]:
    return {
        "word": word.text.strip(),
        "start": _ms(word.start),
        "end": _ms(word.end),
        "probability": round(word.probability, 4),
    }


def resume_fields(resume: ResumePoint) -> dict[str, Any]:
    return resume.model_dump(mode="json")


def _ms(time_s: float) -> float:
    return round(time_s, 3)


def json_object(text: str) -> dict[str, Any]:
    """What a text frame has to be. Raises `InvalidMessage`."""
    try:
        message = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise InvalidMessage("a text frame must be JSON") from exc
    if not isinstance(message, dict):
        raise InvalidMessage("a text frame must be a JSON object")
    return message


def parse_message(text: str, *, first: bool = False) -> ClientMessage:
    """One text frame. The `first` may be a bare object of settings.

    Raises `InvalidMessage`; what the settings hold is checked later.
    """
    message = json_object(text)
    if "command" in message:
        return _command(message)
    if "type" in message:
        kind = message.pop("type")
        return Configure(message) if kind == "config" else _named(kind, message)
    if first:
        return Configure(message)
    raise InvalidMessage("the message has no type")


def _command(message: dict[str, Any]) -> ClientMessage:
    kind = message.pop("command")
    if kind != "config":
        return _named(kind, message)
    values = message.get("config")
    if not isinstance(values, dict) or len(message) != 1:
        raise InvalidMessage("the command 'config' takes one object, 'config'")
    return Configure(values)


def _named(kind: object, rest: Mapping[str, Any]) -> ClientMessage:
    command = COMMANDS.get(kind) if isinstance(kind, str) else None
    if command is None:
        known = ", ".join(["config", *COMMANDS])
        raise InvalidMessage(f"there is no message of type {str(kind)[:40]!r}; known: {known}")
    if rest:
        raise InvalidMessage(f"{kind!r} takes no {next(iter(rest))[:40]!r}")
    return command


def _refusal(exc: ValidationError) -> InvalidParameter:
    error = exc.errors()[0]
    name = ".".join(str(part)[:40] for part in error["loc"])
    reason = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        return InvalidParameter(name, f"unknown key; known: {', '.join(StreamConfig.model_fields)}")
    if not name:  # raised by the model about one of its keys
        name, _, reason = reason.partition(": ")
    return InvalidParameter(name, reason)
