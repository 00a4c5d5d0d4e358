"""Where clients put their key.

In a header: `Authorization: Bearer KEY`, `Authorization: Token KEY` or `X-API-Key: KEY`. Browsers
cannot set headers of a WebSocket and offer the key as a subprotocol: `whisper-serve.key.KEY`,
`openai-insecure-api-key.KEY`, or as the second one behind `token` or `bearer`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from starlette.requests import HTTPConnection

from whisper_serve.errors import InvalidKey

SCHEMES = ("bearer", "token")
KEY_HEADER = "X-API-Key"
# What the service selects when a client offers it beside its key.
SUBPROTOCOL = "whisper-serve"
KEY_SUBPROTOCOLS = ("whisper-serve.key.", "openai-insecure-api-key.")


def shown_key(connection: HTTPConnection) -> str:
    """The key that a client shows, empty without one. Raises `InvalidKey` for several."""
    keys = {*_in_headers(connection), *_in_subprotocols(offered_by(connection))}
    if len(keys) > 1:
        raise InvalidKey("more than one key is shown; send one")
    return keys.pop() if keys else ""


def offered_by(connection: HTTPConnection) -> Sequence[str]:
    """The subprotocols that a WebSocket's client offers."""
    offered: Sequence[str] = connection.scope.get("subprotocols", [])
    return offered


def _in_headers(connection: HTTPConnection) -> Iterator[str]:
    for value in connection.headers.getlist("Authorization"):
        scheme, _, key = value.strip().partition(" ")
        # Any other scheme is between the client and something before us.
        if scheme.lower() in SCHEMES and key.strip():
            yield key.strip()
    for value in connection.headers.getlist(KEY_HEADER):
        if value.strip():
            yield value.strip()


def _in_subprotocols(offered: Sequence[str]) -> Iterator[str]:
    for name in offered:
        for start in KEY_SUBPROTOCOLS:
            if name.startswith(start) and name != start:
                yield name.removeprefix(start)
    if len(offered) > 1 and offered[0].lower() in SCHEMES:
        yield offered[1]
