from __future__ import annotations

import asyncio
import io
import shutil
import ssl
import subprocess
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path

import pytest

from tests.jobs.hosts import PUBLIC, Heard, Reply, elsewhere, is_public_here, serving
from whisper_serve.errors import (
    UploadTooLarge,
    UrlNotAllowed,
    UrlRefused,
    UrlUnreachable,
    WhisperServeError,
)
from whisper_serve.jobs.urls import (
    MAX_REDIRECTS,
    Address,
    CheckedNetwork,
    Outside,
    allowed_url,
    is_public,
    look_up,
)

AUDIO = b"RIFF" + bytes(5000)


# What a URL may be


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("https://media.example.com/a.mp3", ["media.example.com"]),
        ("http://media.example.com:8080/a?b=c#d", ["media.example.com"]),
        ("HTTPS://MEDIA.Example.COM/", ["Media.example.com"]),
        ("https://media.example.com./", ["media.example.com"]),
        ("https://a.b.example.com/", ["*.example.com"]),
        ("https://anything.org/", ["*"]),
        ("https://bücher.example/", ["xn--bcher-kva.example"]),
    ],
)
def test_an_allowed_host_is_allowed(url: str, hosts: list[str]) -> None:
    assert allowed_url(url, hosts).host


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("https://evil.example/", ["media.example.com"]),
        ("https://media.example.com.evil.example/", ["media.example.com"]),
        ("https://evilmedia.example.com/", ["media.example.com"]),
        ("https://example.com/", ["*.example.com"]),
        ("https://.example.com/", ["*.example.com"]),
        ("https://evilexample.com/", ["*.example.com"]),
        ("https://media.example.com@evil.example/", ["media.example.com"]),
        ("https://evil.example\\@media.example.com/", ["media.example.com"]),
        ("https://evil.example#@media.example.com/", ["media.example.com"]),
        ("https://ada:secret@media.example.com/", ["*"]),
        ("https://ada@media.example.com/", ["*"]),
        ("ftp://media.example.com/", ["*"]),
        ("file:///etc/passwd", ["*"]),
        ("gopher://media.example.com/", ["*"]),
        ("data:audio/wav;base64,UklGRg==", ["*"]),
        ("media.example.com/a.mp3", ["*"]),
        ("//media.example.com/a.mp3", ["*"]),
        ("https://", ["*"]),
        ("https:///a.mp3", ["*"]),
        ("", ["*"]),
        ("https://media.example.com:99999/", ["*"]),
        ("https://media.example.com/\r\nHost: evil", ["*"]),
        ("https://media.example.com/" + "a" * 2048, ["*"]),
        ("https://[::1", ["*"]),
        ("https://media.example.com/", []),
    ],
)
def test_any_other_is_not(url: str, hosts: list[str]) -> None:
    with pytest.raises(UrlNotAllowed):
        allowed_url(url, hosts)


# What is public


@pytest.mark.parametrize(
    "address",
    [
        *("0.1.2.3", "127.0.0.1", "127.255.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1"),
        *("169.254.169.254", "100.64.0.1", "100.100.100.200", "192.0.0.192", "192.0.2.1"),
        *("198.18.0.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255"),
        *("168.63.129.16", "::", "::1", "fe80::1", "fc00::1", "fd00:ec2::254", "ff02::1"),
        *("fec0::1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::127.0.0.1", "64:ff9b::7f00:1"),
        *("64:ff9b:1::1", "2002:7f00:1::", "2001:0:7f00:1::", "2001:db8::1"),
    ],
)
def test_what_is_special_is_not_public(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "93.184.216.34", "2606:4700::1111"])
def test_what_is_ordinary_is(address: str) -> None:
    assert is_public(ip_address(address))


@pytest.mark.parametrize("host", ["127.0.0.1", "2130706433", "0x7f.1", "localhost", "::1"])
async def test_the_system_says_what_an_address_is_however_it_is_written(host: str) -> None:
    found = await look_up(host, 80)
    assert found
    assert not any(map(is_public, found))


# Fetching


async def fetched(
    replies: Sequence[Reply],
    *,
    url: str = "http://media.example.com:{port}/a.wav",
    hosts: Sequence[str] = ("*",),
    network: CheckedNetwork | None = None,
    max_bytes: int = 1 << 20,
    timeout_s: float = 20.0,
) -> tuple[bytes | WhisperServeError, list[Heard]]:
    """What came or went wrong, and what the server heard."""
    file = io.BytesIO()
    outside = Outside(network or elsewhere())
    async with serving(replies) as (port, heard):
        try:
            await outside.fetch(
                url.format(port=port), hosts, file, max_bytes=max_bytes, timeout_s=timeout_s
            )
        except WhisperServeError as exc:
            return exc, heard
        finally:
            await outside.close()
    return file.getvalue(), heard


