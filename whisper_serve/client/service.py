"""The service over HTTP: asked, and asked again where that can help and does no harm."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from ssl import SSLContext

import httpx

from whisper_serve.client.connection import http_url, refusal_of
from whisper_serve.client.patience import Patience
from whisper_serve.errors import ClientError, ConnectionLost, ServerRefused

logger = logging.getLogger(__name__)

BUSY = {429, 503}
# What something before the service answers while there is none.
GONE = {502, 503, 504}

Make = Callable[[], httpx.Request]


class Service:
    """The service at `base_url`. Raises `InvalidParameter` for a `base_url` that is none.

    `give_up_after_s`: how long one request is made again and again. `trust`: see `trusting`.
    """

    def __init__(
        self,
        base_url: str,
        *,
        headers: Mapping[str, str],
        timeout: httpx.Timeout,
        trust: SSLContext | None,
        give_up_after_s: float,
    ) -> None:
        http_url(base_url, "/")
        self._base_url = base_url
        self._give_up_after_s = give_up_after_s
        verify = True if trust is None else trust
        self.http = httpx.AsyncClient(headers=headers, timeout=timeout, verify=verify)

    def url(self, path: str) -> str:
        return http_url(self._base_url, path)

    async def ask(self, make: Make, *, repeatable: bool) -> httpx.Response:
        """The answer to the request that `make` makes, when it is no failure.

        A service that is busy (429 or 503) and says when to come back is asked again then. A
        `repeatable` request, which may be made twice without harm, is also made again when the
        connection was lost. Raises `ServerRefused` and `ConnectionLost`.
        """
        patience = Patience(self._give_up_after_s)
        while isinstance(answer := await self._ask(make()), ClientError):
            await _wait(patience, answer, repeatable=repeatable)
        return answer

    async def _ask(self, request: httpx.Request) -> httpx.Response | ClientError:
        try:
            response = await self.http.send(request)
        except httpx.RequestError as exc:
            lost = ConnectionLost(f"{request.url}: {str(exc) or type(exc).__name__}")
            lost.__cause__ = exc
            return lost
        if response.is_success:
            return response
        return refusal_of(response.status_code, response.headers, response.content)

    async def aclose(self) -> None:
        await self.http.aclose()


async def _wait(patience: Patience, failure: ClientError, *, repeatable: bool) -> None:
    """Before another try. Raises `failure` when there is none."""
    retry_after_s = retry_after(failure, repeatable=repeatable)
    delay_s = None
    if retry_after_s is not None:
        delay_s = patience.failed(asyncio.get_running_loop().time(), retry_after_s)
    if delay_s is None:
        raise failure
    logger.warning("%s; trying again in %.1f s", failure, delay_s)
    await asyncio.sleep(delay_s)


def retry_after(failure: ClientError, *, repeatable: bool) -> float | None:
    """Seconds to leave the service alone at least; None: another try would be of no use, or
    might do what was asked for twice."""
    if not isinstance(failure, ServerRefused):
        return 0.0 if repeatable else None
    if failure.status in BUSY and failure.retry_after_s is not None:
        return failure.retry_after_s
    return 0.0 if repeatable and failure.status in GONE else None
