"""The other end of a live stream, in whatever dialect it speaks."""

from __future__ import annotations

from typing import Protocol

from whisper_serve.streaming.messages import ClientMessage, ServerMessage, StreamConfig

# A message, audio, or None when the client is gone.
Incoming = ClientMessage | bytes | None


class PeerGone(Exception):
    """The other end of a stream is not there any more."""


class Peer(Protocol):
    """One client. It is asked for its configuration first, and then for all else it says."""

    @property
    def is_lenient(self) -> bool:
        """Whether a wrong message only has no effect; otherwise it ends the stream."""
        ...

    async def configuration(self) -> StreamConfig:
        """What the stream begins with. Raises what `receive` raises, or `PeerGone`."""
        ...

    async def receive(self) -> Incoming:
        """The next thing that came. Raises `InvalidRequest` or `TooLarge` for one that cannot
        be understood; the peer can be asked again."""
        ...

    async def send(self, message: ServerMessage) -> None:
        """Raises `PeerGone`."""
        ...
