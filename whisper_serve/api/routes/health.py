"""Probes: is the process alive, does an engine answer, who is this."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response

from whisper_serve import __version__
from whisper_serve.api.schemas import HealthOut
from whisper_serve.api.services import Services
from whisper_serve.errors import Draining, EngineUnavailable

UNHEALTHY: dict[int | str, dict[str, Any]] = {
    503: {"model": HealthOut, "description": "No engine answers, or the service is about to stop."}
}


def health_router(services: Services) -> APIRouter:
    router = APIRouter(tags=["health"])

    @router.get("/health", summary="Does an engine answer?", responses=UNHEALTHY)
    async def health(response: Response) -> HealthOut:
        """Answers while the service is saturated: it does not wait behind transcriptions."""
        try:
            services.door.drain.require_open()
            status = await services.engines.status()
        except (EngineUnavailable, Draining) as exc:
            response.status_code = exc.http_status
            ill = "draining" if isinstance(exc, Draining) else "unhealthy"
            return HealthOut(status=ill, reason=str(exc), version=__version__)
        return HealthOut(
            status="healthy",
            version=__version__,
            engine=status.info.engine,
            model=status.info.model,
            device=status.info.device,
            compute_type=status.info.compute_type,
            load_s=round(status.info.load_s, 3),
            windows_waiting=status.load.waiting,
            audio_waiting_s=round(status.load.waiting_s, 3),
            windows_running=status.load.running,
        )

    @router.get("/readyz", summary="Can this take requests?", responses=UNHEALTHY)
    async def readyz(response: Response) -> HealthOut:
        return await health(response)

    @router.get("/livez", summary="Is this process alive?")
    async def livez() -> dict[str, str]:
        return {"status": "alive"}

    return router
