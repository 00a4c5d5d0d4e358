"""Reading the request that gives a job in: a form, a bare file, or JSON with a URL."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

from starlette.requests import Request

from whisper_serve.api.auth.callers import caller_of
from whisper_serve.api.json_body import checked, read_object
from whisper_serve.api.schemas import TranscribeParameters
from whisper_serve.api.services import Services
from whisper_serve.api.upload import receive_upload
from whisper_serve.config import JobsConfig
from whisper_serve.errors import InvalidParameter
from whisper_serve.jobs.orders import Order
from whisper_serve.jobs.urls import allowed_url

MAX_JSON_BYTES = 1 << 18
MAX_KEY_CHARS = 255


@dataclass(frozen=True, slots=True)
class Received:
    """An order, and its audio of `size` bytes unless that has to be fetched."""

    order: Order
    audio: BinaryIO | None
    size: int


@asynccontextmanager
async def receive_order(request: Request, services: Services) -> AsyncIterator[Received]:
    """The order, for as long as the context is open.

    Raises what `receive_upload` raises, `InvalidParameter`, `ModelNotFound` and
    `UrlNotAllowed`; whether the file is audio turns out when the job runs.
    """
    if _media_type(request) == "application/json":
        fields = _with_query(request, await read_object(request, MAX_JSON_BYTES))
        yield Received(_order(request, services, fields, is_upload=False), None, 0)
    else:
        limit = services.config.limits.max_upload_bytes
        async with receive_upload(request, limit) as upload:
            order = _order(request, services, upload.fields, is_upload=True)
            yield Received(order, upload.file, upload.size)


def query_of(request: Request) -> dict[str, str]:
    """The fields of the query. Raises `InvalidParameter` for one that is given twice."""
    items = request.query_params.multi_items()
    for name, count in Counter(name for name, _ in items).items():
        if count > 1:
            raise InvalidParameter(name, "given more than once")
    return dict(items)


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _with_query(request: Request, body: Mapping[str, Any]) -> dict[str, Any]:
    """Null is as good as nothing in JSON."""
    query = query_of(request)
    for name in query.keys() & body.keys():
        raise InvalidParameter(name, "given more than once")
    return {**query, **{name: value for name, value in body.items() if value is not None}}


def _order(
    request: Request, services: Services, fields: Mapping[str, Any], *, is_upload: bool
) -> Order:
    given = dict(fields)
    url = None if is_upload else _url(given.pop("url", None), services.config.jobs)
    webhook_url = _webhook_url(given.pop("webhook_url", None), services.config.jobs)
    parameters = checked(TranscribeParameters, given)
    services.models.resolve(parameters.model)
    return Order(
        caller=caller_of(request).name,
        parameters=parameters.model_dump(mode="json"),
        request_id=request.state.request_id,
        url=url,
        webhook_url=webhook_url,
        idempotency_key=_idempotency_key(request),
    )


def _url(url: object, config: JobsConfig) -> str:
    if url is None:
        raise InvalidParameter("url", "it is missing: send a file, or the URL of one")
    return _allowed("url", url, config.url_hosts, "jobs.url_hosts")


def _webhook_url(url: object, config: JobsConfig) -> str | None:
    if url is None or url == "":
        return None
    return _allowed("webhook_url", url, config.webhook_hosts, "jobs.webhook_hosts")


def _allowed(name: str, url: object, hosts: tuple[str, ...], setting: str) -> str:
    if not isinstance(url, str):
        raise InvalidParameter(name, "it must be a text")
    if not hosts:
        raise InvalidParameter(name, f"this service asks no other hosts ({setting})")
    return str(allowed_url(url, hosts))


def _idempotency_key(request: Request) -> str | None:
    key = request.headers.get("idempotency-key")
    if key is not None and not (0 < len(key) <= MAX_KEY_CHARS and key.isprintable()):
        limit = f"it must have 1 to {MAX_KEY_CHARS} characters"
        raise InvalidParameter("Idempotency-Key", limit)
    return key
