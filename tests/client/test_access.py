"""Keys and certificates, over real sockets."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from tests.api.fakes import CLIP, TEXT
from tests.client.answering import answering
from tests.client.job_service import KEYS, serving_jobs
from tests.client.scripted import CONFIG, running, spoken, text_of
from tests.client.tls import certificate, encrypted
from whisper_serve.client import AsyncClient
from whisper_serve.client.access import KEY_VARIABLE, headers_with, key_in, trusting
from whisper_serve.errors import ConnectionLost, InvalidParameter, ServerRefused

URL = "http://127.0.0.1:8000"
KEY = "wsk_secret"


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)


@pytest.fixture(scope="module")
def self_signed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return certificate(tmp_path_factory.mktemp("tls"))


# Keys


async def test_the_key_goes_with_files_and_streams() -> None:
    with answering() as files, running() as streams:
        async with AsyncClient(files.url, api_key=KEY) as client:
            await client.transcribe(b"x")
        async with AsyncClient(streams.url, api_key=KEY) as client:
            await client.transcribe_stream(spoken([1]), **CONFIG)  # type: ignore[arg-type]
        assert files.uploads[0].authorization == f"Bearer {KEY}"
        assert streams.requests[0].headers.get_all("Authorization") == [f"Bearer {KEY}"]


async def test_the_key_may_be_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, f" {KEY}\n")
    assert headers_with(None, None, URL)["Authorization"] == f"Bearer {KEY}"
    assert headers_with("other", None, URL)["Authorization"] == "Bearer other"
    assert "Authorization" not in headers_with("", None, URL)


def test_what_is_said_otherwise_goes_before_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    assert headers_with(None, {"authorization": "Basic x"}, URL)["Authorization"] == "Basic x"
    assert "Authorization" not in headers_with(None, None, "http://user:secret@host")


@pytest.mark.parametrize(
    ("headers", "url"), [({"authorization": "Basic x"}, URL), ({}, "http://user:secret@host")]
)
def test_two_authorizations_are_one_too_many(headers: dict[str, str], url: str) -> None:
    with pytest.raises(InvalidParameter, match=r"^api_key"):
        headers_with(KEY, headers, url)


@pytest.mark.parametrize("key", ["wsk_ab\r\nX-Evil: 1", "wsk a", "clé", " "])
def test_what_can_be_no_key_is_told_without_it(key: str) -> None:
    with pytest.raises(InvalidParameter, match=r"^api_key") as caught:
        AsyncClient(URL, api_key=key)
    assert key not in str(caught.value) or not key.strip()


def test_a_key_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(f"{KEY}\n")
    assert key_in(path) == KEY
    for content in (b"", b"two words", b"\xff"):
        path.write_bytes(content)
        with pytest.raises(InvalidParameter):
            key_in(path)
    with pytest.raises(InvalidParameter, match="missing cannot be read: No such file"):
        key_in(tmp_path / "missing")


async def test_the_real_service_lets_in_who_has_a_key(tmp_path: Path) -> None:
    with serving_jobs(tmp_path) as service:
        async with AsyncClient(service.url, api_key=KEYS["ada"]) as client:
            assert (await client.transcribe(CLIP)).text == TEXT
            assert await client.transcribe_stream(bytes(32_000)) == TEXT
        async with AsyncClient(service.url, api_key="wsk_wrong") as client:
            for work in (client.transcribe(CLIP), client.transcribe_stream(bytes(32_000))):
                with pytest.raises(ServerRefused) as caught:
                    await work
                assert (caught.value.status, caught.value.error_code) == (401, "invalid_api_key")


# Certificates


async def test_a_certificate_of_one_s_own_is_trusted_when_it_is_named(
    self_signed: tuple[Path, Path],
) -> None:
    with answering() as files, running() as streams:
        number = int(files.url.rpartition(":")[2])
        with encrypted(number, *self_signed) as https, encrypted(streams.port, *self_signed) as wss:
            async with AsyncClient(f"https://127.0.0.1:{https}", ca_file=self_signed[0]) as client:
                assert (await client.transcribe(b"you")).text == "Hello you."
            async with AsyncClient(f"https://127.0.0.1:{wss}", ca_file=self_signed[0]) as client:
                text = await client.transcribe_stream(spoken([1, 2]), **CONFIG)  # type: ignore[arg-type]
    assert text == text_of([1, 2])


async def test_a_certificate_that_nobody_named_is_not_trusted(
    self_signed: tuple[Path, Path],
) -> None:
    with running() as server, encrypted(server.port, *self_signed) as port:
        async with AsyncClient(f"https://127.0.0.1:{port}") as client:
            with pytest.raises(ConnectionLost, match="certificate verify failed"):
                await client.transcribe(b"x")
            with pytest.raises(ConnectionLost, match="certificate verify failed"):
                await client.transcribe_stream(b"", **CONFIG)  # type: ignore[arg-type]


def test_without_a_file_the_system_decides() -> None:
    assert trusting(None, URL) is None


def test_a_file_without_certificates_is_told(tmp_path: Path) -> None:
    path = tmp_path / "cert.pem"
    with pytest.raises(InvalidParameter, match=r"ca_file: .*No such file"):
        trusting(path, "https://host")
    path.write_text("no certificate")
    with pytest.raises(InvalidParameter, match=r"ca_file: .*it holds no certificate"):
        trusting(path, "https://host")


def test_certificates_are_of_no_use_without_tls(self_signed: tuple[Path, Path]) -> None:
    with pytest.raises(InvalidParameter, match="ca_file: 'http://host' is not https"):
        trusting(self_signed[0], "http://host")


def test_names_are_checked_all_the_same(self_signed: tuple[Path, Path]) -> None:
    context = trusting(self_signed[0], "https://host")
    assert context is not None
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
