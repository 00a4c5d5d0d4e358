"""What browsers may do with an answer: nothing, unless its route says otherwise. Plain ASGI."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from whisper_serve.api.failures import path_of

HEADERS = {
    # Answers hold what people said.
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
HSTS = {"Strict-Transport-Security": "max-age=31536000"}
# FastAPI's pages have a script inline and bring the rest from there.
CDN, FASTAPI = "https://cdn.jsdelivr.net", "https://fastapi.tiangolo.com"
DOCS = ("/docs", "/redoc")
DOCS_POLICY = (
    f"default-src 'none'; script-src {CDN} 'unsafe-inline'; "
    f"style-src {CDN} https://fonts.googleapis.com 'unsafe-inline'; "
    f"font-src https://fonts.gstatic.com; img-src 'self' data: {FASTAPI} {CDN}; "
    "connect-src 'self'; worker-src blob:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


class SecurityHeadersMiddleware:
    """Gives every HTTP answer the headers that it has not. `has_tls`: the service speaks TLS
    itself; where a proxy does, it is the proxy's to say."""

    def __init__(self, app: ASGIApp, *, has_tls: bool) -> None:
        self._app = app
        self._has_tls = has_tls

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        usual = headers_for(path_of(scope), has_tls=self._has_tls)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in usual.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_with_headers)


def headers_for(path: str, *, has_tls: bool) -> Mapping[str, str]:
    """`path` within the application."""
    headers = {**HEADERS, **(HSTS if has_tls else {})}
    if path in DOCS:
        headers["Content-Security-Policy"] = DOCS_POLICY
    return headers
