"""`POST /transcribe`: a recording in, its text out."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.responses import JSONResponse

from whisper_serve.api.auth.bill import bill_of
from whisper_serve.api.plain_bodies import CONTENT, plain_body
from whisper_serve.api.presence import while_asked
from whisper_serve.api.schemas import TranscribeParameters, TranscriptionOut
from whisper_serve.api.services import Services
from whisper_serve.api.upload import FILE_FIELDS, receive_upload
from whisper_serve.pipeline import TranscribeOptions
from whisper_serve.text.transcript import Transcript

ERRORS = {
    400: "The file or a parameter cannot be used.",
    404: "The model is not served.",
    408: "The body does not come in time.",
    413: "The upload or the recording is larger than the limits.",
    415: "The Content-Type is not accepted.",
    500: "The transcription failed.",
    503: "No room or no engine; `Retry-After` says when to come back.",
    504: "The transcription took too long.",
}


def transcribe_router(services: Services) -> APIRouter:
    router = APIRouter(tags=["transcription"])
    limits = services.config.limits
    described: dict[str, Any] = {
        "summary": "Transcribe a recording",
        "response_model": TranscriptionOut,
        "responses": _responses(),
        "openapi_extra": _request_schema(),
    }

    @router.post("/v1/transcribe", **described)
    @router.post("/transcribe", **described)
    async def transcribe(request: Request) -> Response:
        """Send the file as form field `audio_file` (or `file`), or bare as the body with
        Content-Type `audio/*` or `application/octet-stream`. Fields go in the query or the
        form."""
        services.door.admit_file()
        async with receive_upload(request, limits.max_upload_bytes) as upload:
            parameters = TranscribeParameters.parse(upload.fields)
            model = services.models.resolve(parameters.model)
            options = options_of(parameters, model, request.state.request_id)
            transcript = await while_asked(
                request.receive,
                limits.request_timeout_s,
                services.transcriber.transcribe(upload.file, options, bill_of(request).charge),
            )
        return await asyncio.to_thread(answer, transcript, parameters, request)

    return router


def options_of(parameters: TranscribeParameters, model: str, request_id: str) -> TranscribeOptions:
    return TranscribeOptions(
        model=model,
        language=parameters.language,
        task=parameters.task,
        prompt=parameters.prompt,
        hotwords=parameters.hotwords,
        temperature=parameters.temperature,
        beam_size=parameters.beam_size,
        best_of=parameters.best_of,
        suppress_tokens=parameters.suppress_tokens,
        use_context=parameters.use_context,
        request_id=request_id,
    )


def answer(transcript: Transcript, parameters: TranscribeParameters, request: Request) -> Response:
    match parameters.response_format:
        case "text" | "srt" | "vtt" as form:
            return plain_body(transcript, form)
        case "json" | "verbose_json":
            body = TranscriptionOut.of(
                transcript,
                latency_s=time.monotonic() - request.state.began,
                request_id=request.state.request_id,
                with_words=parameters.word_timestamps,
                verbose=parameters.response_format == "verbose_json",
            )
            return JSONResponse(body.model_dump())


def _responses() -> dict[int | str, dict[str, Any]]:
    return {
        200: {"description": "The transcript.", "content": CONTENT},
        **{
            status: {"model": TranscriptionOut, "description": description}
            for status, description in ERRORS.items()
        },
    }


def _request_schema() -> dict[str, Any]:
    """The parameters as query and as form fields, which FastAPI cannot tell by itself since
    the body is read by hand to keep it bounded."""
    fields = TranscribeParameters.model_json_schema()["properties"]
    binary = {"type": "string", "format": "binary"}
    files = dict.fromkeys(FILE_FIELDS, binary)
    form = {"type": "object", "properties": {**files, **fields}}
    return {
        "parameters": [
            {"name": name, "in": "query", "required": False, "schema": schema}
            for name, schema in fields.items()
        ],
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {"schema": form},
                "audio/*": {"schema": binary},
                "application/octet-stream": {"schema": binary},
            },
        },
    }
