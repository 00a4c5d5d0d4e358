"""The dialect of browsers that send what they recorded, every second: WAV or bare samples go
in, plain text comes out."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field, ValidationError

from whisper_serve.api.connection import Connection
from whisper_serve.api.dialects.refusals import error_text, refusal_of
from whisper_serve.api.peer import Incoming, PeerGone
from whisper_serve.audio.wav_pieces import WavFormat, WavPieces
from whisper_serve.errors import InvalidParameter
from whisper_serve.streaming.messages import (
    Ack,
    Failed,
    Final,
    ServerMessage,
    StreamConfig,
    json_object,
)

NOTHING_NEW = " "


class Metadata(BaseModel):
    """What a client may say of its samples before it sends them."""

    samplewidth: Literal[2] = 2
    framerate: Annotated[int, Field(ge=8_000, le=48_000)] = 16_000
    channels: Annotated[int, Field(ge=1, le=2)] = 1

    @classmethod
    def parse(cls, text: str) -> Metadata:
        """Raises `InvalidRequest`."""
        try:
            return cls.model_validate(json_object(text))
        except ValidationError as exc:
            raise refusal_of(exc) from exc

    @property
    def format(self) -> WavFormat:
        return WavFormat(self.framerate, self.channels)


class BlobPeer:
    """A client whose blobs have one format from the first to the last.

    A WAV header is believed before all metadata: recorders know what they write, and some
    clients guess it.
    """

    is_lenient = False

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._pieces = WavPieces()
        self._told: WavFormat | None = None
        self._format: WavFormat | None = None
        self._pending = b""

    async def configuration(self) -> StreamConfig:
        """What the first blob is; until it comes there is nothing to do."""
        while not self._pending:
            frame = await self._connection.receive()
            if frame is None:
                raise PeerGone
            self._pending = self._audio(frame)
        self._format = self._said
        return StreamConfig.parse(
            {
                "policy": "utterance",
                "interim": False,
                "sample_rate": self._format.sample_rate,
                "channels": self._format.channels,
            }
        )

    async def receive(self) -> Incoming:
        if self._pending:
            pending, self._pending = self._pending, b""
            return pending
        frame = await self._connection.receive()
        if frame is None:
            return None
        audio = self._audio(frame)
        if self._said != self._format:
            raise InvalidParameter("format", "it cannot change within a stream")
        return audio

    async def send(self, message: ServerMessage) -> None:
        match message:
            case Final():
                await self._connection.send(message.text)
            case Ack():
                await self._connection.send(NOTHING_NEW)
            case Failed():
                await self._connection.send(error_text(message))
            case _:
                pass

    def _audio(self, frame: str | bytes) -> bytes:
        """The audio of a blob. There is none in metadata."""
        if isinstance(frame, bytes):
            return self._pieces.push(frame)
        if self._pieces.format is None:
            self._told = Metadata.parse(frame).format
        return b""

    @property
    def _said(self) -> WavFormat:
        return self._pieces.format or self._told or Metadata().format
