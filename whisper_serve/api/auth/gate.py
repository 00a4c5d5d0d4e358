"""Lets callers in, or says why not."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import HTTPConnection

from whisper_serve.api.auth.callers import ANYONE, NOBODY, Caller
from whisper_serve.api.auth.credentials import shown_key
from whisper_serve.api.auth.keyring import Keyring
from whisper_serve.api.auth.rates import Rates
from whisper_serve.api.auth.rules import Rule, rule_for
from whisper_serve.api.auth.signed import ReadsStandIns
from whisper_serve.api.auth.usage import AudioInMemory, CountsAudio
from whisper_serve.api.auth.watched_keys import WatchedKeys
from whisper_serve.api.failures import path_of
from whisper_serve.config import AuthConfig
from whisper_serve.errors import InvalidKey, RateLimited, ScopeMissing

# Counted apart. Who has to share a counter is told of a wrong key by 429 too, and no right key is
# ever refused for it.
ADDRESSES = 1024
HOW = "'Authorization: Bearer KEY' or 'X-API-Key: KEY'"


class Gate:
    """Asks every caller for a key. `stand_ins`: what else is one. `usage`: counts the audio of
    those whom it lets in."""

    def __init__(
        self,
        auth: AuthConfig,
        stand_ins: Sequence[ReadsStandIns] = (),
        *,
        keys: WatchedKeys | None = None,
        usage: CountsAudio | None = None,
    ) -> None:
        self._auth = auth
        self._stand_ins = stand_ins
        self._keys = keys or WatchedKeys(auth)
        self.usage = usage or AudioInMemory()
        self._requests = Rates("requests")
        self._wrong_keys = Rates("wrong keys", most_names=ADDRESSES)

    async def identify(self, connection: HTTPConnection) -> Caller:
        """Who asks. Raises `InvalidKey`, or `RateLimited` for too many wrong keys."""
        if self._auth.open:
            return ANYONE
        method, path = _asked(connection)
        if rule_for(method, path).is_public:
            return NOBODY
        return await self._known(connection, method, path)

    async def allow(self, caller: Caller, connection: HTTPConnection) -> None:
        """Raises `InvalidKey`, `ScopeMissing` or `RateLimited` when the caller may not."""
        require(caller, rule_for(*_asked(connection)))
        await self._count(caller)

    async def _known(self, connection: HTTPConnection, method: str, path: str) -> Caller:
        shown = shown_key(connection)
        if not shown:
            raise InvalidKey(f"a key is needed: send {HOW}")
        keyring = await self._keys.keyring()
        try:
            return identify(shown, keyring, self._stand_ins, method, path)
        except InvalidKey:
            await self._count_wrong(connection)
            raise

    async def _count_wrong(self, connection: HTTPConnection) -> None:
        """The right key is let in whatever else comes from its address, where others may be."""
        address = connection.client.host if connection.client else ""
        wait_s = await self._wrong_keys.hit(address, self._auth.wrong_keys_per_minute)
        if wait_s:
            raise RateLimited("too many wrong keys came from this address", wait_s)

    async def _count(self, caller: Caller) -> None:
        limit = caller.requests_per_minute
        if limit is not None and (wait_s := await self._requests.hit(caller.name, limit)):
            raise RateLimited(f"no more than {limit} requests a minute are allowed", wait_s)


def _asked(connection: HTTPConnection) -> tuple[str, str]:
    """Method and path, as rules have them."""
    return connection.scope.get("method", "WS"), path_of(connection.scope)


def identify(
    shown: str, keyring: Keyring, stand_ins: Sequence[ReadsStandIns], method: str, path: str
) -> Caller:
    """Whose `shown` is. Raises `InvalidKey`."""
    for kind in stand_ins:
        if shown.startswith(kind.prefix):
            return _stood_for(kind, shown, keyring, method, path)
    caller = keyring.find(shown)
    if caller is None:
        raise InvalidKey("the key is not known here")
    return caller


def _stood_for(kind: ReadsStandIns, shown: str, keyring: Keyring, method: str, path: str) -> Caller:
    stand_in = kind.read(shown)
    holder = keyring.holder(stand_in.key_id)
    if holder is None:
        raise InvalidKey("the key that issued this is not known any more")
    if stand_in.path is not None and (method, path) != ("WS", stand_in.path):
        raise InvalidKey(f"this opens streams at {stand_in.path} and nothing else")
    return holder.stood_for(stand_in.scopes)


def require(caller: Caller, rule: Rule) -> None:
    """Raises `InvalidKey` or `ScopeMissing`."""
    if rule.key_only and not caller.is_key:
        raise InvalidKey("what stands for a key issues no others; show the key itself")
    if rule.scope is not None and rule.scope not in caller.scopes:
        raise ScopeMissing(rule.scope)
