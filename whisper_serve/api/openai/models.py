"""`GET /v1/models`: which models there are."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel

from whisper_serve.api.openai.catalog import Catalog
from whisper_serve.api.openai.failures import ErrorOut
from whisper_serve.api.services import Services
from whisper_serve.errors import ModelNotFound

# The day on which Whisper was published, 2022-09-21; clients sort by it.
CREATED = 1_663_718_400
NOT_SERVED: dict[int | str, dict[str, Any]] = {
    404: {"model": ErrorOut, "description": "The model is not served here."}
}
NAME = {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}


class ModelOut(BaseModel):
    """A model as OpenAI's clients know it. `created` is in seconds of Unix time."""

    id: str
    object: Literal["model"] = "model"
    created: int = CREATED
    owned_by: str = "whisper_serve"


class ModelsOut(BaseModel):
    """All models, the default one first."""

    object: Literal["list"] = "list"
    data: list[ModelOut]


def models_router(services: Services) -> APIRouter:
    router = APIRouter(prefix="/v1/models", tags=["OpenAI"])
    catalog = Catalog(services)

    @router.get("", summary="Which models there are")
    async def models() -> ModelsOut:
        """Those that are served, and the names that stand for the default one."""
        return ModelsOut(data=[ModelOut(id=name) for name in catalog.names])

    @router.get(
        # A name may have slashes in it.
        "/{model:path}",
        summary="Is this model there?",
        responses=NOT_SERVED,
        openapi_extra={"parameters": [NAME]},
    )
    async def model(request: Request) -> ModelOut:
        # Declared as a parameter, it would be described with an answer that never comes.
        name: str = request.path_params["model"]
        if not name:
            raise ModelNotFound(name, catalog.names)
        catalog.resolve(name)
        return ModelOut(id=name)

    return router
