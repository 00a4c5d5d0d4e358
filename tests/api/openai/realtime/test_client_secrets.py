"""Keys for browsers, over HTTP."""

from __future__ import annotations

import json
from typing import Any

import httpx
import openai
import pytest
from openai.types.beta.realtime import TranscriptionSession
from openai.types.realtime import ClientSecretCreateResponse

from tests.api.fakes import app_with, client_of
from tests.api.openai.realtime.lines import session
from tests.api.openai.service import patient, serving
from whisper_serve.api.openai.realtime.client_secrets import MAX_BODY_BYTES, inlined
from whisper_serve.api.openai.realtime.configuration import SessionConfig
from whisper_serve.api.openai.realtime.ephemeral_keys import EphemeralKeys

TODAY, BETA = "/v1/realtime/client_secrets", "/v1/realtime/transcription_sessions"
KEYS = EphemeralKeys("key")
LOGPROBS = "item.input_audio_transcription.logprobs"


async def post(path: str, body: Any = None, **options: Any) -> httpx.Response:
    content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    async with client_of(app_with()) as client:
        return await client.post(path, content=content, **options)


async def error_of(path: str, body: Any, **options: Any) -> tuple[int, str, str | None]:
    response = await post(path, body, **options)
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return response.status_code, error["code"], error["param"]


@pytest.mark.parametrize("body", [b"", {}, {"expires_after": None, "session": None}])
async def test_nothing_chosen_is_a_key_for_the_usual_session(body: Any) -> None:
    secret = ClientSecretCreateResponse.model_validate((await post(TODAY, body)).json())
    assert KEYS.session_of(secret.value) == SessionConfig()
    shown = secret.session.to_dict()
    assert shown["object"] == "realtime.transcription_session"
    assert SessionConfig().shown("base").items() <= shown.items()


@pytest.mark.parametrize("seconds", [10, 7_200])
async def test_a_key_lives_as_long_as_it_is_told(seconds: int) -> None:
    short = ClientSecretCreateResponse.model_validate(
        (await post(TODAY, {"expires_after": {"seconds": seconds}})).json()
    )
    usual = ClientSecretCreateResponse.model_validate((await post(TODAY)).json())
    assert usual.expires_at - short.expires_at == pytest.approx(600 - seconds, abs=5)


async def test_the_sdk_gets_a_key_of_each_form() -> None:
    async with serving() as url, patient(url) as client:
        today = await client.realtime.client_secrets.create(
            session={
                "type": "transcription",
                "audio": {"input": {"transcription": {"language": "de"}}},
                "include": ["item.input_audio_transcription.logprobs"],
            }
        )
        beta = await client.beta.realtime.transcription_sessions.create(
            input_audio_format="pcm16",
            input_audio_transcription={"language": "de"},
            include=[LOGPROBS],
            client_secret={"expires_at": {"anchor": "created_at", "seconds": 60}},
        )
    assert isinstance(beta, TranscriptionSession)
    expected = session(transcription={"language": "de"}).updated({"include": [LOGPROBS]})
    assert KEYS.session_of(today.value) == expected
    assert KEYS.session_of(beta.client_secret.value) == expected
    assert today.expires_at - beta.client_secret.expires_at == pytest.approx(540, abs=5)
    assert beta.input_audio_format == "pcm16"


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        (TODAY, {"expires_after": {"seconds": 9}}, "expires_after.seconds"),
        (TODAY, {"expires_after": {"seconds": 7_201}}, "expires_after.seconds"),
        (TODAY, {"expires_after": {"seconds": 60.5}}, "expires_after.seconds"),
        (TODAY, {"expires_after": {"anchor": "now"}}, "expires_after.anchor"),
        (TODAY, {"session": {"type": "realtime"}}, "session.type"),
        (TODAY, {"session": {"voice": "alloy"}}, "session.voice"),
        (
            TODAY,
            {"session": {"audio": {"input": {"turn_detection": {"type": "semantic_vad"}}}}},
            "session.audio.input.turn_detection.type",
        ),
        (TODAY, {"model": "whisper-1"}, "model"),
        (BETA, {"input_audio_format": "opus"}, "input_audio_format"),
        (BETA, {"turn_detection": {"threshold": 2}}, "turn_detection.threshold"),
        (
            BETA,
            {"client_secret": {"expires_at": {"seconds": 1}}},
            "client_secret.expires_at.seconds",
        ),
        (BETA, {"session": {}}, "session"),
        (TODAY, b'{"session": {"audio": {"\\ud800": 1}}}', "session.audio"),
    ],
)
async def test_what_cannot_be_is_refused_and_named(path: str, body: Any, param: str) -> None:
    assert await error_of(path, body) == (400, "invalid_parameter", param)


@pytest.mark.parametrize("path", [TODAY, BETA])
@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff\xfe", b"nothing", b'{"\\ud800": 1}'])
async def test_a_body_must_be_an_object(path: str, body: bytes) -> None:
    status, _, param = await error_of(path, body)
    assert (status, param) == (400, None)


async def test_a_model_that_is_not_served_is_not_found() -> None:
    model = {"model": "gpt-9"}
    today = {"session": {"audio": {"input": {"transcription": model}}}}
    assert await error_of(TODAY, today) == (404, "model_not_found", "model")
    beta = {"input_audio_transcription": model}
    assert await error_of(BETA, beta) == (404, "model_not_found", "model")


@pytest.mark.parametrize("path", [TODAY, BETA])
async def test_an_ephemeral_key_issues_no_others(path: str) -> None:
    key = KEYS.issue(SessionConfig(), 600).value
    shown = {"Authorization": f"Bearer {key}"}
    assert (await error_of(path, {}, headers=shown))[:2] == (401, "invalid_api_key")
    assert (await post(path, {}, headers={"Authorization": "Bearer sk-1"})).status_code == 200


async def test_the_sdk_raises_what_it_raises_for_a_wrong_key() -> None:
    async with serving() as url, patient(url) as client:
        browser = client.with_options(api_key=KEYS.issue(SessionConfig(), 600).value)
        with pytest.raises(openai.AuthenticationError):
            await browser.realtime.client_secrets.create()


@pytest.mark.parametrize("path", [TODAY, BETA])
async def test_a_body_has_its_limit(path: str) -> None:
    body = b" " * MAX_BODY_BYTES + b"{}"
    status, code, _ = await error_of(path, body)
    assert (status, code) == (413, "upload_too_large")


@pytest.mark.parametrize("path", [TODAY, BETA])
async def test_both_are_described(path: str) -> None:
    async with client_of(app_with()) as client:
        described = (await client.get("/openapi.json")).json()["paths"][path]["post"]
    body = described["requestBody"]["content"]["application/json"]["schema"]
    assert "$ref" not in json.dumps(body)
    assert "client_secret" in body["properties"] or "session" in body["properties"]
    assert {"200", "400", "401", "404", "413"} <= described["responses"].keys()


def test_a_schema_is_put_into_one_piece() -> None:
    inner = {"type": "object", "properties": {"a": {"$ref": "#/$defs/A"}}}
    schema = {
        "$defs": {"A": {"type": "string"}, "B": inner},
        "anyOf": [{"$ref": "#/$defs/B", "description": "b"}, {"type": "null"}],
    }
    expected = {"type": "object", "properties": {"a": {"type": "string"}}, "description": "b"}
    assert inlined(schema) == {"anyOf": [expected, {"type": "null"}]}
