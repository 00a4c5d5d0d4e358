from __future__ import annotations

import base64
import json
import time
from datetime import datetime, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from tests.client.test_jobs import SHOWN
from whisper_serve.client import verify_webhook
from whisper_serve.errors import InvalidParameter, UnexpectedAnswer, WebhookNotVerified
from whisper_serve.jobs.webhooks import signed

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
BODY = json.dumps({"type": "job.succeeded", "timestamp": "t", "data": SHOWN})


def headers(body: str = BODY, **changes: str) -> dict[str, str]:
    """As the service sends them."""
    return {**dict(signed("m1", body, SECRET, time.time())), **changes}


@pytest.mark.parametrize("body", [BODY, BODY.encode()])
def test_what_the_service_signed_is_a_job(body: str | bytes) -> None:
    job = verify_webhook(body, headers(), SECRET)
    assert (job.id, job.status, job.parameters) == ("j1", "queued", {"language": "de"})


def test_names_of_headers_may_be_written_in_any_way() -> None:
    loud = {name.title(): value for name, value in headers().items()}
    assert verify_webhook(BODY, loud, SECRET).id == "j1"


@pytest.mark.parametrize(
    "changes",
    [
        {"webhook-signature": "v1,AAAA"},
        {"webhook-signature": "v1"},
        {"webhook-signature": "v1,not base64!"},
        {"webhook-signature": "v1,é"},
        {"webhook-signature": ""},
        {"webhook-timestamp": "0"},
        {"webhook-timestamp": "soon"},
        {"webhook-id": "m2"},
    ],
)
def test_what_nobody_signed_is_refused(changes: dict[str, str]) -> None:
    with pytest.raises(WebhookNotVerified, match="the webhook cannot be trusted"):
        verify_webhook(BODY, headers(**changes), SECRET)


def test_a_body_that_was_changed_is_refused() -> None:
    with pytest.raises(WebhookNotVerified):
        verify_webhook(BODY.replace("queued", "failed"), headers(), SECRET)


def test_an_old_webhook_is_refused() -> None:
    at = datetime.fromtimestamp(int(time.time()) - 400, timezone.utc)
    old = {
        "webhook-id": "m1",
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(SECRET).sign("m1", at, BODY),
    }
    with pytest.raises(WebhookNotVerified, match="too old"):
        verify_webhook(BODY, old, SECRET)


@given(st.binary(max_size=40), st.dictionaries(st.sampled_from(list(headers())), st.text()))
def test_anything_else_is_refused(body: bytes, given_headers: dict[str, Any]) -> None:
    with pytest.raises(WebhookNotVerified):
        verify_webhook(body, {**headers(), **given_headers}, SECRET)


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_x", "whsec_ü"])
def test_a_secret_that_is_none_is_told(secret: str) -> None:
    with pytest.raises(InvalidParameter, match=r"^secret"):
        verify_webhook(BODY, headers(), secret)


@pytest.mark.parametrize("body", ["{}", "no JSON", '{"data": {"id": "j1"}}'])
def test_what_is_about_no_job_is_told(body: str) -> None:
    with pytest.raises(UnexpectedAnswer, match="something else than a job"):
        verify_webhook(body, headers(body), SECRET)
