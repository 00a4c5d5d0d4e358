"""The session's object as the API had it in its beta: one level, other names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from whisper_serve.api.json_body import checked
from whisper_serve.api.openai.realtime.configuration import (
    Audio,
    AudioFormat,
    AudioInput,
    Include,
    NoNoiseReduction,
    Part,
    SessionConfig,
    Transcription,
    TurnDetection,
    merged,
)

FORMAT_NAMES = {"pcm16": "audio/pcm", "g711_ulaw": "audio/pcmu", "g711_alaw": "audio/pcma"}
NAMES = {
    "audio.input.format": "input_audio_format",
    "audio.input.turn_detection": "turn_detection",
    "audio.input.transcription.model": "input_audio_transcription.model",
}


def _with_text(value: object) -> object:
    if isinstance(value, list) and "text" not in value:
        raise ValueError("must have 'text'")
    return value


class FlatSession(Part):
    """`SessionConfig` in the beta's form."""

    input_audio_format: Literal["pcm16", "g711_ulaw", "g711_alaw"] = "pcm16"
    input_audio_transcription: Transcription = Transcription()
    turn_detection: TurnDetection | None = TurnDetection()
    input_audio_noise_reduction: NoNoiseReduction = None
    include: Include = ()
    # The beta's clients say so of every kind of session; what comes is text.
    modalities: Annotated[
        tuple[Literal["text", "audio"], ...] | None, BeforeValidator(_with_text)
    ] = Field(None, exclude=True)

    @classmethod
    def of(cls, session: SessionConfig) -> FlatSession:
        audio = session.input
        names = {today: name for name, today in FORMAT_NAMES.items()}
        return cls.model_validate(
            {
                "input_audio_format": names[audio.format.type],
                "input_audio_transcription": audio.transcription,
                "turn_detection": audio.turn_detection,
                "include": session.include,
            }
        )

    def updated(self, values: Mapping[str, Any]) -> FlatSession:
        """As `SessionConfig.updated`."""
        return checked(FlatSession, merged(self.model_dump(mode="json"), values))

    @property
    def session(self) -> SessionConfig:
        given = AudioInput(
            format=AudioFormat.model_validate({"type": FORMAT_NAMES[self.input_audio_format]}),
            transcription=self.input_audio_transcription,
            turn_detection=self.turn_detection,
        )
        return SessionConfig(audio=Audio(input=given), include=self.include)


def is_flat(values: Mapping[str, Any]) -> bool:
    return not {"type", "audio"} & values.keys()


def flat_name(place: str) -> str:
    """What the flat object calls the `place` in the nested one."""
    return NAMES[place]


def flattened(shown: Mapping[str, Any]) -> dict[str, Any]:
    """The session's object of an event in the beta's form."""
    given = shown["audio"]["input"]
    names = {today: name for name, today in FORMAT_NAMES.items()}
    return {
        "input_audio_format": names[given["format"]["type"]],
        "input_audio_transcription": given["transcription"],
        "turn_detection": given["turn_detection"],
        "input_audio_noise_reduction": None,
        "include": shown["include"],
    }
