"""What `docs/operations.md` says shows that a threat is met is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from whisper_serve.api import pace
from whisper_serve.api.live import MAX_FRAME_BYTES
from whisper_serve.audio import isolated
from whisper_serve.audio.ffmpeg import MAX_BLOCK_BYTES
from whisper_serve.config import Config
from whisper_serve.serving import bounded_http
from whisper_serve.serving.cluster import PROXY_CALLBACK
from whisper_serve.serving.proxy import FOR_OPERATORS, guards

PROJECT = Path(__file__).parent.parent
PAGE = (PROJECT / "docs" / "operations.md").read_text(encoding="utf-8")
SECTIONS = Config.model_fields.keys()


def named(pattern: str) -> list[str]:
    return sorted(set(re.findall(pattern, PAGE)))


@pytest.mark.parametrize("path", named(r"`((?:tests|benchmarks)/[a-z0-9_/]+(?:\.py)?)`"))
def test_every_test_that_is_named_is_there(path: str) -> None:
    assert (PROJECT / path).exists()


@pytest.mark.parametrize("path", named(r"`((?:api|audio|serving)/[a-z0-9_]+\.py)`"))
def test_every_module_that_is_named_is_there(path: str) -> None:
    assert (PROJECT / "whisper_serve" / path).is_file()


@pytest.mark.parametrize("page", named(r"\]\(([a-z]+\.md)[)#]"))
def test_every_page_that_is_linked_is_there(page: str) -> None:
    assert (PROJECT / "docs" / page).is_file()


@pytest.mark.parametrize("key", named(rf"`((?:{'|'.join(SECTIONS)})\.[a-z_]+)`"))
def test_every_setting_that_is_named_is_one(key: str) -> None:
    section, name = key.split(".")
    assert name in type(getattr(Config(), section)).model_fields


def test_bounds_are_what_they_are_said_to_be() -> None:
    assert "first request of a connection, head of a request | 30 s" in PAGE
    assert bounded_http.HEAD_TIMEOUT_S == pace.GRACE_S == 30
    assert "answer that nobody reads | 60 s" in PAGE
    assert bounded_http.UNREAD_TIMEOUT_S == 60
    assert "64 KiB, then 431" in PAGE
    assert bounded_http.MAX_HEAD_BYTES == 64 << 10
    assert pace.LEAST_BYTES_PER_S == 1 << 10
    assert "16 MiB, then 1009" in PAGE
    assert MAX_FRAME_BYTES == 16 << 20
    assert "bounds its memory to 768 MiB" in PAGE
    assert isolated.BASE_BYTES == 768 << 20
    assert "no block of more than 64 MiB" in PAGE
    assert MAX_BLOCK_BYTES == 64 << 20


def test_a_cluster_is_told_what_serve_has_to_find() -> None:
    assert f"export {PROXY_CALLBACK}={guards.__module__}:{guards.__name__}" in PAGE
    told = PAGE.replace("_", "-")
    assert all(name.decode() in told for name in FOR_OPERATORS)
