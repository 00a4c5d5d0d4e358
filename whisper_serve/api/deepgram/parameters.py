"""What a client may ask for in the query of `/v1/listen`, checked once.

The names are Deepgram's. Those that mean nothing here may only be switched off; all others are
refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.json_schema import SkipJsonSchema

from whisper_serve.errors import InvalidParameter
from whisper_serve.streaming.messages import (
    MAX_HOTWORDS_CHARS,
    MAX_MODEL_CHARS,
    Encoding,
    StreamConfig,
)
from whisper_serve.text.languages import language_code

Parameters = TypeVar("Parameters", bound="ListenParameters")

EncodingName = Literal["linear16", "linear32", "mulaw", "alaw", "flac", "ogg-opus"]
# All others have a header that tells what they are.
BARE: Mapping[str, Encoding] = {
    "linear16": "pcm_s16le",
    "linear32": "pcm_f32le",
    "mulaw": "mulaw",
    "alaw": "alaw",
}
MULTI = "multi"
# Less is no pause to Whisper, which hears words by what surrounds them.
MIN_ENDPOINTING_MS = 300
MAX_ENDPOINTING_MS = 10_000
DEFAULT_ENDPOINTING_MS = 10
MAX_NAME_CHARS = 40
# Limits of Deepgram's.
MAX_EXTRA_CHARS, MAX_TAG_CHARS = 2_048, 128

# False means the same as leaving these out, and nothing else is supported.
SWITCHES = (
    *("detect_entities", "diarize", "dictation", "filler_words", "intents", "measurements"),
    *("multichannel", "ner", "numerals", "paragraphs", "profanity_filter", "redact", "sentiment"),
    *("summarize", "topics", "utterances"),
    *("detect_language", "endpointing", "interim_results", "no_delay", "vad_events"),
)
UNSUPPORTED = (
    *("alternatives", "callback", "callback_method", "custom_intent", "custom_intent_mode"),
    *("custom_topic", "custom_topic_mode", "diarize_model", "diarize_version", "language_hint"),
    *("replace", "search", "tier", "utt_split"),
)
WEIGHTED = re.compile(r"(?P<word>.+?)(?::(?P<weight>-?\d+(?:\.\d+)?))?")


def _switched(value: object) -> object:
    """Only `true` and `false`, as Deepgram has it; pydantic knows more words for them."""
    known = {"true": True, "false": False}
    if isinstance(value, str):
        if value.lower() not in known:
            raise ValueError("it must be true or false")
        return known[value.lower()]
    return value


def _milliseconds(value: object) -> object:
    known = {"true": DEFAULT_ENDPOINTING_MS, "false": None}
    return known.get(value.lower(), value) if isinstance(value, str) else value


Switch = Annotated[bool, BeforeValidator(_switched)]
Milliseconds = Annotated[int | None, BeforeValidator(_milliseconds)]
Rate = Annotated[int, Field(ge=8_000, le=48_000)]
Tag = Annotated[str, Field(max_length=MAX_TAG_CHARS)]
Extra = Annotated[str, Field(max_length=MAX_EXTRA_CHARS, pattern=r"^[^:]+:")]


class ListenParameters(BaseModel):
    """What files and live streams have in common."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    model: str = Field(
        "",
        max_length=MAX_MODEL_CHARS,
        description="A served model, as `base` or `whisper-base`, or one of Deepgram's names that "
        "stand for the default model, as `nova-3`.",
    )
    language: str | SkipJsonSchema[None] = Field(
        None,
        description="Code, with or without a region. `multi`, or no language, detects it.",
    )
    punctuate: Switch = Field(
        False,
        description="Text with punctuation and capitals. Without this and `smart_format` it is "
        "lower-case words.",
    )
    smart_format: Switch = Field(False, description="The same as `punctuate`.")
    keyterm: tuple[str, ...] = Field(
        (), description="Words that are likely to be spoken; may be given several times."
    )
    keywords: tuple[str, ...] = Field(
        (),
        description="The same as `keyterm`. A weight behind a colon must be above 0 and has no "
        "effect.",
    )
    encoding: EncodingName | SkipJsonSchema[None] = Field(
        None, description="Needed for bare audio, which has no header to tell what it is."
    )
    sample_rate: Rate | SkipJsonSchema[None] = Field(
        None, description="In Hz; needed for bare audio, and read only then."
    )
    channels: int = Field(
        1, ge=1, le=2, description="Of bare audio, interleaved; two are mixed down to one."
    )
    tag: tuple[Tag, ...] = Field((), description="Comes back in `metadata.tags`.")
    extra: tuple[Extra, ...] = Field(
        (), description="`key:value`, which comes back in `metadata.extra`."
    )
    version: Literal["latest"] = Field("latest", description="Without effect.")
    mip_opt_out: Switch = Field(
        False, description="Without effect: nobody learns from what is sent here."
    )

    @field_validator("language")
    @classmethod
    def _known_language(cls, value: str | None) -> str | None:
        return value if value in {None, MULTI} else language_code(value) if value else None

    @field_validator("keywords")
    @classmethod
    def _bare_keywords(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(_unweighted, values))

    @model_validator(mode="after")
    def _consistent(self) -> ListenParameters:
        if len(self.hotwords) > MAX_HOTWORDS_CHARS:
            raise ValueError(f"keyterm: at most {MAX_HOTWORDS_CHARS:,} characters in all")
        if self.encoding in BARE and self.sample_rate is None:
            raise ValueError(f"sample_rate: it is needed with encoding={self.encoding}")
        return self

    @classmethod
    def parse(cls: type[Parameters], query: Iterable[tuple[str, str]]) -> Parameters:
        """Raises `InvalidParameter` for the first parameter that is wrong."""
        try:
            return cls.model_validate(_gathered(query, cls))
        except ValidationError as exc:
            raise _refusal(exc, cls.model_fields) from exc

    @property
    def spoken_language(self) -> str | None:
        """None when it is to be detected."""
        return None if self.language == MULTI else self.language

    @property
    def tells_languages(self) -> bool:
        return self.language == MULTI

    @property
    def is_formatted(self) -> bool:
        return self.punctuate or self.smart_format

    @property
    def hotwords(self) -> str:
        return ", ".join([*self.keyterm, *self.keywords])

    @property
    def labels(self) -> dict[str, Any]:
        """What goes back to the client as it came."""
        extra = dict(pair.split(":", 1) for pair in self.extra)
        return {
            **({"tags": list(self.tag)} if self.tag else {}),
            **({"extra": extra} if extra else {}),
        }


