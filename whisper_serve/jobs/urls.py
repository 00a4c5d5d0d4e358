"""Asking other hosts on behalf of clients, who must not reach through us what is not public.

Three things stand against that, at every hop of a redirect. The host has to be one that the
configuration names. Its name is looked up once, and the connection goes to the very addresses
that were checked, so that a name which changes its mind in between (DNS rebinding) gains
nothing; TLS still asks for the name. And these addresses have to be public: no private,
loopback, link-local (where clouds keep their metadata) or otherwise special ones, however they
are written. Proxies of the environment are not asked: they would do the looking up.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import BinaryIO

import httpcore
import httpx

from whisper_serve.deadline import within
from whisper_serve.errors import UploadTooLarge, UrlNotAllowed, UrlRefused, UrlUnreachable

Address = IPv4Address | IPv6Address
Resolve = Callable[[str, int], Awaitable[Sequence[Address]]]

MAX_URL_CHARS = 2048
MAX_REDIRECTS = 5
# Of one host, which are tried in turn.
MAX_ADDRESSES = 4
REDIRECTS = frozenset({301, 302, 303, 307, 308})
# What a server says that may say something else later; so does every 5xx.
FOR_NOW = frozenset({408, 425, 429})
TIMEOUTS = {"connect": 10.0, "read": 30.0, "write": 30.0, "pool": 30.0}
SCHEMES = frozenset({"http", "https"})
MAX_PORT = 65535
# What `is_global` of some versions of Python lets through: addresses that stand for IPv4 ones
# (mapped, translated, 6to4, Teredo), those of protocols, and one of a cloud's own, which is
# public by its number only.
NOT_PUBLIC = tuple(
    map(
        ip_network,
        (
            *("::ffff:0:0/96", "::/96", "64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/23"),
            *("fec0::/10", "192.0.0.0/24", "168.63.129.16/32"),
        ),
    )
)


def is_public(address: Address) -> bool:
    """Whether anybody on the internet may have this address."""
    if not address.is_global or address.is_multicast or address.is_reserved:
        return False
    return not any(address in network for network in NOT_PUBLIC)


def allowed_url(url: str, hosts: Iterable[str]) -> httpx.URL:
    """The URL, when it may be asked for as far as its text tells. `hosts` are names,
    `*.example.com` for all names below that one, or `*`. Raises `UrlNotAllowed`."""
    try:
        parsed = httpx.URL(url if len(url) <= MAX_URL_CHARS else "")
        host = parsed.raw_host.decode("ascii").lower().rstrip(".")
    except (httpx.InvalidURL, ValueError, TypeError) as exc:
        raise UrlNotAllowed("", f"it cannot be read: {exc}") from exc
    if parsed.scheme not in SCHEMES or not host:
        raise UrlNotAllowed(host, "it must begin with https:// or http:// and a host")
    if parsed.port is not None and not 0 < parsed.port <= MAX_PORT:
        raise UrlNotAllowed(host, f"there is no port {parsed.port}")
    if parsed.userinfo:
        raise UrlNotAllowed(host, "a URL with a name or a password in it is not taken")
    if not any(_fits(host, pattern.lower()) for pattern in hosts):
        raise UrlNotAllowed(host, "this host is not one of those that are allowed here")
    return parsed


def _fits(host: str, pattern: str) -> bool:
    if pattern.startswith("*."):
        return host.endswith(pattern[1:]) and len(host) > len(pattern) - 1
    return pattern in {"*", host}


async def look_up(host: str, port: int) -> Sequence[Address]:
    """The addresses of a name. Raises `OSError` when it has none."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    # An IPv6 address may come with the network card it is behind.
    return [ip_address(str(address[0]).partition("%")[0]) for *_, address in found]


class CheckedNetwork(httpcore.AsyncNetworkBackend):
    """Connects to hosts all of whose addresses are allowed, and to these addresses."""

    def __init__(
        self, look_up: Resolve = look_up, is_allowed: Callable[[Address], bool] = is_public
    ) -> None:
        self._look_up, self._is_allowed = look_up, is_allowed
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Raises `UrlNotAllowed`, or the library's `ConnectError`."""
        addresses = await self._addresses(host, port, timeout)
        for address in addresses[:-1]:
            with suppress(httpcore.ConnectError, httpcore.ConnectTimeout):
                return await self._network.connect_tcp(
                    str(address), port, timeout, local_address, socket_options
                )
        return await self._network.connect_tcp(
            str(addresses[-1]), port, timeout, local_address, socket_options
        )

    async def _addresses(
        self,
        host: str,
        port: int,
        timeout: float | None,
    ) -> Sequence[Address]:
        try:
            found = await asyncio.wait_for(self._look_up(host, port), timeout)
        except (OSError, UnicodeError, asyncio.TimeoutError) as exc:
            raise httpcore.ConnectError(f"{host} cannot be looked up") from exc
        # One that is not public among others is how rebinding begins.
        if not all(map(self._is_allowed, found)):
            raise UrlNotAllowed(host, "this host has an address that is not public")
        if not found:
            raise httpcore.ConnectError(f"{host} has no address")
        return list(dict.fromkeys(found))[:MAX_ADDRESSES]


