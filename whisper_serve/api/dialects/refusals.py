"""What the dialects share about wrong messages: they are JSON objects, and so are refusals."""

from __future__ import annotations

import json
from typing import Any

from pydantic import ValidationError

from whisper_serve.errors import InvalidMessage, InvalidParameter
from whisper_serve.streaming.messages import Failed


def json_object(text: str) -> dict[str, Any]:
    """Raises `InvalidMessage`."""
    try:
        message = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise InvalidMessage("a text frame must be JSON") from exc
    if not isinstance(message, dict):
        raise InvalidMessage("a text frame must be a JSON object")
    return message


def refusal_of(exc: ValidationError) -> InvalidParameter:
    """The first field that is wrong."""
    error = exc.errors()[0]
    name = ".".join(str(part) for part in error["loc"])
    return InvalidParameter(name or "data", error["msg"].removeprefix("Value error, "))


def error_text(failed: Failed) -> str:
    error = {"type": "error", "code": failed.code, "message": failed.message}
    return json.dumps(error, ensure_ascii=False)