class FileParameters(ListenParameters):
    """The query of `POST /v1/listen`."""

    detect_language: Switch = Field(
        False, description="Tell in `detected_language` which language is spoken."
    )

    @model_validator(mode="after")
    def _nothing_to_detect(self) -> FileParameters:
        if self.detect_language and self.spoken_language:
            raise ValueError("detect_language: leave it out, or the language")
        return self


class LiveParameters(ListenParameters):
    """The query of `WS /v1/listen`."""

    interim_results: Switch = Field(False, description="Send text that may still change.")
    endpointing: Milliseconds = Field(
        DEFAULT_ENDPOINTING_MS,
        ge=0,
        le=MAX_ENDPOINTING_MS,
        description="Milliseconds of silence after which text is final; less than 300 are as 300. "
        "`false`: silence is not looked at.",
    )
    utterance_end_ms: int | None = Field(
        None,
        ge=1_000,
        le=5_000,
        description="Milliseconds without a word after which `UtteranceEnd` comes; needs "
        "`interim_results`.",
    )
    vad_events: Switch = Field(False, description="Send `SpeechStarted`.")
    no_delay: Switch = Field(False, description="Without effect: text never waits for its format.")

    @model_validator(mode="after")
    def _utterances_need_interim(self) -> LiveParameters:
        if self.utterance_end_ms is not None and not self.interim_results:
            raise ValueError("utterance_end_ms: it needs interim_results=true")
        return self

    def stream_config(self, model: str) -> StreamConfig:
        """The stream that is asked for, of the served `model`."""
        silence_ms = self.endpointing
        return StreamConfig(
            model=model,
            language=self.spoken_language,
            interim=self.interim_results,
            endpointing=None if silence_ms is None else max(silence_ms, MIN_ENDPOINTING_MS) / 1000,
            utterance_end=self.utterance_end_ms and self.utterance_end_ms / 1000,
            hotwords=self.hotwords,
            encoding=BARE.get(self.encoding or "", "container"),
            sample_rate=self.sample_rate or 16_000,
            channels=self.channels,
        )


REPEATED = ("keyterm", "keywords", "tag", "extra")


def _gathered(query: Iterable[tuple[str, str]], cls: type[ListenParameters]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in query:
        if name in REPEATED:
            fields.setdefault(name, []).append(value)
        elif name in fields:
            raise InvalidParameter(name, "given more than once")
        elif name in cls.model_fields or not _is_off(name, value):
            fields[name] = value
    return fields


def _is_off(name: str, value: str) -> bool:
    """Whether this asks for nothing. Raises `InvalidParameter` for what is not supported."""
    if name in SWITCHES and value.lower() == "false":
        return True
    if name in SWITCHES:
        raise InvalidParameter(name, "it is not supported here; leave it out, or say false")
    if name in UNSUPPORTED:
        raise InvalidParameter(name, "it is not supported here")
    return False


def _unweighted(keyword: str) -> str:
    """Whisper has no weights: a word is more likely than others, or it is not named."""
    found = WEIGHTED.fullmatch(keyword)
    if found is None or float(found["weight"] or 1) <= 0:
        raise ValueError("words with a weight above 0, or none")
    return found["word"]


def _refusal(exc: ValidationError, known: Iterable[str]) -> InvalidParameter:
    error = exc.errors()[0]
    name = str(error["loc"][0])[:MAX_NAME_CHARS] if error["loc"] else ""
    reason = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        reason = f"unknown parameter; known: {', '.join(known)}"
    elif name == "encoding":
        names = ", ".join(get_args(EncodingName))
        reason = f"supported: {names}; containers need none"
    elif not name:  # raised by the model about one of its parameters
        name, _, reason = reason.partition(": ")
    return InvalidParameter(name, reason)