async def test_a_file_comes_as_it_is() -> None:
    came, [asked] = await fetched([Reply(body=AUDIO)], url="http://media.example.com:{port}/a?b=c")
    assert came == AUDIO
    assert (asked.method, asked.target) == ("GET", "/a?b=c")
    assert asked.headers["host"].startswith("media.example.com:")
    assert "authorization" not in asked.headers
    assert "cookie" not in asked.headers


async def test_nobody_has_to_say_how_long_it_is() -> None:
    assert (await fetched([Reply(body=AUDIO, length=None)]))[0] == AUDIO


@pytest.mark.parametrize("length", [None, -1])
async def test_no_more_comes_than_is_allowed(length: int | None) -> None:
    came, _ = await fetched([Reply(body=AUDIO, length=length)], max_bytes=len(AUDIO) - 1)
    assert isinstance(came, UploadTooLarge)


@pytest.mark.parametrize("status", [204, 206, 304, 400, 401, 403, 404, 410])
async def test_a_clear_no_is_one(status: int) -> None:
    came, _ = await fetched([Reply(status)])
    assert isinstance(came, UrlRefused)
    assert str(status) in str(came)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, None])
async def test_what_may_be_better_later_is_not(status: int | None) -> None:
    assert isinstance((await fetched([Reply(status)]))[0], UrlUnreachable)


async def test_a_file_that_breaks_off_is_not_half_a_file() -> None:
    came, _ = await fetched([Reply(body=AUDIO, length=len(AUDIO) + 1)])
    assert isinstance(came, UrlUnreachable)


async def test_nothing_is_no_file() -> None:
    assert isinstance((await fetched([Reply(body=b"")]))[0], UrlRefused)


async def test_what_is_packed_is_not_unpacked() -> None:
    came, _ = await fetched([Reply(body=AUDIO, headers=(("Content-Encoding", "gzip"),))])
    assert isinstance(came, UrlRefused)


async def test_a_server_that_says_nothing_is_not_waited_for_long() -> None:
    given_up = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        given_up.set()

    silent = await asyncio.start_server(say_nothing, PUBLIC, 0)
    port = silent.sockets[0].getsockname()[1]
    outside = Outside(elsewhere())
    with pytest.raises(UrlUnreachable, match=r"within 0\.1 s"):
        await outside.fetch(
            f"http://media.example.com:{port}/", ["*"], io.BytesIO(), max_bytes=9, timeout_s=0.1
        )
    await asyncio.wait_for(given_up.wait(), 10)
    await outside.close()
    silent.close()
    await silent.wait_closed()


async def test_nobody_listens() -> None:
    async with serving([]) as (port, _):
        pass
    came, _ = await fetched([], url=f"http://media.example.com:{port}/")
    assert isinstance(came, UrlUnreachable)


# Going elsewhere


def to(place: str, status: int = 302) -> Reply:
    return Reply(status, headers=(("Location", place),))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_to_an_allowed_host_is_followed(status: int) -> None:
    came, heard = await fetched([to("/b.wav", status), Reply(body=AUDIO)])
    assert came == AUDIO
    assert [asked.target for asked in heard] == ["/a.wav", "/b.wav"]


@pytest.mark.parametrize(
    "place",
    [
        "http://127.0.0.1:80/",
        "http://169.254.169.254/latest/meta-data/",
        "http://inner.example.com:80/",
        "http://metadata.example.com/",
        "http://[::1]:80/",
        "http://[::ffff:127.0.0.1]:80/",
        "file:///etc/passwd",
        "http://ada:secret@media.example.com:80/",
    ],
)
async def test_a_redirect_to_an_inner_address_is_not_followed(place: str) -> None:
    came, heard = await fetched([to(place), Reply(body=b"the keys of the cloud")])
    assert isinstance(came, UrlNotAllowed)
    assert len(heard) == 1


async def test_a_redirect_to_a_host_that_is_not_named_is_not_followed() -> None:
    came, heard = await fetched(
        [to("http://hooks.example.com:1/"), Reply(body=AUDIO)], hosts=["media.example.com"]
    )
    assert isinstance(came, UrlNotAllowed)
    assert len(heard) == 1


async def test_a_redirect_without_a_place_leads_nowhere() -> None:
    assert isinstance((await fetched([Reply(302)]))[0], UrlRefused)


async def test_redirects_end() -> None:
    came, heard = await fetched([to("/again")] * (MAX_REDIRECTS + 2))
    assert isinstance(came, UrlRefused)
    assert len(heard) == MAX_REDIRECTS + 1


