"""What a client of `/v1/audio` may ask for: the fields of its form, checked."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from whisper_serve.config import VadConfig
from whisper_serve.errors import InvalidParameter
from whisper_serve.streaming.messages import MAX_HOTWORDS_CHARS, MAX_PROMPT_CHARS
from whisper_serve.text.languages import language_code

ResponseFormat = Literal["json", "text", "srt", "verbose_json", "vtt"]
Granularity = Literal["word", "segment"]

# Fields of which a form may have many, here without the brackets that stand behind their names.
LISTS = ("languages", "timestamp_granularities", "include", "keywords")
# Forms have no objects: clients write each of their keys as a field `name[key]`.
KEY_OF_AN_OBJECT = re.compile(r"(chunking_strategy)\[(\w+)\]")
REFUSED = {
    "known_speaker_names": "speakers are not told apart here",
    "known_speaker_references": "speakers are not told apart here",
}
# Longer than any pause that means something.
MAX_PAUSE_MS = 60_000
# Kept regions of speech must not touch.
MIN_PAUSE_S = 0.01


class ServerVad(BaseModel):
    """How speech is found in this file; what is left out is as configured."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    type: Literal["server_vad"]
    threshold: float | None = Field(
        None, ge=0.0, le=1.0, description="Probability from which a sound is speech."
    )
    prefix_padding_ms: int | None = Field(
        None, ge=0, le=MAX_PAUSE_MS, description="Audio that is kept before speech."
    )
    silence_duration_ms: int | None = Field(
        None, ge=0, le=MAX_PAUSE_MS, description="Pauses from this length on are cut out."
    )

    @property
    def prefix_padding_s(self) -> float | None:
        return None if self.prefix_padding_ms is None else self.prefix_padding_ms / 1000

    def applied_to(self, configured: VadConfig) -> VadConfig:
        changes: dict[str, float] = {}
        if self.threshold is not None:
            changes["threshold"] = self.threshold
        if self.silence_duration_ms is not None:
            # What is kept on both sides of a pause is not counted in `max_pause_s`.
            before = self.prefix_padding_s
            before = configured.padding_s if before is None else before
            pause_s = self.silence_duration_ms / 1000 - before - configured.padding_s
            changes["max_pause_s"] = max(MIN_PAUSE_S, pause_s)
        return configured.model_copy(update=changes)


def _strategy(value: object) -> object:
    """None for `auto`, which is the configured way; an object may be written in JSON."""
    if not isinstance(value, str):
        return value
    if value in {"", "auto"}:
        return None
    try:
        written = json.loads(value)
    except (ValueError, RecursionError):
        written = None
    if isinstance(written, dict):
        return written
    raise ValueError("it is `auto` or an object with the type `server_vad`")


