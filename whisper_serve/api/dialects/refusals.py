"""How the dialects tell what is wrong."""

from __future__ import annotations

import json

from pydantic import ValidationError

from whisper_serve.errors import InvalidParameter
from whisper_serve.streaming.messages import Failed


def refusal_of(exc: ValidationError) -> InvalidParameter:
    """The first field that is wrong."""
    error = exc.errors()[0]
    name = ".".join(str(part) for part in error["loc"])
    return InvalidParameter(name or "data", error["msg"].removeprefix("Value error, "))


def error_text(failed: Failed) -> str:
    error = {"type": "error", "code": failed.code, "message": failed.message}
    return json.dumps(error, ensure_ascii=False)
