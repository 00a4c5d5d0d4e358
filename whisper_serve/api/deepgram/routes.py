"""`POST /v1/listen` and `WS /v1/listen`, as clients of Deepgram call them."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from fastapi import APIRouter, Request, WebSocket
from starlette.responses import Response

from whisper_serve.api.admission import Admission
from whisper_serve.api.connection import Dialect, deny, serve
from whisper_serve.api.deepgram.answers import ServedModel, Writing
from whisper_serve.api.deepgram.failures import REQUEST_ID_HEADER, FailureOut
from whisper_serve.api.deepgram.files import ListenOut, transcribe_body
from whisper_serve.api.deepgram.models import chosen_model
from whisper_serve.api.deepgram.parameters import (
    SWITCHES,
    FileParameters,
    ListenParameters,
    LiveParameters,
)
from whisper_serve.api.deepgram.peer import Farewell, ListenPeer
from whisper_serve.api.deepgram.results import LiveResults
from whisper_serve.api.live import Timing
from whisper_serve.api.services import Services
from whisper_serve.errors import WhisperServeError

PATH = "/v1/listen"
ERRORS = {
    400: "The audio or a parameter cannot be used, or the model is not served.",
    408: "The body does not come in time.",
    413: "The upload or the recording is larger than the limits.",
    500: "The transcription failed.",
    503: "No room or no engine; `Retry-After` says when to come back.",
    504: "The transcription took too long.",
}
# With which browsers show a key, since they cannot set headers.
SUBPROTOCOLS = ("token", "bearer")


def listen_router(
    services: Services, admission: Admission, *, timing: Timing | None = None
) -> APIRouter:
    timing = timing or Timing()
    router = APIRouter(tags=["Deepgram"])

    @router.post(
        PATH,
        summary="Transcribe a recording, as Deepgram does",
        response_model=ListenOut,
        response_model_exclude_none=True,
        responses=_failures(),
        openapi_extra=_request_schema(),
    )
    async def listen(request: Request) -> Response:
        """Send the recording as the body, with any Content-Type but JSON and forms; its format is
        judged by its content."""
        services.door.admit_file()
        parameters = FileParameters.parse(request.query_params.multi_items())
        model = _model(parameters, services)
        answer = await transcribe_body(request, services, parameters, model)
        body = await asyncio.to_thread(answer.model_dump_json, exclude_none=True)
        headers = {REQUEST_ID_HEADER: request.state.request_id}
        return Response(body, headers=headers, media_type="application/json")

    @router.websocket(PATH)
    async def listen_live(socket: WebSocket) -> None:
        try:
            parameters = LiveParameters.parse(socket.query_params.multi_items())
            dialect = _dialect(socket, services, parameters)
        except WhisperServeError as exc:
            await deny(socket, exc)
            return
        await serve(socket, dialect, services=services, admission=admission, timing=timing)

    return router


def _model(parameters: ListenParameters, services: Services) -> str:
    patterns = services.config.deepgram.model_names
    return chosen_model(parameters.model, services.models, patterns)


def _dialect(socket: WebSocket, services: Services, parameters: LiveParameters) -> Dialect:
    model = _model(parameters, services)
    farewell = Farewell()
    results = LiveResults(
        ServedModel(model or services.models.names[0]),
        Writing(parameters.is_formatted, parameters.tells_languages),
        tells_speech=parameters.vad_events,
        labels=parameters.labels,
    )
    offered = socket.scope.get("subprotocols", [])
    return Dialect(
        partial(
            ListenPeer,
            config=parameters.stream_config(model),
            results=results,
            farewell=farewell,
        ),
        idle_timeout_s=services.config.deepgram.idle_timeout_s,
        subprotocol=next((name for name in offered if name in SUBPROTOCOLS), None),
        closing=farewell.closing,
    )


def _failures() -> dict[int | str, dict[str, Any]]:
    return {
        status: {"model": FailureOut, "description": description}
        for status, description in ERRORS.items()
    }


def _request_schema() -> dict[str, Any]:
    """The query and the body, which FastAPI cannot tell by itself since both are read by hand."""
    fields: dict[str, dict[str, Any]] = FileParameters.model_json_schema()["properties"]
    off = {"type": "string", "enum": ["false"], "description": "Not supported: leave it out."}
    switches = {name: off for name in SWITCHES if name not in fields}
    binary = {"schema": {"type": "string", "format": "binary"}}
    return {
        "parameters": [
            {"name": name, "in": "query", "required": False, "schema": _without_null(schema)}
            for name, schema in {**fields, **switches}.items()
        ],
        "requestBody": {
            "required": True,
            "content": {"audio/*": binary, "video/*": binary, "application/octet-stream": binary},
        },
    }


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """No default is a value that nobody can write in a query."""
    return {key: value for key, value in schema.items() if (key, value) != ("default", None)}
