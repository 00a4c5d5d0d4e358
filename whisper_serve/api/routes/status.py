"""`GET /v1/status`: models, replicas, load and room, for people and for what starts machines."""

from __future__ import annotations

import asyncio
import time

from fastapi import APIRouter

from whisper_serve.api.services import Services
from whisper_serve.api.status import StatusOut, status_of


def status_router(services: Services) -> APIRouter:
    router = APIRouter(tags=["operation"])

    @router.get("/v1/status", summary="How is the service?")
    async def status() -> StatusOut:
        """Asks every replica; one that does not answer within about a second is not in it."""
        oversight = services.oversight
        families, deployments = await asyncio.gather(oversight.gather(), oversight.deployments())
        return status_of(families, deployments, services.models, time.time())

    return router