class Outside:
    """The hosts that are not ours, by HTTP. To be closed after use. `trusted`: who may vouch for
    them; by default the authorities that browsers trust."""

    def __init__(
        self,
        network: httpcore.AsyncNetworkBackend | None = None,
        trusted: ssl.SSLContext | None = None,
    ) -> None:
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=trusted or httpx.create_ssl_context(trust_env=False),
            network_backend=network or CheckedNetwork(),
            max_keepalive_connections=0,
        )

    async def fetch(
        self, url: str, hosts: Sequence[str], file: BinaryIO, *, max_bytes: int, timeout_s: float
    ) -> None:
        """Write what is behind `url` into `file`, all within `timeout_s`.

        Raises `UrlNotAllowed`, `UrlRefused`, `UrlUnreachable` for what may be otherwise later,
        and `UploadTooLarge` as soon as there are more than `max_bytes`.
        """
        try:
            await within(timeout_s, self._fetch(url, hosts, file, max_bytes))
        except asyncio.TimeoutError as exc:
            raise UrlUnreachable(f"it was not here within {timeout_s:g} s") from exc

    async def post(
        self,
        url: str,
        hosts: Sequence[str],
        body: bytes,
        headers: Sequence[tuple[str, str]],
        *,
        timeout_s: float,
    ) -> int:
        """The status of the answer; redirects are not followed. Raises `UrlNotAllowed` or
        `UrlUnreachable`."""
        try:
            return await within(timeout_s, self._post(url, hosts, body, headers))
        except asyncio.TimeoutError as exc:
            raise UrlUnreachable(f"no answer came within {timeout_s:g} s") from exc

    async def close(self) -> None:
        await self._pool.aclose()

    async def _fetch(self, url: str, hosts: Sequence[str], file: BinaryIO, max_bytes: int) -> None:
        for _ in range(MAX_REDIRECTS + 1):
            asked = allowed_url(url, hosts)
            async with self._answer("GET", asked) as answer:
                if answer.status not in REDIRECTS:
                    _check(answer, max_bytes)
                    await _save(answer, file, max_bytes)
                    return
                url = _target(asked, answer)
        raise UrlRefused(f"it leads on and on: more than {MAX_REDIRECTS} redirects")

    async def _post(
        self, url: str, hosts: Sequence[str], body: bytes, headers: Sequence[tuple[str, str]]
    ) -> int:
        async with self._answer("POST", allowed_url(url, hosts), body, headers) as answer:
            return answer.status

    @asynccontextmanager
    async def _answer(
        self,
        method: str,
        url: httpx.URL,
        body: bytes | None = None,
        headers: Sequence[tuple[str, str]] = (),
    ) -> AsyncIterator[httpcore.Response]:
        sent = [
            ("Host", url.netloc.decode("ascii")),
            ("User-Agent", "whisper-serve"),
            # What is compressed may be larger than it looks.
            ("Accept-Encoding", "identity"),
            *([("Content-Length", str(len(body)))] if body is not None else []),
            *headers,
        ]
        asked = httpcore.URL(
            scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
        )
        with _translated(url):
            async with self._pool.stream(
                method, asked, headers=sent, content=body, extensions={"timeout": TIMEOUTS}
            ) as answer:
                yield answer


@contextmanager
def _translated(url: httpx.URL) -> Iterator[None]:
    try:
        yield
    except (
        httpcore.NetworkError,
        httpcore.TimeoutException,
        httpcore.ProtocolError,
        httpcore.UnsupportedProtocol,
    ) as exc:
        why = str(exc) or type(exc).__name__
        raise UrlUnreachable(f"{url.host} could not be asked: {why}") from exc


def _check(answer: httpcore.Response, max_bytes: int) -> None:
    status = answer.status
    if status >= 500 or status in FOR_NOW:
        raise UrlUnreachable(f"the server answered {status}")
    if status != 200:
        raise UrlRefused(f"the server answered {status}")
    if _header(answer, b"content-encoding") not in {b"", b"identity"}:
        raise UrlRefused("the server sent it compressed, which it was asked not to do")
    announced = _header(answer, b"content-length")
    if announced.isdigit() and int(announced) > max_bytes:
        raise UploadTooLarge(max_bytes)


async def _save(answer: httpcore.Response, file: BinaryIO, max_bytes: int) -> None:
    size = 0
    async for chunk in answer.aiter_stream():
        size += len(chunk)
        if size > max_bytes:
            raise UploadTooLarge(max_bytes)
        await asyncio.to_thread(file.write, chunk)
    if not size:
        raise UrlRefused("the server sent nothing")


def _target(asked: httpx.URL, answer: httpcore.Response) -> str:
    place = _header(answer, b"location").decode("latin-1")
    if not place:
        raise UrlRefused(f"the server answered {answer.status} without a place to go to")
    try:
        return str(asked.join(place))
    except httpx.InvalidURL as exc:
        raise UrlRefused(f"the server leads to no URL: {exc}") from exc


def _header(answer: httpcore.Response, name: bytes) -> bytes:
    return next((bytes(value) for key, value in answer.headers if key.lower() == name), b"")
