"""What is documented is what there is."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import get_args

import pytest

from whisper_serve import errors
from whisper_serve.api.job_schemas import JobOut
from whisper_serve.api.schemas import TranscribeParameters
from whisper_serve.config import Config
from whisper_serve.errors import (
    ClientError,
    ClientGone,
    ConfigError,
    ServerBroken,
    ServerStartError,
    Superseded,
    WeightsError,
    WhisperServeError,
)
from whisper_serve.streaming.messages import ServerMessage, StreamConfig

DOCS = Path(__file__).parent.parent / "docs"

SETTINGS = [
    (key, value)
    for name, values in Config().model_dump(mode="json").items()
    for key, value in (
        [(f"{name}.{key}", value) for key, value in values.items()]
        if isinstance(values, dict)
        else [(name, values)]
    )
]
# What ends the start of the service, what a client is not there any more to be told, or what
# befalls partial text, of whose failures nobody is told.
NEVER_TOLD = (
    *(ConfigError, WeightsError, ServerStartError, ServerBroken),
    *(ClientGone, Superseded, ClientError),
)
CODES = sorted(
    {
        error.code
        for error in vars(errors).values()
        if isinstance(error, type)
        and issubclass(error, WhisperServeError)
        and not issubclass(error, NEVER_TOLD)
        # A base that is never raised itself tells nobody its code.
        and error is not errors.TooLarge
    }
)


def lines_about(page: str, name: str) -> list[str]:
    """The lines of a page that name something as code."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if f"`{name}`" in line]


@pytest.mark.parametrize(("key", "default"), SETTINGS, ids=[key for key, _ in SETTINGS])
def test_every_setting_is_documented_with_its_default(key: str, default: object) -> None:
    lines = lines_about("config.md", key)
    assert lines, f"docs/config.md does not name `{key}`"
    assert any(f"`{json.dumps(default)}`" in line for line in lines), (key, default, lines)


@pytest.mark.parametrize("parameter", TranscribeParameters.model_fields)
def test_every_parameter_is_documented(parameter: str) -> None:
    assert lines_about("rest.md", parameter)


@pytest.mark.parametrize("key", StreamConfig.model_fields)
def test_every_setting_of_a_stream_is_documented_with_its_default(key: str) -> None:
    default = json.dumps(StreamConfig().model_dump(mode="json")[key])
    assert any(f"`{default}`" in line for line in lines_about("protocol.md", key)), key


@pytest.mark.parametrize("field", JobOut.model_fields)
def test_every_field_of_a_job_is_documented(field: str) -> None:
    assert any(f'"{field}":' in line for line in (DOCS / "jobs.md").read_text().splitlines())


# The native protocol does not send these.
OF_DIALECTS_ONLY = {("partial", "words")}


@pytest.mark.parametrize("message", get_args(ServerMessage), ids=lambda kind: kind.kind)
def test_every_message_of_a_stream_is_documented(message: type[ServerMessage]) -> None:
    lines = lines_about("protocol.md", message.kind)
    assert lines
    for field in fields(message):
        name = "words" if field.name == "with_words" else field.name
        if (message.kind, name) in OF_DIALECTS_ONLY:
            continue
        assert any(f"`{name}`" in line for line in lines), name


@pytest.mark.parametrize("code", [*CODES, "not_found", "method_not_allowed"])
def test_every_error_that_a_client_gets_is_documented(code: str) -> None:
    pages = ("rest.md", "protocol.md", "jobs.md")
    assert any(lines_about(page, code) for page in pages)