class FileParameters(BaseModel):
    """The fields beside the file; those of OpenAI's transcriptions, for translations too."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    model: str = Field(
        min_length=1, pattern=r"\S", description="One of those that `GET /v1/models` lists."
    )
    language: str = Field(
        "",
        description="Code or English name; without it the language is detected.",
        examples=["de", "German", "en-US"],
    )
    languages: tuple[str, ...] = Field(
        (),
        description="The same as `language`: Whisper takes one.",
        json_schema_extra={"maxItems": 1},
    )
    prompt: str = Field(
        "",
        description="Text in the style and spelling that the transcript shall have; of a long one "
        "the end counts.",
    )
    keywords: tuple[str, ...] = Field(
        (),
        description="Words that are likely to be spoken, together at most "
        f"{MAX_HOTWORDS_CHARS:,} characters.",
    )
    response_format: ResponseFormat = Field("json", description="Form of the answer.")
    temperature: float = Field(
        0.0, ge=0.0, le=1.0, description="Where Whisper's ladder of temperatures begins."
    )
    timestamp_granularities: tuple[Granularity, ...] = Field(
        (),
        description="What a `verbose_json` has times of; `segment` without it.",
    )
    stream: bool = Field(
        False,
        description="Send text as it becomes final, as server-sent events; with `json` and `text`.",
    )
    chunking_strategy: Annotated[ServerVad | None, BeforeValidator(_strategy)] = Field(
        None, description="`auto`, or an object that says how speech is found."
    )
    include: tuple[Literal["logprobs"], ...] = Field(
        (), description="`logprobs` gives the log probability of every word; with `json`."
    )

    @field_validator("language")
    @classmethod
    def _code(cls, value: str) -> str:
        return language_code(value) if value.strip() else ""

    @field_validator("languages")
    @classmethod
    def _codes(cls, values: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if values and info.data.get("language"):
            raise ValueError("it says the same as `language`: give one of them")
        if len(values) > 1:
            raise ValueError("Whisper takes one language, or detects it when there is none")
        return tuple(language_code(value) for value in values)

    @field_validator("keywords")
    @classmethod
    def _few(cls, words: tuple[str, ...]) -> tuple[str, ...]:
        if len(", ".join(words)) > MAX_HOTWORDS_CHARS:
            raise ValueError(f"they have more than {MAX_HOTWORDS_CHARS:,} characters")
        return words

    @field_validator("response_format", mode="before")
    @classmethod
    def _without_speakers(cls, value: object) -> object:
        if value == "diarized_json":
            raise ValueError("diarized_json: speakers are not told apart here")
        return value

    @field_validator("timestamp_granularities")
    @classmethod
    def _timed(cls, values: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if "word" in values:
            _only_with(info, "verbose_json", what="`word` needs")
        return values

    @field_validator("stream")
    @classmethod
    def _streamed(cls, value: bool, info: ValidationInfo) -> bool:
        if value:
            _only_with(info, "json", "text", what="a stream needs")
        return value

    @field_validator("include")
    @classmethod
    def _included(cls, values: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if values:
            _only_with(info, "json", what="`logprobs` needs")
        return values

    @classmethod
    def parse(cls, fields: Iterable[tuple[str, str]]) -> FileParameters:
        """Raises `InvalidParameter` for the first field that is wrong."""
        try:
            return cls.model_validate(_gathered(fields))
        except ValidationError as exc:
            error = exc.errors()[0]
            name = ".".join(part for part in error["loc"] if isinstance(part, str))
            raise InvalidParameter(name, _reason(error["type"], name, error["msg"])) from exc

    @property
    def spoken(self) -> str | None:
        """The code of the language that is spoken, None when nobody says so."""
        return next(iter(self.languages), self.language) or None

    @property
    def context(self) -> str:
        return self.prompt[-MAX_PROMPT_CHARS:]

    @property
    def hotwords(self) -> str:
        return ", ".join(self.keywords)

    @property
    def with_logprobs(self) -> bool:
        return "logprobs" in self.include

    @property
    def granularities(self) -> tuple[Granularity, ...]:
        return self.timestamp_granularities or ("segment",)


def _only_with(info: ValidationInfo, *formats: ResponseFormat, what: str) -> None:
    chosen = info.data.get("response_format")
    if chosen and chosen not in formats:
        raise ValueError(f"{what} the response_format {' or '.join(formats)}")


def _gathered(fields: Iterable[tuple[str, str]]) -> Mapping[str, Any]:
    """Fields by name. Of lists with and without brackets, and of the keys of an object."""
    gathered: dict[str, Any] = {}
    for name, value in fields:
        bare = name.removesuffix("[]")
        key = KEY_OF_AN_OBJECT.fullmatch(name)
        if bare in REFUSED:
            raise InvalidParameter(bare, REFUSED[bare])
        if bare in LISTS:
            gathered.setdefault(bare, []).append(value)
        elif key and isinstance(gathered.setdefault(key[1], {}), dict):
            gathered[key[1]][key[2]] = value
        elif name in gathered:
            raise InvalidParameter(name, "given more than once")
        else:
            gathered[name] = value
    return gathered


def _reason(kind: str, name: str, message: str) -> str:
    if kind == "extra_forbidden":
        known = ServerVad.model_fields if "." in name else ["file", *FileParameters.model_fields]
        return f"unknown parameter; known: {', '.join(known)}"
    return "it is missing" if kind == "missing" else message.removeprefix("Value error, ")
