"""How many live streams one process holds, in all and for one client."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from whisper_serve.errors import Overloaded, TooManyStreams

RETRY_AFTER_S = 5.0


class Admission:
    """Counts streams; refuses beyond `limit` in all or `limit_per_client`."""

    def __init__(self, limit: int, limit_per_client: int) -> None:
        self._limit, self._limit_per_client = limit, limit_per_client
        self._streams: Counter[str] = Counter()

    @property
    def streams(self) -> int:
        return self._streams.total()

    def admit(self, client: str) -> AbstractContextManager[None]:
        """A place for one stream of `client`. Raises `Overloaded` or `TooManyStreams`."""
        return self._place(client, self._limit_per_client)

    def admit_caller(self, name: str, limit: int | None) -> AbstractContextManager[None]:
        """The same for a key's holder, from whatever address, who may have `limit` streams."""
        return self._place(f"key {name}", self._limit if limit is None else limit)

    @contextmanager
    def _place(self, client: str, limit: int) -> Iterator[None]:
        if self.streams >= self._limit:
            raise Overloaded(RETRY_AFTER_S)
        if self._streams[client] >= limit:
            raise TooManyStreams(limit, RETRY_AFTER_S)
        self._streams[client] += 1
        try:
            yield
        finally:
            self._streams[client] -= 1
            if not self._streams[client]:
                del self._streams[client]
