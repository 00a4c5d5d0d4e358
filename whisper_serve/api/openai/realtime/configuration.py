"""What a client may settle for its session: the `session` object of the Realtime API."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)

from whisper_serve.api.json_body import checked
from whisper_serve.errors import InvalidParameter
from whisper_serve.streaming.messages import (
    MAX_HOTWORDS_CHARS,
    MAX_MODEL_CHARS,
    MAX_PROMPT_CHARS,
    StreamConfig,
)
from whisper_serve.text.languages import language_code

LOGPROBS = "item.input_audio_transcription.logprobs"
# Of each format: the encoding of its bytes, how many stand for a sample, and samples a second.
FORMATS = {
    "audio/pcm": ("pcm_s16le", 2, 24_000),
    "audio/pcmu": ("mulaw", 1, 8_000),
    "audio/pcma": ("alaw", 1, 8_000),
}
# Longer than any name of a language.
LanguageName = Annotated[str, Field(max_length=100)]
# Objects within the session of which an update may name a part; all else is replaced whole.
MERGED = {
    *("audio", "input", "transcription", "turn_detection"),
    "input_audio_transcription",  # in the beta's form
}


def _only(*allowed: object, otherwise: str) -> BeforeValidator:
    """Refuses what the API knows and the service does not, and says so."""

    def check(value: object) -> object:
        if value not in allowed:
            raise ValueError(otherwise)
        return value

    return BeforeValidator(check)


class Part(BaseModel):
    """An object of which every key is known."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Settings(Part):
    """A part in which null stands for the default."""

    @field_validator("*", mode="before")
    @classmethod
    def _null_is_the_default(cls, value: object, info: ValidationInfo) -> object:
        name = info.field_name or ""
        return cls.model_fields[name].get_default() if value is None else value


class AudioFormat(Settings):
    """16-bit samples, little endian, at 24 kHz, or G.711 at 8 kHz; mono."""

    type: Literal["audio/pcm", "audio/pcmu", "audio/pcma"] = "audio/pcm"
    rate: int | None = Field(
        None, strict=True, description="24000 for audio/pcm, 8000 for the others."
    )

    @field_validator("rate")
    @classmethod
    def _rate_is_that_of_the_type(cls, value: int | None, info: ValidationInfo) -> int | None:
        _, _, rate = FORMATS[info.data.get("type", "audio/pcm")]
        if value not in (None, rate):
            raise ValueError(f"only {rate} is supported")
        return None  # the type says it

    @property
    def encoding(self) -> str:
        return FORMATS[self.type][0]

    @property
    def sample_bytes(self) -> int:
        return FORMATS[self.type][1]

    @property
    def sample_rate(self) -> int:
        return FORMATS[self.type][2]

    def seconds(self, size: int) -> float:
        """How long `size` bytes are."""
        return size / (self.sample_bytes * self.sample_rate)

    def shown(self) -> dict[str, Any]:
        is_pcm = self.type == "audio/pcm"
        return {"type": self.type, **({"rate": self.sample_rate} if is_pcm else {})}


