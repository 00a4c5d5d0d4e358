"""`POST /v1/tokens`: a key in, a short-lived token for browsers out."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from whisper_serve.api.auth.callers import caller_of
from whisper_serve.api.auth.issuing import Grant, Wish, granted
from whisper_serve.api.auth.signed import Signed
from whisper_serve.api.auth.tokens import Tokens
from whisper_serve.api.json_body import checked, described, read_object
from whisper_serve.api.schemas import TranscriptionOut
from whisper_serve.api.services import Services
from whisper_serve.config import KeyScope

audit = logging.getLogger("whisper_serve.audit")

MAX_BODY_BYTES = 4096
ERRORS = {
    400: "A field cannot be used; the message names it.",
    413: "The body is too large.",
}


class TokenRequest(BaseModel):
    """The body of `POST /v1/tokens`; nothing is an empty one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    expires_in: int | None = Field(
        None, ge=1, strict=True, description="Seconds; by default as long as is allowed."
    )
    scopes: list[KeyScope] | None = Field(
        None, min_length=1, description="By default `transcribe` and `stream`."
    )


class TokenOut(BaseModel):
    """A token that stands for its key. `expires_at`: seconds since 1970."""

    token: str
    expires_at: int
    expires_in: int
    scopes: list[KeyScope]


class TokenOffice:
    """Issues tokens to callers, and keeps record of it."""

    def __init__(self, services: Services) -> None:
        self._tokens = Tokens(services.signing_key)
        self._longest_s = services.config.auth.token_lifetime_s

    def issue(self, request: Request, wish: Wish) -> tuple[Signed, Grant]:
        """Raises `InvalidParameter` or `ScopeMissing`."""
        caller = caller_of(request)
        grant = granted(wish, caller, self._longest_s)
        token = self._tokens.issue(caller.key_id, grant.scopes, grant.lifetime_s)
        fields = {"caller": caller.name, "scopes": grant.scopes, "expires_at": token.expires_at}
        audit.info("token issued", extra={"fields": fields})
        return token, grant


def tokens_router(services: Services) -> APIRouter:
    router = APIRouter(tags=["keys"])
    office = TokenOffice(services)

    @router.post(
        "/v1/tokens",
        summary="A token for a browser",
        responses=_responses(),
        openapi_extra=described(TokenRequest),
    )
    async def tokens(request: Request) -> TokenOut:
        """It stands for the key that asks, with fewer scopes and not for long."""
        wish = checked(TokenRequest, await read_object(request, MAX_BODY_BYTES))
        token, grant = office.issue(request, Wish(wish.expires_in, wish.scopes))
        return TokenOut(
            token=token.value,
            expires_at=token.expires_at,
            expires_in=grant.lifetime_s,
            scopes=list(grant.scopes),
        )

    return router


def _responses() -> dict[int | str, dict[str, Any]]:
    return {
        status: {"model": TranscriptionOut, "description": description}
        for status, description in ERRORS.items()
    }
