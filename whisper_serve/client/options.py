"""What a caller may choose, as types: the names and meanings are those of the service."""

from __future__ import annotations

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
