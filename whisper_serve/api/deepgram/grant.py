"""`POST /v1/auth/grant`: a token for browsers, as clients of Deepgram ask for one."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from whisper_serve.api.auth.issuing import Wish
from whisper_serve.api.deepgram.failures import FailureOut
from whisper_serve.api.json_body import checked, described, read_object
from whisper_serve.api.routes.tokens import MAX_BODY_BYTES, TokenOffice
from whisper_serve.api.services import Services

# As in Deepgram's API.
DEFAULT_TTL_S = 30
ERRORS = {
    400: "`ttl_seconds` or the body cannot be used.",
    413: "The body is too large.",
}


class GrantRequest(BaseModel):
    """The body; nothing is an empty one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ttl_seconds: int = Field(DEFAULT_TTL_S, ge=1, description="How long the token holds.")


class GrantOut(BaseModel):
    """A token for `Authorization: Bearer`. `expires_in`: seconds."""

    access_token: str
    expires_in: float


def grant_router(services: Services) -> APIRouter:
    router = APIRouter(tags=["Deepgram"])
    office = TokenOffice(services)

    @router.post(
        "/v1/auth/grant",
        summary="A token for a browser, as Deepgram issues it",
        responses=_failures(),
        openapi_extra=described(GrantRequest),
    )
    async def grant(request: Request) -> GrantOut:
        """The same as `/v1/tokens`."""
        asked = checked(GrantRequest, await read_object(request, MAX_BODY_BYTES))
        wish = Wish(asked.ttl_seconds, parameter="ttl_seconds")
        token, _ = office.issue(request, wish)
        return GrantOut(access_token=token.value, expires_in=asked.ttl_seconds)

    return router


def _failures() -> dict[int | str, dict[str, Any]]:
    return {
        status: {"model": FailureOut, "description": description}
        for status, description in ERRORS.items()
    }
