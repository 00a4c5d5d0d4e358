from __future__ import annotations

import httpx
import pytest
from fastapi import FastAPI
from starlette.exceptions import HTTPException

from tests.api.fakes import app_with, client_of, is_failure
from whisper_serve.errors import (
    EngineUnavailable,
    InvalidParameter,
    Overloaded,
    TooLarge,
    WhisperServeError,
)


def app_that_raises(error: Exception) -> FastAPI:
    app = app_with()

    @app.get("/raise")
    async def fail() -> None:
        raise error

    return app


async def answer_to(error: Exception) -> httpx.Response:
    async with client_of(app_that_raises(error)) as client:
        return await client.get("/raise")


@pytest.mark.parametrize(
    "error",
    [InvalidParameter("task", "unknown"), TooLarge("too much"), WhisperServeError("broken")],
)
async def test_an_error_of_ours_has_its_status_its_code_and_its_sentence(
    error: WhisperServeError,
) -> None:
    answer = await answer_to(error)
    assert is_failure(answer, error.http_status, error.code)
    assert answer.json()["error"] == str(error)


@pytest.mark.parametrize("kind", [Overloaded, EngineUnavailable])
@pytest.mark.parametrize(("seconds", "told"), [(0.2, "1"), (1.0, "1"), (1.001, "2"), (90.0, "90")])
async def test_when_to_come_back_is_told_in_whole_seconds(
    kind: type[Overloaded] | type[EngineUnavailable], seconds: float, told: str
) -> None:
    assert (await answer_to(kind(seconds))).headers["retry-after"] == told


@pytest.mark.parametrize(
    ("status", "code"), [(404, "not_found"), (405, "method_not_allowed"), (418, "http_error")]
)
async def test_an_error_of_the_framework_has_the_same_shape(status: int, code: str) -> None:
    answer = await answer_to(HTTPException(status, "so it is", headers={"X-Why": "because"}))
    assert is_failure(answer, status, code)
    assert answer.json()["error"] == "so it is"
    assert answer.headers["x-why"] == "because"


@pytest.mark.parametrize("error", [RuntimeError("secret"), KeyError("secret"), OSError("secret")])
async def test_any_other_error_has_the_same_shape_and_says_nothing(error: Exception) -> None:
    answer = await answer_to(error)
    assert is_failure(answer, 500, "internal_error")
    assert "secret" not in answer.text
