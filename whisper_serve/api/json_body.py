"""Small JSON objects as the body of a request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from whisper_serve.api.upload import receive_body
from whisper_serve.errors import EmptyAudio, InvalidParameter, InvalidRequest
from whisper_serve.streaming.messages import json_object

Model = TypeVar("Model", bound=BaseModel)


async def read_object(request: Request, max_bytes: int) -> dict[str, Any]:
    """The request's body; nothing is an empty object. Raises `InvalidRequest` or
    `UploadTooLarge`."""
    try:
        async with receive_body(request, max_bytes) as file:
            return json_object((await file.read()).decode())
    except EmptyAudio:
        return {}
    except UnicodeDecodeError as exc:
        raise InvalidRequest("the body must be UTF-8") from exc


def checked(model: type[Model], values: Mapping[str, Any]) -> Model:
    """`values` as a `model`. Raises `InvalidParameter` for the first that is wrong, or
    `InvalidRequest` when it has no name."""
    try:
        return model.model_validate(values)
    except ValidationError as exc:
        raise _refusal(exc) from exc


def _refusal(exc: ValidationError) -> InvalidRequest:
    error = exc.errors(include_url=False, include_input=False)[0]
    path = [printable(str(part)) for part in error["loc"]]
    reason = error["msg"].removeprefix("Value error, ")
    match error["type"]:
        case "extra_forbidden":
            reason = "unknown parameter"
        case "model_type" | "model_attributes_type":
            reason = "must be an object"
        case _:
            pass
    return InvalidParameter(".".join(path), reason) if path else InvalidRequest(reason)


def printable(name: str) -> str:
    """A client's name for something, fit to be told again."""
    return name[:40].encode("ascii", "backslashreplace").decode()


def described(model: type[BaseModel]) -> dict[str, Any]:
    """The body in OpenAPI, which FastAPI cannot tell by itself since it is read by hand to keep it
    bounded."""
    schema = model.model_json_schema()
    return {"requestBody": {"content": {"application/json": {"schema": schema}}}}
