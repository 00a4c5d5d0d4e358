"""Results as they are kept: all that is known of a transcript, so that it can be given out in
any form later."""

from __future__ import annotations

from functools import cache

from pydantic import TypeAdapter

from whisper_serve.text.transcript import Transcript


def to_json(transcript: Transcript) -> str:
    return _adapter().dump_json(transcript).decode()


def from_json(text: str) -> Transcript:
    transcript: Transcript = _adapter().validate_json(text)
    return transcript


@cache
def _adapter() -> TypeAdapter[Transcript]:
    return TypeAdapter(Transcript)
