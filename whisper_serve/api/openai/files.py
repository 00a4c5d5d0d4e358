"""`POST /v1/audio/transcriptions` and `/v1/audio/translations`: a recording in, its text out."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request, Response

from whisper_serve.api.auth.bill import bill_of
from whisper_serve.api.openai.answers import (
    TextDelta,
    TextDone,
    Transcription,
    VerboseTranscription,
    answer,
)
from whisper_serve.api.openai.catalog import Catalog
from whisper_serve.api.openai.events import EventStream, told
from whisper_serve.api.openai.failures import ErrorOut
from whisper_serve.api.openai.parameters import LISTS, FileParameters, ServerVad
from whisper_serve.api.openai.recording import Recording, receive_recording
from whisper_serve.api.plain_bodies import CONTENT
from whisper_serve.api.presence import in_time, while_asked, while_there
from whisper_serve.api.services import Services
from whisper_serve.engines.base import Task
from whisper_serve.pipeline import TranscribeOptions

ERRORS = {
    400: "The form, the file or a field cannot be used; `param` names the field.",
    404: "The model is not served here.",
    408: "The body does not come in time.",
    413: "The file is larger, or the recording longer, than the limits.",
    500: "The transcription failed.",
    503: "No room or no engine; `Retry-After` says when to come back.",
    504: "The transcription took too long.",
}
EXAMPLE = """\
data: {"type": "transcript.text.delta", "delta": "Fail again."}

data: {"type": "transcript.text.delta", "delta": " Fail better."}

data: {"type": "transcript.text.done", "text": "Fail again. Fail better.", "usage": \
{"type": "duration", "seconds": 10}}

"""


def files_router(services: Services) -> APIRouter:
    router = APIRouter(prefix="/v1/audio", tags=["OpenAI"])
    files = Files(services)
    described: dict[str, Any] = {
        "response_model": Transcription | VerboseTranscription,
        "responses": _responses(),
        "openapi_extra": {"requestBody": _form(Catalog(services).names)},
    }

    @router.post("/transcriptions", summary="Write what is said", **described)
    async def transcriptions(request: Request) -> Response:
        """As OpenAI's clients ask for it."""
        return await files.answer(request, "transcribe")

    @router.post("/translations", summary="Write in English what is said", **described)
    async def translations(request: Request) -> Response:
        """As OpenAI's clients ask for it; all fields of transcriptions are known here too."""
        return await files.answer(request, "translate")

    return router


class Files:
    """Answers requests about recordings."""

    def __init__(self, services: Services) -> None:
        self._transcriber = services.transcriber
        self._config = services.config
        self._door = services.door
        self._catalog = Catalog(services)

    async def answer(self, request: Request, task: Task) -> Response:
        self._door.admit_file()
        max_bytes = self._config.openai.max_file_bytes
        async with receive_recording(request, max_bytes) as recording:
            options = self._options(recording.parameters, task, request.state.request_id)
            if recording.parameters.stream:
                return await self._stream(request, recording, options)
            transcript = await while_asked(
                request.receive,
                self._config.limits.request_timeout_s,
                self._transcriber.transcribe(recording.file, options, bill_of(request).charge),
            )
        return await asyncio.to_thread(answer, transcript, recording.parameters, task)

    async def _stream(
        self, request: Request, recording: Recording, options: TranscribeOptions
    ) -> Response:
        """The file is not needed any more when the first event is there; what fails up to then
        has a status of its own."""
        bill = bill_of(request)
        pieces = self._transcriber.stream(recording.file, options, bill.charge)
        pieces = bill.unless_failed(in_time(self._config.limits.request_timeout_s, pieces))
        events = told(pieces, with_logprobs=recording.parameters.with_logprobs)
        first = await while_there(request.receive, anext(events))
        return EventStream(request, first, events)

    def _options(
        self, parameters: FileParameters, task: Task, request_id: str
    ) -> TranscribeOptions:
        vad = parameters.chunking_strategy
        return TranscribeOptions(
            model=self._catalog.resolve(parameters.model),
            language=parameters.spoken,
            task=task,
            prompt=parameters.context,
            hotwords=parameters.hotwords,
            temperature=parameters.temperature,
            vad=vad.applied_to(self._config.vad) if vad else None,
            prefix_padding_s=vad.prefix_padding_s if vad else None,
            request_id=request_id,
        )


def _responses() -> dict[int | str, dict[str, Any]]:
    content = {**CONTENT, "text/event-stream": {"itemSchema": _event(), "example": EXAMPLE}}
    return {
        200: {"description": "The text.", "content": content},
        **{
            status: {"model": ErrorOut, "description": description}
            for status, description in ERRORS.items()
        },
    }


def _event() -> dict[str, Any]:
    """A server-sent event, as OpenAPI 3.2 describes one."""
    kinds = [
        model.model_json_schema(mode="serialization", ref_template="#/components/schemas/{model}")
        for model in (TextDelta, TextDone, ErrorOut)
    ]
    for kind in kinds:
        kind.pop("$defs", None)  # the other answers have brought these to the components
    data = {
        "type": "string",
        "contentMediaType": "application/json",
        "contentSchema": {"anyOf": kinds},
    }
    return {"type": "object", "required": ["data"], "properties": {"data": data}}


def _form(models: Sequence[str]) -> dict[str, Any]:
    """The fields as clients write them, which FastAPI cannot tell by itself since the body is
    read by hand to keep it bounded."""
    fields = FileParameters.model_json_schema()["properties"]
    by_name = {f"{name}[]" if name in LISTS else name: fields[name] for name in fields}
    by_name["model"] = {**fields["model"], "enum": [*models]}
    strategies = [{"type": "string", "const": "auto"}, ServerVad.model_json_schema()]
    description = fields["chunking_strategy"]["description"]
    by_name["chunking_strategy"] = {"anyOf": strategies, "description": description}
    form = {
        "type": "object",
        "additionalProperties": False,
        "required": ["file", "model"],
        "properties": {"file": {"type": "string", "format": "binary"}, **by_name},
    }
    return {"required": True, "content": {"multipart/form-data": {"schema": form}}}
