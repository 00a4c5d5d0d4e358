"""Answers that are a transcript's text and nothing else."""

from __future__ import annotations

from typing import Any, Literal

from starlette.responses import PlainTextResponse, Response

from whisper_serve.text.formats import to_srt, to_vtt
from whisper_serve.text.transcript import Transcript

PlainFormat = Literal["text", "srt", "vtt"]
# Unlike text/*, this says nothing about the encoding by itself.
SRT_TYPE = "application/x-subrip; charset=utf-8"
_TEXT = {"schema": {"type": "string"}}
# As OpenAPI describes them.
CONTENT: dict[str, Any] = {"text/plain": _TEXT, "application/x-subrip": _TEXT, "text/vtt": _TEXT}


def plain_body(transcript: Transcript, form: PlainFormat) -> Response:
    match form:
        case "text":
            return PlainTextResponse(transcript.text + "\n")
        case "srt":
            return Response(to_srt(transcript.segments), media_type=SRT_TYPE)
        case "vtt":
            return Response(to_vtt(transcript.segments), media_type="text/vtt")