# Names that lie


@pytest.mark.parametrize("name", ["inner", "both", "metadata"])
async def test_a_name_with_an_inner_address_is_not_asked(name: str) -> None:
    """Not even one that has a public address too."""
    came, heard = await fetched(
        [Reply(body=AUDIO)], url=f"http://{name}.example.com:{{port}}/a.wav"
    )
    assert isinstance(came, UrlNotAllowed)
    assert heard == []


@pytest.mark.parametrize("name", ["nobody.example.com", "unknown.example.com"])
async def test_a_name_without_an_address_may_have_one_later(name: str) -> None:
    assert isinstance((await fetched([], url=f"http://{name}/"))[0], UrlUnreachable)


async def test_a_name_that_changes_its_mind_is_asked_at_the_address_that_was_checked() -> None:
    """DNS rebinding: public when it is checked, inner when it is connected to. It is looked up
    once for each connection, and the connection goes to what was checked."""
    answers = iter([PUBLIC, "127.0.0.1", "127.0.0.1"])

    async def rebinding(host: str, port: int) -> Sequence[Address]:
        return [ip_address(next(answers))]

    network = CheckedNetwork(rebinding, is_public_here)
    came, heard = await fetched(
        [Reply(body=AUDIO)], url="http://rebinding.example.com:{port}/", network=network
    )
    assert came == AUDIO
    assert len(heard) == 1
    assert next(answers) == "127.0.0.1"


async def test_a_name_that_changes_its_mind_between_redirects_is_checked_again() -> None:
    answers = iter([PUBLIC, "127.0.0.1"])

    async def rebinding(host: str, port: int) -> Sequence[Address]:
        return [ip_address(next(answers))]

    network = CheckedNetwork(rebinding, is_public_here)
    came, heard = await fetched(
        [to("/b"), Reply(body=AUDIO)], url="http://rebinding.example.com:{port}/", network=network
    )
    assert isinstance(came, UrlNotAllowed)
    assert len(heard) == 1


async def test_the_real_network_knows_this_machine_is_not_public() -> None:
    """Without anything of the tests in between."""
    for url in (
        "http://127.0.0.1:{port}/",
        "http://localhost:{port}/",
        f"http://{PUBLIC}:{{port}}/",
    ):
        came, heard = await fetched([Reply(body=AUDIO)], url=url, network=CheckedNetwork())
        assert isinstance(came, UrlNotAllowed)
        assert heard == []


async def test_proxies_of_the_environment_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving([Reply(body=b"what the proxy says")]) as (port, heard):
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://{PUBLIC}:{port}")
        came, _ = await fetched([Reply(body=AUDIO)])
    assert came == AUDIO
    assert heard == []


# TLS


def certificate_for(host: str, folder: Path) -> tuple[Path, Path]:
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl here to make a certificate with")
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=test"]
    where = ["-out", str(cert), "-keyout", str(key)]
    names = ["-addext", f"subjectAltName=DNS:{host}"]
    subprocess.run([*command, *names, *where], check=True, capture_output=True, timeout=60)
    return cert, key


@pytest.mark.parametrize(
    ("host", "is_right"), [("media.example.com", True), ("hooks.example.com", False)]
)
async def test_the_certificate_is_checked_against_the_name_and_not_the_address(
    tmp_path: Path,
    host: str,
    is_right: bool,
) -> None:
    cert, key = certificate_for("media.example.com", tmp_path)
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    own.load_cert_chain(cert, key)
    file = io.BytesIO()
    outside = Outside(elsewhere(), ssl.create_default_context(cafile=str(cert)))
    async with serving([Reply(body=AUDIO)], tls=own) as (port, heard):
        url = f"https://{host}:{port}/a.wav"
        fetching = outside.fetch(url, ["*"], file, max_bytes=1 << 20, timeout_s=20.0)
        if is_right:
            await fetching
        else:
            with pytest.raises(UrlUnreachable, match="certificate"):
                await fetching
    await outside.close()
    assert (file.getvalue(), len(heard)) == ((AUDIO, 1) if is_right else (b"", 0))


async def test_a_certificate_that_nobody_vouches_for_is_none(tmp_path: Path) -> None:
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    own.load_cert_chain(*certificate_for("media.example.com", tmp_path))
    outside = Outside(elsewhere())
    async with serving([Reply(body=AUDIO)], tls=own) as (port, heard):
        url = f"https://media.example.com:{port}/"
        with pytest.raises(UrlUnreachable, match="certificate"):
            await outside.fetch(url, ["*"], io.BytesIO(), max_bytes=1 << 20, timeout_s=20.0)
    await outside.close()
    assert heard == []
