"""The client for code that runs in an event loop."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import httpx

from whisper_serve.client import upload
from whisper_serve.client.access import headers_with, trusting
from whisper_serve.client.answers import Transcription
from whisper_serve.client.connection import dial, ws_url
from whisper_serve.client.events import Done
from whisper_serve.client.jobs import AsyncJobs
from whisper_serve.client.journal import Journal
from whisper_serve.client.options import StreamOptions, TranscribeOptions, fields_of
from whisper_serve.client.patience import Patience
from whisper_serve.client.service import Service
from whisper_serve.client.sources import Source, config_for, paced, pieces_of
from whisper_serve.client.stream import Conversation, Stream

if TYPE_CHECKING:
    from typing_extensions import Unpack

TIMEOUT_S = 10.0
# The service gives up by itself after an hour by default.
ANSWER_TIMEOUT_S = 3_700.0
SILENCE_S = 30.0
GIVE_UP_AFTER_S = 60.0


class AsyncClient:
    """Speaks to the service at `base_url`, as in `http://127.0.0.1:8000`.

    `timeout_s`: for connecting and for sending a piece. `answer_timeout_s`: for the answer to
    a whole file. `silence_s`: a stream's server that says nothing for so long is gone.
    `give_up_after_s`: how long a stream tries to connect again while nothing is settled, and a
    request is made again to a service that is busy. `api_key`: of the environment variable
    `WHISPER_SERVE_API_KEY` when it is None. `ca_file`: the certificates to trust, instead of
    the system's. `headers` go with every request. Raises `InvalidParameter` for a `base_url`,
    a key or a file that is none.
    """

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8000",
        *,
        api_key: str | None = None,
        ca_file: str | Path | None = None,
        timeout_s: float = TIMEOUT_S,
        answer_timeout_s: float = ANSWER_TIMEOUT_S,
        silence_s: float = SILENCE_S,
        give_up_after_s: float = GIVE_UP_AFTER_S,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._stream_url = ws_url(base_url, "/stream")
        self._timeout_s = timeout_s
        self._silence_s = silence_s
        self._give_up_after_s = give_up_after_s
        self._headers = headers_with(api_key, headers, base_url)
        self._trust = trusting(ca_file, base_url)
        self._service = Service(
            base_url,
            headers=self._headers,
            timeout=httpx.Timeout(timeout_s, read=answer_timeout_s),
            trust=self._trust,
            give_up_after_s=give_up_after_s,
        )
        self.jobs = AsyncJobs(self._service)

    async def transcribe(
        self,
        recording: upload.Recording,
        *,
        verbose: bool = False,
        progress: upload.Sent | None = None,
        **options: Unpack[TranscribeOptions],
    ) -> Transcription:
        """The text of a whole recording: a path, the bytes of a file, or a file that is open
        for reading bytes, which is read from its start.

        `progress` is called with the bytes that were sent and those that there are. `verbose`
        fills in the numbers of Whisper's segments. Raises `ServerRefused`, `ConnectionLost`,
        `UnexpectedAnswer`, and `UnreadableAudio` when the file cannot be read.
        """
        fields = fields_of(options)
        fields["response_format"] = "verbose_json" if verbose else "json"
        return await upload.transcribe(self._service, recording, fields, progress)

    def stream(
        self, source: Source, *, realtime: bool = False, **config: Unpack[StreamOptions]
    ) -> Stream:
        """Live transcription of `source`, as an asynchronous iterator of events.

        `source`: raw audio as bytes or as arrays (int16; float32 with `encoding="pcm_f32le"`),
        an iterable or asynchronous iterable of such, the path of a file, or `microphone()`.
        Files go as fast as the server settles them, or with `realtime` as fast as they are
        spoken.

        A lost connection is resumed without losing or repeating anything. Iterating raises
        `ServerRefused`, `ConnectionLost` when that does not succeed, `UnexpectedAnswer`, and
        what the source raises. Raises `InvalidParameter` for a wrong `config`.
        """
        config = config_for(source, config)
        journal = Journal(config)
        pieces = pieces_of(source, config.get("encoding", "pcm_s16le"))
        if realtime:
            pieces = paced(pieces, journal.bytes_per_s)
        return Stream(
            Conversation(
                partial(dial, self._stream_url, self._headers, self._timeout_s, self._trust),
                pieces,
                journal,
                Patience(self._give_up_after_s),
                silence_s=self._silence_s,
            )
        )

    async def transcribe_stream(
        self, source: Source, *, realtime: bool = False, **config: Unpack[StreamOptions]
    ) -> str:
        """The whole text of a stream, once it has ended. Takes and raises what `stream` does."""
        text = ""
        async with self.stream(source, realtime=realtime, **config) as events:
            async for event in events:
                if isinstance(event, Done):
                    text = event.text
        return text

    async def aclose(self) -> None:
        await self._service.aclose()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()
