"""`GET /`: the page in a browser, facts for programs; `/web/`: what the page is made of."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

FOLDER = Path(__file__).parents[2] / "web"
# A system's own table of types may differ, and `nosniff` makes browsers take it at its word.
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Accept-Ranges": "none",
    # The page and its modules fit each other only when they are of one version.
    "Cache-Control": "no-cache",
    "Content-Security-Policy": POLICY,
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(self)",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
PAGE: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/html": {"schema": {"type": "string"}}}}
}


class WebFiles(StaticFiles):
    """The page's files, with the headers that a browser needs to trust nothing else. They are
    given whole: refused ranges would not have the shape of other failures."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        scope["headers"] = [pair for pair in scope["headers"] if pair[0] != b"range"]
        return await super().get_response(path, scope)

    def file_response(
        self,
        full_path: str | os.PathLike[str],
        stat_result: os.stat_result,
        scope: Scope,
        status_code: int = 200,
    ) -> Response:
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers.update(HEADERS)
        kind = TYPES.get(Path(full_path).suffix)
        if kind and "content-type" in response.headers:
            response.headers["content-type"] = kind
        return response


def web_router(about: Mapping[str, Any]) -> APIRouter:
    """`about` is what a program is told at `/`."""
    router = APIRouter(tags=["page"])
    files = WebFiles(directory=FOLDER)

    @router.get("/", summary="What this is", response_model=dict[str, Any], responses=PAGE)
    async def root(request: Request) -> Response:
        """The page for who accepts `text/html`, as browsers do; JSON for everybody else."""
        page = wants_page(request.headers.get("accept", ""))
        response = (
            await files.get_response("index.html", request.scope)
            if page
            else JSONResponse(dict(about))
        )
        response.headers["Vary"] = "Accept"
        return response

    @router.get("/web/{path:path}", include_in_schema=False)
    async def file(path: str, request: Request) -> Response:
        return await files.get_response(path, request.scope)

    return router


def wants_page(accept: str) -> bool:
    """Whether an `Accept` header names HTML, and not JSON rather than it. `*/*` does not."""
    weights = dict(_weight(part) for part in accept.lower().split(","))
    html = weights.get("text/html", 0.0)
    return html > 0 and html >= weights.get("application/json", 0.0)


def _weight(part: str) -> tuple[str, float]:
    """A media range and its `q`, 0 to 1; what cannot be read counts as 0."""
    kind, *parameters = (piece.strip() for piece in part.split(";"))
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return kind, min(1.0, max(0.0, float(value)))
            except ValueError:
                return kind, 0.0
    return kind, 1.0
