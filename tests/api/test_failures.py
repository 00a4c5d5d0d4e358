from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, Response

from whisper_serve.api.error_handlers import install_error_handlers
from whisper_serve.api.failures import Failure, Shape, answer_failure, path_of
from whisper_serve.errors import InvalidParameter, Overloaded, TooManyStreams, WhisperServeError


def connection(path: str = "/", root_path: str = "", **scope: Any) -> HTTPConnection:
    state = {"request_id": "r-1", "began": time.monotonic() - 2.0}
    return HTTPConnection(
        {"type": "http", "path": path, "root_path": root_path, "state": state, **scope}
    )


def named(name: str) -> Shape:
    """A shape that tells whose it is."""

    def shape(failure: Failure) -> Response:
        return PlainTextResponse(f"{name}: {failure.message}", failure.status)

    return shape


SHAPES: Mapping[str, Shape] = {"/v1/listen": named("first"), "/v1/": named("second")}


def app_with_shapes() -> FastAPI:
    app = FastAPI()
    install_error_handlers(app, SHAPES)
    return app


def test_an_error_of_ours_is_told_by_its_facts() -> None:
    exc = InvalidParameter("language", "unknown")
    failure = Failure.of(exc, connection())
    assert (failure.status, failure.code, failure.parameter) == (
        400,
        "invalid_parameter",
        "language",
    )
    assert (failure.message, failure.request_id, failure.cause) == (str(exc), "r-1", exc)
    assert failure.latency_s == pytest.approx(2.0, abs=1.0)


@pytest.mark.parametrize("exc", [Overloaded(1.2), TooManyStreams(3, 1.2)])
def test_when_to_come_back_is_a_header(exc: WhisperServeError) -> None:
    assert Failure.of(exc, connection()).headers == {"Retry-After": "2"}


def test_nobody_else_is_told_to_come_back() -> None:
    assert Failure.of(WhisperServeError("broken"), connection()).headers == {}


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/v1/listen", "first: so it is"),
        ("/v1/models", "second: so it is"),
        ("/v1/", "second: so it is"),
    ],
)
@pytest.mark.parametrize("root_path", ["", "/speech"])
def test_the_path_decides_on_the_shape(path: str, told: str, root_path: str) -> None:
    there = connection(root_path + path, root_path, app=app_with_shapes())
    answer = answer_failure(Failure(400, "code", "so it is", "r-1"), there)
    assert bytes(answer.body).decode() == told


@pytest.mark.parametrize("path", ["/transcribe", "/v1", "/", "/x/v1/models"])
def test_any_other_path_has_the_native_shape(path: str) -> None:
    there = connection(path, app=app_with_shapes())
    answer = answer_failure(Failure(400, "code", "so it is", "r-1"), there)
    assert b'"success":false' in bytes(answer.body)


def test_without_an_application_the_shape_is_native() -> None:
    answer = answer_failure(Failure(400, "code", "so it is", "r-1"), connection("/v1/models"))
    assert b'"success":false' in bytes(answer.body)


def test_the_path_is_the_one_within_the_application() -> None:
    assert path_of(connection("/speech/v1/models", "/speech").scope) == "/v1/models"
    assert path_of({"path": "/v1/models"}) == "/v1/models"
