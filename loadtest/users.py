"""Clients as Locust's users. Each says one recording after the other, and leaves when it has said
as many as it should or the load test ends.

All give every outcome to the `Session`; what Locust itself counts are events made of them.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from dataclasses import replace
from typing import ClassVar
from urllib.parse import urlencode

import httpx
from locust import User, tag, task
from locust.exception import StopUser

from loadtest.conversation import UNTOLD_S, Conversation
from loadtest.dialects import Dialect, deepgram, native
from loadtest.files import BOUNDARY, Asking, Clip, form_of
from loadtest.lines import Line
from loadtest.outcome import Outcome, wall_s
from loadtest.session import Session
from loadtest.settings import HOST
from loadtest.speech import Speech
from whisper_serve.client.connection import http_url

FILE_TIMEOUT_S = 3600.0


class Client(User):
    """`session` is there while a load test runs."""

    abstract = True
    host = HOST
    session: ClassVar[Session]
    said = 0

    @abstractmethod
    def says(self, speech: Speech) -> Outcome:
        """One recording."""

    def turn(self) -> None:
        """One recording, and then a user leaves or goes on."""
        session, most = self.session, self.session.settings.recordings
        if session.ending.is_set() or (most and self.said >= most):
            raise StopUser
        outcome = self.says(session.next_speech())
        self.said += 1
        session.add(outcome)
        if not outcome.is_served:
            session.ending.wait(UNTOLD_S)


class Stream(Client):
    abstract = True

    @abstractmethod
    def dialect(self, speech: Speech) -> Dialect:
        """In which it is said."""

    def says(self, speech: Speech) -> Outcome:
        settings = self.session.settings
        conversation = Conversation(
            speech, self.dialect(speech), time.monotonic(), settings.patience_s
        )
        try:
            Line(settings.access, self.session.ending, settings.last_words_s).hold(conversation)
        finally:
            if not conversation.is_over:  # Locust took the user away
                conversation.cut(time.monotonic())
                self.session.add(conversation.outcome(wall_s()))
        return conversation.outcome(wall_s())

    def _language(self, speech: Speech) -> dict[str, str]:
        language = self.session.settings.language or speech.language
        return {"language": language} if language else {}


class LiveStream(Stream):
    """`/stream`, the service's own protocol."""

    @tag("stream", "native")
    @task
    def stream(self) -> None:
        self.turn()

    def dialect(self, speech: Speech) -> Dialect:
        return native({**self._language(speech), **self.session.settings.stream_config})


class DeepgramStream(Stream):
    """`/v1/listen`."""

    @tag("stream", "deepgram")
    @task
    def listen(self) -> None:
        self.turn()

    def dialect(self, speech: Speech) -> Dialect:
        settings = self.session.settings
        interim = "true" if settings.stream_config["interim"] else "false"
        model = {"model": settings.model} if settings.model else {}
        return deepgram(urlencode({**self._language(speech), **model, "interim_results": interim}))


class Files(Client):
    """Posts whole files over a connection that it keeps."""

    abstract = True
    path: ClassVar[str]

    def fields(self, speech: Speech) -> dict[str, str]:
        """The form without the file."""
        language = self.session.settings.language or speech.language
        return {"language": language} if language else {}

    def on_start(self) -> None:
        access = self.session.settings.access
        self._http = httpx.Client(
            headers={
                **access.headers,
                "Content-Type": f"multipart/form-data; boundary={BOUNDARY}",
            },
            timeout=FILE_TIMEOUT_S,
            verify=True if access.trust is None else access.trust,
            trust_env=False,
        )

    def on_stop(self) -> None:
        self._http.close()

    def says(self, speech: Speech) -> Outcome:
        body = form_of(speech.wav, f"{speech.name}.wav", "audio/wav", self.fields(speech))
        asking = Asking(Clip(speech, body), time.monotonic())
        try:
            self._ask_until_served(asking)
        except BaseException:
            self.session.add(self._outcome(asking))  # Locust took the user away
            raise
        return self._outcome(asking)

    def _ask_until_served(self, asking: Asking) -> None:
        self._ask(asking)
        while asking.is_refused and self._may_wait(asking):
            if self.session.ending.wait(asking.told_s):
                return
            self._ask(asking)

    def _may_wait(self, asking: Asking) -> bool:
        back_at = time.monotonic() + asking.told_s
        return back_at <= asking.due + self.session.settings.patience_s

    def _ask(self, asking: Asking) -> None:
        asking.tries(time.monotonic())
        url = http_url(self.session.settings.access.url, self.path)
        try:
            answer = self._http.post(url, content=asking.clip.body)
        except httpx.HTTPError as exc:
            asking.failed(time.monotonic(), type(exc).__name__)
            return
        retry_after = answer.headers.get("Retry-After")
        asking.answered(time.monotonic(), answer.status_code, answer.text, retry_after)

    def _outcome(self, asking: Asking) -> Outcome:
        return replace(asking.outcome(wall_s()), kind=type(self).__name__)


class FileUpload(Files):
    """`POST /transcribe`."""

    path = "/transcribe"

    @tag("file", "native")
    @task
    def transcribe(self) -> None:
        self.turn()

    def fields(self, speech: Speech) -> dict[str, str]:
        model = self.session.settings.model
        return {**super().fields(speech), **({"model": model} if model else {})}


class OpenAIFile(Files):
    """`POST /v1/audio/transcriptions`."""

    path = "/v1/audio/transcriptions"

    @tag("file", "openai")
    @task
    def transcription(self) -> None:
        self.turn()

    def fields(self, speech: Speech) -> dict[str, str]:
        return {**super().fields(speech), "model": self.session.settings.openai_model}
