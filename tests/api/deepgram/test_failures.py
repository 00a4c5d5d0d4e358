"""Failures come in the shape and with the words that clients of Deepgram know."""

from __future__ import annotations

import json

import pytest
from starlette.requests import HTTPConnection

from whisper_serve.api.deepgram.failures import deepgram_failure
from whisper_serve.api.failures import Failure
from whisper_serve.errors import (
    AudioTooLong,
    DeadlineExceeded,
    EngineFailed,
    EngineUnavailable,
    InvalidKey,
    InvalidParameter,
    ModelNotFound,
    Overloaded,
    TooManyStreams,
    UnreadableAudio,
    UploadTooLarge,
    WhisperServeError,
)


def failure_of(exc: WhisperServeError) -> Failure:
    state = {"request_id": "id-1", "began": 0.0}
    return Failure.of(exc, HTTPConnection({"type": "http", "headers": [], "state": state}))


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (InvalidParameter("channels", "at most 2"), 400, "INVALID_QUERY_PARAMETER"),
        (UnreadableAudio("the file is not audio"), 400, "Bad Request"),
        (InvalidKey("the key is wrong"), 401, "INVALID_AUTH"),
        (UploadTooLarge(1), 413, "Payload Too Large"),
        (AudioTooLong(1.0), 413, "Payload Too Large"),
        (TooManyStreams(1, 5.0), 429, "TOO_MANY_REQUESTS"),
        (EngineFailed("a secret"), 500, "Internal Server Error"),
        (Overloaded(5.0), 503, "Service Unavailable"),
        (EngineUnavailable(5.0), 503, "Service Unavailable"),
        (DeadlineExceeded(1.0), 504, "Gateway Timeout"),
    ],
    ids=lambda value: value.code if isinstance(value, WhisperServeError) else None,
)
def test_a_failure_has_a_code_a_message_and_the_request_s_id(
    error: WhisperServeError, status: int, code: str
) -> None:
    answer = deepgram_failure(failure_of(error))
    assert answer.status_code == status
    told = {"err_code": code, "err_msg": str(error), "request_id": "id-1"}
    assert json.loads(bytes(answer.body)) == told
    assert answer.headers["dg-request-id"] == "id-1"
    assert answer.headers["dg-error"] == str(error)


def test_a_model_that_is_not_served_is_a_bad_request_as_it_is_there() -> None:
    answer = deepgram_failure(failure_of(ModelNotFound("nova-9", ["base"])))
    body = json.loads(bytes(answer.body))
    assert (answer.status_code, body["err_code"]) == (400, "Bad Request")
    assert body["err_msg"].startswith("No such model/language/tier combination found: ")
    assert "'nova-9'" in body["err_msg"]
    assert "base" in body["err_msg"]


@pytest.mark.parametrize("error", [Overloaded(4.2), TooManyStreams(1, 4.2)])
def test_who_may_come_back_is_told_when(error: WhisperServeError) -> None:
    assert deepgram_failure(failure_of(error)).headers["retry-after"] == "5"


def test_the_message_is_fit_for_a_header() -> None:
    error = InvalidParameter("é\r\nX-Evil: 1", "ü" * 5_000)
    answer = deepgram_failure(failure_of(error))
    header = answer.headers["dg-error"]
    assert header.startswith("???X-Evil: 1: ??")
    assert len(header) <= 1_000
    assert json.loads(bytes(answer.body))["err_msg"] == str(error)
