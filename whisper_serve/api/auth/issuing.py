"""Which tokens a caller may have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from whisper_serve.api.auth.callers import Caller
from whisper_serve.errors import InvalidParameter, ScopeMissing

# What a page in a browser needs.
USUAL_SCOPES = ("transcribe", "stream")


class Wish(NamedTuple):
    """What a caller asked for; None is the usual. `parameter` is what it calls `lifetime_s`."""

    lifetime_s: int | None
    scopes: Sequence[str] | None = None
    parameter: str = "expires_in"


class Grant(NamedTuple):
    """What a token is issued with."""

    lifetime_s: int
    scopes: tuple[str, ...]


def granted(wish: Wish, caller: Caller, longest_s: int) -> Grant:
    """Raises `InvalidParameter` or `ScopeMissing`."""
    lifetime_s = longest_s if wish.lifetime_s is None else wish.lifetime_s
    if lifetime_s > longest_s:
        raise InvalidParameter(wish.parameter, f"at most {longest_s}")
    return Grant(lifetime_s, _scopes(wish.scopes, caller))


def _scopes(wished: Sequence[str] | None, caller: Caller) -> tuple[str, ...]:
    if wished is None:
        usual = tuple(scope for scope in USUAL_SCOPES if scope in caller.scopes)
        if not usual:
            raise ScopeMissing(USUAL_SCOPES[0])
        return usual
    for scope in wished:
        if scope not in caller.scopes:
            raise ScopeMissing(scope)
    return tuple(dict.fromkeys(wished))