class Transcription(Settings):
    """How speech is to be written."""

    model: str = Field(
        "", max_length=MAX_MODEL_CHARS, description="Empty: the service's default model."
    )
    language: LanguageName | None = Field(
        None, description="Code or English name; without it the language is detected."
    )
    languages: tuple[LanguageName, ...] = Field((), description="One language at the most.")
    prompt: str = Field(
        "",
        max_length=MAX_PROMPT_CHARS,
        description="Text in the style and spelling that the transcript shall have.",
    )
    keywords: tuple[str, ...] = Field((), description="Words that are likely to be spoken.")
    delay: Annotated[
        None, _only(None, otherwise="it cannot be chosen here; leave it out or send null")
    ] = None

    @field_validator("language")
    @classmethod
    def _language_code(cls, value: str | None) -> str | None:
        return language_code(value) if value else None

    @field_validator("languages")
    @classmethod
    def _one_language(cls, values: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        codes = tuple(language_code(value) for value in values)
        if len({*codes, info.data.get("language")} - {None}) > 1:
            raise ValueError("one language can be named; name none to have it detected")
        return codes

    @field_validator("keywords")
    @classmethod
    def _keywords_fit(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        if len(", ".join(values)) > MAX_HOTWORDS_CHARS:
            raise ValueError(f"together they may have {MAX_HOTWORDS_CHARS:,} characters")
        return values

    @property
    def spoken(self) -> str | None:
        """The language's code, None to detect it."""
        return self.language or next(iter(self.languages), None)

    @property
    def hotwords(self) -> str:
        return ", ".join(self.keywords)

    def shown(self, default_model: str) -> dict[str, Any]:
        return {
            "model": self.model or default_model,
            "language": self.spoken,
            "prompt": self.prompt,
            "keywords": list(self.keywords),
        }


NO_RESPONSES = "a transcription session gives no responses"
NoResponse = Annotated[
    None,
    BeforeValidator(lambda _: None),
    _only(None, False, otherwise=f"{NO_RESPONSES}; send false"),
    WithJsonSchema({"enum": [False, None]}),
]


class TurnDetection(Settings):
    """When a turn begins and ends; times are milliseconds."""

    type: Annotated[
        Literal["server_vad"],
        _only("server_vad", otherwise="only 'server_vad' is supported, or null for no detection"),
    ] = "server_vad"
    threshold: float = Field(0.5, gt=0.0, lt=1.0, strict=True)
    prefix_padding_ms: int = Field(300, ge=0, le=2_000, strict=True)
    silence_duration_ms: int = Field(500, ge=100, le=10_000, strict=True)
    idle_timeout_ms: Annotated[
        None, _only(None, otherwise=f"{NO_RESPONSES} that it could call for; send null")
    ] = None
    # A client that asks for responses would wait for them in vain.
    create_response: NoResponse = None
    interrupt_response: NoResponse = None

    @property
    def prefix_padding_s(self) -> float:
        return self.prefix_padding_ms / 1000

    @property
    def silence_s(self) -> float:
        return self.silence_duration_ms / 1000

    @property
    def stream_settings(self) -> dict[str, float]:
        return {
            "vad_threshold": self.threshold,
            "endpointing": self.silence_s,
            "prefix_padding": self.prefix_padding_s,
        }

    def shown(self) -> dict[str, Any]:
        return {
            "type": self.type,
            "threshold": self.threshold,
            "prefix_padding_ms": self.prefix_padding_ms,
            "silence_duration_ms": self.silence_duration_ms,
        }


NoNoiseReduction = Annotated[
    None, _only(None, otherwise="noise reduction is not supported; leave it out or send null")
]


class AudioInput(Part):
    """What comes, and what is made of it."""

    format: AudioFormat = AudioFormat()
    transcription: Transcription = Transcription()
    turn_detection: TurnDetection | None = TurnDetection()
    noise_reduction: NoNoiseReduction = None


class Audio(Part):
    input: AudioInput = AudioInput()


def _null_is_nothing(value: object) -> object:
    return () if value is None else value


Include = Annotated[
    tuple[Literal["item.input_audio_transcription.logprobs"], ...],
    BeforeValidator(_null_is_nothing),
]


class SessionConfig(Part):
    """All that is settled for a session, as `session` of the API's events says it."""

    type: Annotated[
        Literal["transcription"],
        _only("transcription", otherwise="only 'transcription' sessions are served"),
    ] = "transcription"
    audio: Audio = Audio()
    include: Include = ()

    @property
    def input(self) -> AudioInput:
        return self.audio.input

    @property
    def with_logprobs(self) -> bool:
        return LOGPROBS in self.include

    def updated(self, values: Mapping[str, Any]) -> SessionConfig:
        """This with what `values` names. Raises `InvalidParameter`, which names the place
        within the session."""
        return checked(SessionConfig, merged(self.model_dump(mode="json"), values))

    def require_same_audio(self, before: SessionConfig) -> None:
        """Raises `InvalidParameter` for what cannot change while audio comes."""
        for name in ("format", "turn_detection"):
            if getattr(self.input, name) != getattr(before.input, name):
                raise InvalidParameter(
                    f"audio.input.{name}", "it cannot change once audio has come"
                )

    def stream_config(self, resolve: Callable[[str], str]) -> StreamConfig:
        """`resolve`: a client's name of a model to ours. Raises `ModelNotFound`."""
        audio, transcription, turns = (
            self.input.format,
            self.input.transcription,
            self.input.turn_detection,
        )
        return StreamConfig.parse(
            {
                "model": resolve(transcription.model),
                "language": transcription.spoken,
                "prompt": transcription.prompt,
                "hotwords": transcription.hotwords,
                "interim": False,
                "encoding": audio.encoding,
                "sample_rate": audio.sample_rate,
                **(turns.stream_settings if turns else {}),
            }
        )

    def shown(self, default_model: str) -> dict[str, Any]:
        """The session's object in an event."""
        turns = self.input.turn_detection
        return {
            "type": self.type,
            "audio": {
                "input": {
                    "format": self.input.format.shown(),
                    "transcription": self.input.transcription.shown(default_model),
                    "turn_detection": turns.shown() if turns else None,
                    "noise_reduction": None,
                }
            },
            "include": list(self.include),
        }


def merged(current: Mapping[str, Any], update: Mapping[str, Any]) -> dict[str, Any]:
    """A session's object with what `update` names."""
    kept = dict(current)
    if {"language", "languages"} & update.keys():
        # Whichever is named takes the place of both.
        kept.pop("language", None)
        kept.pop("languages", None)
    for name, value in update.items():
        before = kept.get(name)
        if name in MERGED and isinstance(before, Mapping) and isinstance(value, Mapping):
            kept[name] = merged(before, value)
        else:
            kept[name] = value
    return kept
