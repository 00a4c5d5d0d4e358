"""Browsers are told to do nothing with answers, unless a page of ours needs more."""

from __future__ import annotations

import re

import pytest

from tests.api.fakes import CLIP, FakePort, app_with, client_of
from whisper_serve.api.security_headers import headers_for

BROWSER = {"Accept": "text/html"}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/transcribe"),
        ("GET", "/livez"),
        ("GET", "/nothing"),
        ("GET", "/transcribe"),
        ("GET", "/openapi.json"),
        ("GET", "/"),
    ],
)
async def test_answers_are_inert_and_not_kept(method: str, path: str) -> None:
    async with client_of(app_with()) as client:
        headers = (await client.request(method, path)).headers
    assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"


async def test_text_and_faults_of_ours_have_them_too() -> None:
    for port, status in ((FakePort(), 200), (FakePort(RuntimeError("unforeseen")), 500)):
        async with client_of(app_with(port)) as client:
            answer = await client.post("/transcribe", files={"file": CLIP})
        assert answer.status_code == status
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", ["/", "/web/app.js"])
async def test_the_page_keeps_its_own_policy(path: str) -> None:
    async with client_of(app_with()) as client:
        headers = (await client.get(path, headers=BROWSER)).headers
    assert "script-src 'self'" in headers["content-security-policy"]
    assert headers["cache-control"] == "no-cache"
    assert len(headers.get_list("content-security-policy")) == 1


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
async def test_the_documentation_may_load_all_that_it_names(path: str) -> None:
    async with client_of(app_with()) as client:
        answer = await client.get(path, headers=BROWSER)
    policy = answer.headers["content-security-policy"]
    for tag, kind in (("script", "script-src"), ("link", "(?:style|img|font)-src")):
        for url in re.findall(rf'<{tag}[^>]+(?:src|href)="(https://[^/"]+)', answer.text):
            assert re.search(rf"{kind}[^;]*{re.escape(url)}", policy), url
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy


def test_browsers_keep_to_tls_where_there_is_tls() -> None:
    assert "max-age" in headers_for("/transcribe", has_tls=True)["Strict-Transport-Security"]
    assert "Strict-Transport-Security" not in headers_for("/transcribe", has_tls=False)
