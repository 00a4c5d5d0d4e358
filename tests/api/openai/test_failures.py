from __future__ import annotations

import json

import pytest

from whisper_serve.api.failures import Failure
from whisper_serve.api.openai.failures import error_out, openai_failure
from whisper_serve.errors import (
    AudioTooLong,
    EmptyAudio,
    InvalidParameter,
    ModelNotFound,
    UnreadableAudio,
    UnsupportedFormat,
    UploadTooLarge,
    WhisperServeError,
)


def failure(status: int, code: str = "some_code", **facts: object) -> Failure:
    return Failure(status, code, "so it is", "r-1", **facts)  # type: ignore[arg-type]


def test_a_failure_is_openais_envelope() -> None:
    answer = openai_failure(failure(400, parameter="model", headers={"X-Why": "because"}))
    assert (answer.status_code, answer.headers["x-why"]) == (400, "because")
    assert json.loads(bytes(answer.body)) == {
        "error": {
            "message": "so it is",
            "type": "invalid_request_error",
            "param": "model",
            "code": "some_code",
        }
    }


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *[(status, "invalid_request_error") for status in (400, 401, 404, 405, 413)],
        (429, "requests"),
        *[(status, "server_error") for status in (500, 503, 504)],
    ],
)
def test_the_status_tells_the_type(status: int, kind: str) -> None:
    assert error_out(failure(status)).error.type == kind


def test_too_much_of_anything_has_openais_code() -> None:
    assert error_out(failure(429, "too_many_streams")).error.code == "rate_limit_exceeded"


def test_a_used_up_day_is_told_as_a_quota_and_not_tried_again() -> None:
    answer = openai_failure(failure(429, "quota_exceeded"))
    error = json.loads(bytes(answer.body))["error"]
    assert (error["code"], error["type"]) == ("insufficient_quota",) * 2
    assert answer.headers["x-should-retry"] == "false"
    assert "x-should-retry" not in openai_failure(failure(429, "rate_limited")).headers


@pytest.mark.parametrize(
    ("cause", "param"),
    [
        (EmptyAudio("nothing"), "file"),
        (UnreadableAudio("noise"), "file"),
        (UnsupportedFormat("aac", [".wav"]), "file"),
        (UploadTooLarge(99), None),
        (AudioTooLong(1.0), "file"),
        (ModelNotFound("gpt", ["base"]), "model"),
        (WhisperServeError("broken"), None),
    ],
)
def test_the_cause_tells_the_field(cause: WhisperServeError, param: str | None) -> None:
    assert error_out(failure(400, cause=cause)).error.param == param


def test_a_parameter_of_ours_is_the_param() -> None:
    exc = InvalidParameter("language", "unknown")
    assert error_out(failure(400, parameter="language", cause=exc)).error.param == "language"


def test_a_file_that_is_too_large_is_told_in_openais_words() -> None:
    told = error_out(failure(413, cause=UploadTooLarge(26_214_400)))
    assert told.error.message == "Maximum content size limit (26214400) exceeded"
