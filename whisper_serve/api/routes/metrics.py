"""`GET /metrics`: what all processes of the service measured, as Prometheus reads it."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request, Response

from whisper_serve.api.services import Services
from whisper_serve.observability.exposition import exposed

TEXT = {"schema": {"type": "string"}}
FORMATS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/plain": TEXT, "application/openmetrics-text": TEXT}}
}


def metrics_router(services: Services) -> APIRouter:
    router = APIRouter(tags=["operation"])

    @router.get(
        "/metrics",
        summary="Numbers for Prometheus",
        response_class=Response,
        responses=FORMATS,
    )
    async def metrics(request: Request) -> Response:
        """Of all processes, each with the labels `deployment` and `replica`, in the text format
        of Prometheus or that of OpenMetrics, as `Accept` asks."""
        families = await services.oversight.gather()
        accept = request.headers.get("accept", "")
        text, content_type = await asyncio.to_thread(exposed, families, accept)
        return Response(text, headers={"Content-Type": content_type})

    return router
