"""What a caller may choose, as types: the names and meanings are those of the service."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypedDict

from whisper_serve.streaming.messages import Encoding, PolicyName

Task = Literal["transcribe", "translate"]
TokenIds = list[int] | tuple[int, ...]


class TranscribeOptions(TypedDict, total=False):
    """Parameters of `POST /transcribe`; see `docs/rest.md`."""

    model: str
    language: str | None
    task: Task
    prompt: str
    hotwords: str
    word_timestamps: bool
    temperature: float
    beam_size: int | None
    best_of: int
    suppress_tokens: TokenIds
    use_context: bool


class StreamOptions(TypedDict, total=False):
    """Keys of the configuration of `/stream`; see `docs/protocol.md`."""

    model: str
    language: str | None
    task: Task
    policy: PolicyName
    chunk_duration: float
    overlap: float
    use_context: bool
    interim: bool
    word_timestamps: bool
    vad: bool
    vad_threshold: float | None
    endpointing: float | None
    utterance_end: float | None
    prefix_padding: float
    prompt: str
    hotwords: str
    beam_size: int | None
    best_of: int
    suppress_tokens: TokenIds
    encoding: Encoding
    sample_rate: int
    channels: int


def fields_of(options: Mapping[str, object]) -> dict[str, str]:
    """Options as the fields of a form; those that are None are the service's to decide."""
    return {key: _form_value(value) for key, value in options.items() if value is not None}


def _form_value(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return ",".join(str(item) for item in value)
    return str(value).lower() if isinstance(value, bool) else str(value)
