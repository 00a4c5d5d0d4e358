"""A service over real sockets that reads forms and JSON, and answers as it is told."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from whisper_serve.api.schemas import TranscriptionOut
from whisper_serve.text.transcript import Segment, Transcript, Word

WORDS = (Word(" Hello", 0.5, 0.9, 0.75), Word(" you.", 0.9, 1.5, 0.5))


@dataclass(frozen=True)
class Upload:
    """What came in one request."""

    path: str
    authorization: str | None
    filename: str
    content: bytes
    fields: dict[str, str]
    method: str = "POST"
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """`status` 0 breaks the connection off instead."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0


@dataclass
class AnsweringServer:
    url: str
    uploads: list[Upload] = field(default_factory=list)


Answers = Callable[[Upload], Answer] | Answer


def transcript(upload: Upload) -> Answer:
    """Hears "Hello" and the file's content."""
    segment = Segment(0.5, 1.5, f" Hello {upload.content[:9].decode()}.", WORDS, tokens=(1, 2))
    out = TranscriptionOut.of(
        Transcript((segment,), "en", 1.0, 2.0),
        latency_s=0.1,
        request_id="id",
        with_words=upload.fields.get("word_timestamps") == "true",
        verbose=upload.fields["response_format"] == "verbose_json",
    )
    return Answer(200, out.model_dump_json().encode())


BREAK_OFF = Answer(0, b"")


def in_turn(*answers: Answer) -> Callable[[Upload], Answer]:
    """One answer a request; the last one for all that follow."""
    left = list(answers)
    return lambda _: left.pop(0) if len(left) > 1 else left[0]


def refusal(status: int, code: str, error: str, **headers: str) -> Answer:
    body = json.dumps({"success": False, "text": "", "code": code, "error": error})
    return Answer(status, body.encode(), headers)


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client may close its connection whenever it wants."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def answering(answers: Answers = transcript) -> Iterator[AnsweringServer]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            upload = read_upload(self)
            server.uploads.append(upload)
            answer = answers if isinstance(answers, Answer) else answers(upload)
            time.sleep(answer.delay_s)
            if answer.status:
                self._answer(answer)
            self.close_connection = not answer.status

        do_GET = do_DELETE = do_POST  # noqa: N815 - their names are given

        def _answer(self, answer: Answer) -> None:
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

        def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
            pass

    with _Server(("127.0.0.1", 0), Handler) as http:
        server = AnsweringServer(f"http://127.0.0.1:{http.server_address[1]}")
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            http.shutdown()
            thread.join()


def read_upload(request: BaseHTTPRequestHandler) -> Upload:
    filename, content, fields = _read(request)
    return Upload(
        request.path,
        request.headers["Authorization"],
        filename,
        content,
        fields,
        request.command,
        {name.lower(): value for name, value in request.headers.items()},
    )


def _read(request: BaseHTTPRequestHandler) -> tuple[str, bytes, dict[str, str]]:
    body = request.rfile.read(int(request.headers.get("Content-Length", 0)))
    kind = request.headers.get("Content-Type", "")
    if kind == "application/json":
        return "", b"", json.loads(body)
    form = message_from_bytes(f"Content-Type: {kind}\r\n\r\n".encode() + body)
    filename, content, fields = "", b"", {}
    for part in form.get_payload() if kind else ():
        assert not isinstance(part, str)
        data = part.get_payload(decode=True)
        assert isinstance(data, bytes)
        name = str(part.get_param("name", header="Content-Disposition"))
        if part.get_filename() is None:
            fields[name] = data.decode()
        else:
            assert name == "audio_file"
            filename, content = str(part.get_filename()), data
    return filename, content, fields
