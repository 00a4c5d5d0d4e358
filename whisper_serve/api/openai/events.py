"""A transcript as server-sent events: text as it becomes final, and then the whole of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from whisper_serve.api.error_handlers import log_failure, unforeseen_failure
from whisper_serve.api.failures import Failure
from whisper_serve.api.openai.answers import Logprob, TextDelta, TextDone, Usage, logprobs_of
from whisper_serve.api.openai.failures import error_out
from whisper_serve.api.presence import while_there
from whisper_serve.errors import ClientGone, WhisperServeError
from whisper_serve.text.transcript import Segment, Transcript

HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


class GrowingText:
    """Text that is given away while it grows. All of `push` together is the text without the
    space around it."""

    def __init__(self) -> None:
        self._given = ""
        self._space = ""

    @property
    def given(self) -> str:
        return self._given

    def push(self, segments: Sequence[Segment]) -> str:
        """What can be given away; the space at its end waits for more text."""
        text = self._space + "".join(segment.text for segment in segments)
        delta = text.rstrip() if self._given else text.strip()
        self._space = text[len(text.rstrip()) :]
        self._given += delta
        return delta


async def told(
    pieces: AsyncGenerator[Transcript, None], *, with_logprobs: bool
) -> AsyncGenerator[BaseModel, None]:
    """The events of a transcript, of which at least the last one always comes. Raises what
    `pieces` raise; they are closed in the end."""
    text, logprobs, duration_s = GrowingText(), list[Logprob](), 0.0
    async with aclosing(pieces):
        async for piece in pieces:
            duration_s = piece.duration
            spoken = logprobs_of(piece.segments) if with_logprobs else []
            logprobs += spoken
            if delta := text.push(piece.segments):
                yield TextDelta(delta=delta, logprobs=spoken if with_logprobs else None)
    yield TextDone(
        text=text.given,
        logprobs=logprobs if with_logprobs else None,
        usage=Usage.of(duration_s),
    )


class EventStream(Response):
    """Sends events as they come, behind the `first` one. A failure is told as an event, and is
    the last. A client that goes away ends it; the generator is closed in any case."""

    media_type = "text/event-stream"

    def __init__(
        self, request: Request, first: BaseModel, others: AsyncGenerator[BaseModel, None]
    ) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers(HEADERS)
        self._request = request
        self._first = first
        self._others = others

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._others):
            with suppress(ClientGone):
                await while_there(receive, self._send_all(send))

    async def _send_all(self, send: Send) -> None:
        start = {"status": self.status_code, "headers": self.raw_headers}
        await send({"type": "http.response.start", **start})
        async with aclosing(self._events()) as events:
            async for event in events:
                await send(_body(f"data: {event.model_dump_json()}\n\n".encode(), more=True))
        await send(_body(b"", more=False))

    async def _events(self) -> AsyncGenerator[BaseModel, None]:
        yield self._first
        try:
            async for event in self._others:
                yield event
        except WhisperServeError as exc:
            log_failure(exc)
            yield error_out(Failure.of(exc, self._request))
        except Exception as exc:  # noqa: BLE001 - nobody above could still tell the client
            yield error_out(unforeseen_failure(self._request, exc))


def _body(content: bytes, *, more: bool) -> Message:
    return {"type": "http.response.body", "body": content, "more_body": more}
