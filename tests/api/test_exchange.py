"""What the log and the trace tell of requests and of streams, and what they never tell."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.api.fakes import CLIP, HEARD, FakePort, Lines, app_with, client_of
from tests.api.streams import HASTY, Engine, is_over, said, serving, words
from tests.observability.collector import Collector, collecting
from tests.streaming.speaker import Ears
from whisper_serve.api import live
from whisper_serve.api.exchange import access
from whisper_serve.api.routes.stream import stream_router
from whisper_serve.config import LoggingConfig, TracingConfig
from whisper_serve.engines.base import DecodeTask
from whisper_serve.errors import DeadlineExceeded, EngineFailed
from whisper_serve.observability.context import current
from whisper_serve.observability.exporting import start_exporting
from whisper_serve.observability.logs import configure_logging, stop_logging
from whisper_serve.text.transcript import text_of

END = {"type": "end"}
SERVER, CLIENT = 2, 3
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
ASKED = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
server = partial(serving, partial(stream_router, timing=HASTY))


@pytest.fixture(autouse=True)
def ears(monkeypatch: pytest.MonkeyPatch) -> None:
    """Voice activity detection that takes the speech of these tests for speech."""
    monkeypatch.setattr(live, "SileroVad", Ears)


@pytest.fixture
def collector() -> Iterator[Collector]:
    """Where this process sends its traces meanwhile."""
    with collecting() as collector:
        exporting = start_exporting(TracingConfig(otlp_endpoint=collector.url), "test")
        assert exporting is not None
        yield collector
        exporting.close()


def told(lines: Lines, logger: str = access.name) -> list[dict[str, Any]]:
    """The facts of each line that this logger wrote."""
    return [vars(record)["fields"] for record in lines.records if record.name == logger]


def facts(lines: Lines, *names: str) -> list[Any]:
    """Of the only stream."""
    [fields] = told(lines)
    return [fields.get(name) for name in names]


# One line for each stream, at its end


async def test_a_stream_is_one_line_at_its_end(lines: Lines) -> None:
    async with server() as running, running.client({}) as client:
        await client.send(words(4), END)
        assert await client.closed() == 1000
        assert client.text == said(4)
    [fields] = told(lines)
    known = {
        "method": "WS",
        "path": "/stream",
        "status": 101,
        "client": "127.0.0.1",
        "close_code": 1000,
        "audio_s": 2.0,
        "finals": len(client.all("final")),
        "ended": "done",
        "resumed": False,
    }
    assert known.items() <= fields.items()
    assert fields["windows"] >= 1
    assert 0 < fields["seconds"] < 60


async def test_a_stream_whose_client_goes_away_says_so(lines: Lines) -> None:
    async with server() as running:
        async with running.client({}) as client:
            await client.send(words(1))
            client.vanish()
        await is_over(running.admission)
    assert facts(lines, "status", "ended") == [101, "gone"]
    assert facts(lines, "close_code")[0] in {1005, 1006}


async def test_a_client_that_closes_says_how(lines: Lines) -> None:
    async with server() as running, running.client({}):
        pass
    assert facts(lines, "ended", "close_code") == ["gone", 1000]


async def test_a_stream_that_an_error_ends_says_which(lines: Lines) -> None:
    async with server(idle_timeout_s=0.1) as running, running.client({}) as client:
        assert await client.closed() == 4408
    assert facts(lines, "ended", "close_code") == ["stream_idle", 4408]


async def test_a_stream_that_never_began_says_why(lines: Lines) -> None:
    async with server() as running, running.client() as client:
        await client.send({"type": "config", "sample_rate": 3})
        assert await client.closed() == 1008
    assert facts(lines, "ended", "close_code", "audio_s") == ["invalid_parameter", 1008, 0.0]


async def test_a_stream_that_goes_on_with_another_says_so(lines: Lines) -> None:
    resume = {"committed_until": 3.0}
    async with server() as running, running.client({"resume": resume}) as client:
        await client.send(words(1), END)
        await client.closed()
    assert facts(lines, "resumed", "audio_s") == [True, 0.5]


async def test_a_stream_that_is_refused_is_one_line_too(lines: Lines) -> None:
    async with server(limit=0) as running:
        with pytest.raises(InvalidStatus):
            async with connect(f"{running.url}/stream", proxy=None):
                pass
    assert facts(lines, "status", "code", "close_code") == [503, "overloaded", None]


async def test_the_log_ties_a_stream_to_its_request(lines: Lines) -> None:
    seen: list[Any] = []

    async def note(_task: DecodeTask) -> None:
        seen.append(current())

    engine = Engine(trouble=note)
    headers = {"X-Request-ID": "r-1"}
    async with server(engine) as running:
        url = f"{running.url}/stream"
        async with connect(url, additional_headers=headers, proxy=None) as socket:
            assert socket.response is not None
            assert socket.response.headers["X-Request-ID"] == "r-1"
            ready = json.loads(await socket.recv())
            await socket.send(words(2).tobytes())
            await socket.send(json.dumps(END))
            async for _ in socket:
                pass
    assert {(whose.request_id, whose.session_id) for whose in seen} == {
        ("r-1", ready["session_id"])
    }
    assert {(task.request_id, task.session_id) for task in engine.tasks} == {
        ("r-1", ready["session_id"])
    }


async def test_the_performance_of_a_stream_is_one_line(lines: Lines) -> None:
    async with server() as running, running.client({}) as client:
        await client.send(words(4), END)
        await client.closed()
    [fields] = told(lines, "whisper_serve.performance")
    windows = fields["windows"]
    assert (fields["audio_s"], fields["model"], fields["failures"]) == (2.0, "default", 0)
    assert fields["encoded_s"] == pytest.approx(0.1 * windows)
    assert fields["real_time_factor"] == pytest.approx(0.3 * windows / 2.0)


# Who asked


KEY = "wsk_a-key-that-nobody-guesses"


async def test_the_access_log_names_the_holder_of_the_key(lines: Lines) -> None:
    keys = [{"name": "radio", "sha256": sha256(KEY.encode()).hexdigest()}]
    async with client_of(app_with(settings={"auth": {"keys": keys}})) as client:
        headers = {"Authorization": f"Bearer {KEY}"}
        await client.post("/transcribe", files={"file": CLIP}, headers=headers)
        await client.post("/transcribe", files={"file": CLIP})
    answered, refused = told(lines)
    assert (answered["status"], answered["caller"]) == (200, "radio")
    assert (refused["status"], refused["code"]) == (401, "invalid_api_key")
    assert "caller" not in refused


# Traces


async def test_a_request_is_a_tree_of_spans(collector: Collector) -> None:
    port = FakePort()
    async with client_of(app_with(port)) as client:
        answer = await client.post(
            "/transcribe", files={"file": CLIP}, headers={**ASKED, "X-Request-ID": "r-1"}
        )
    assert answer.status_code == 200
    spans = {span.name: span for span in collector.spans(3)}
    request, window = spans["POST /transcribe"], spans["window"]
    assert (request.trace_id, request.parent_id, request.kind) == (TRACE, PARENT, SERVER)
    assert request.attributes["http.response.status_code"] == 200
    assert request.attributes["whisper_serve.request_id"] == "r-1"
    assert (window.parent_id, window.kind) == (request.span_id, CLIENT)
    assert window.attributes["whisper_serve.audio_s"] == 2.0
    assert window.attributes["whisper_serve.lane"] == "file"
    assert spans["read audio"].parent_id == request.span_id
    assert spans["read audio"].attributes == {"whisper_serve.audio_s": 2.0}
    [task] = port.tasks
    assert task.traceparent == f"00-{TRACE}-{window.span_id}-01"


async def test_a_stream_is_a_tree_of_spans(collector: Collector) -> None:
    async with server() as running, running.client({}) as client:
        await client.send(words(4), END)
        await client.closed()
    spans = collector.spans(2)
    [stream] = [span for span in spans if span.name == "WS /stream"]
    windows = [span for span in spans if span.name == "window"]
    assert windows
    assert {window.parent_id for window in windows} == {stream.span_id}
    assert stream.attributes["whisper_serve.close_code"] == 1000
    assert stream.kind == SERVER


@pytest.mark.parametrize(
    ("answer", "status", "kind"),
    [
        (EngineFailed("CUDA error at 0x7f"), 500, "engine_failed"),
        (DeadlineExceeded(1.0), 504, "deadline_exceeded"),
        (RuntimeError("no such file: /opt/secret"), 500, "500"),
    ],
)
async def test_a_failure_is_marked(
    answer: Exception, status: int, kind: str, collector: Collector
) -> None:
    async with client_of(app_with(FakePort(answer))) as client:
        assert (await client.post("/transcribe", files={"file": CLIP})).status_code == status
    spans = {span.name: span for span in collector.spans(3)}
    request = spans["POST /transcribe"]
    assert request.status == spans["window"].status == 2
    assert request.attributes["error.type"] in {kind, "internal_error"}
    assert not any(b"secret" in body or b"0x7f" in body for body in collector.bodies)


async def test_a_client_s_mistake_is_no_failure_of_ours(collector: Collector) -> None:
    async with client_of(app_with()) as client:
        await client.get("/nowhere/at/all")
    [span] = collector.spans(1)
    assert (span.name, span.status) == ("GET unmatched", 0)


async def test_probes_are_not_traced(collector: Collector) -> None:
    async with client_of(app_with()) as client:
        for path in ("/livez", "/health", "/readyz", "/"):
            await client.get(path)
    assert [span.name for span in collector.spans(1)] == ["GET /"]


# What is never told

PRIVATE = "prvt9word"


@pytest.fixture
def written(tmp_path: Path) -> Iterator[Path]:
    """Everything is logged, as JSON, into this folder."""
    package = logging.getLogger("whisper_serve")
    kept = package.handlers[:], package.level, package.propagate
    config = LoggingConfig(file=tmp_path / "service.log", format="json", level="DEBUG")
    configure_logging(config, "test")
    yield tmp_path
    stop_logging()
    package.handlers, package.level, package.propagate = kept


def all_of(folder: Path) -> str:
    for handler in logging.getLogger("whisper_serve").handlers:
        handler.flush()
    return "".join(path.read_text("utf-8") for path in folder.iterdir())


@pytest.mark.parametrize(
    "request_of",
    [
        {"params": {"prompt": PRIVATE, "hotwords": PRIVATE}},
        {"data": {"prompt": PRIVATE, "hotwords": PRIVATE}},
        {"data": {"language": PRIVATE}},
        {"params": {PRIVATE: PRIVATE}},
        {"headers": {"Authorization": f"Bearer {PRIVATE}", "X-API-Key": PRIVATE}},
        {"headers": {"Cookie": PRIVATE, "Referer": f"http://{PRIVATE}/"}},
    ],
)
async def test_what_a_client_sends_is_in_no_log_and_in_no_trace(
    request_of: dict[str, Any], written: Path, collector: Collector
) -> None:
    async with client_of(app_with()) as client:
        await client.post("/transcribe", files={"file": (f"{PRIVATE}.wav", CLIP)}, **request_of)
    logged = all_of(written)
    assert '"path": "/transcribe"' in logged
    assert PRIVATE not in logged
    collector.spans(1)
    assert not any(PRIVATE.encode() in body for body in collector.bodies)


async def test_what_was_heard_is_in_no_log_and_in_no_trace(
    written: Path, collector: Collector
) -> None:
    async with client_of(app_with()) as client:
        answer = await client.post("/transcribe", files={"file": CLIP})
    text = text_of(HEARD.segments).strip()
    assert answer.json()["text"].strip() == text
    heard = [word for word in text.split() if len(word) > 3]  # shorter ones are there by chance
    assert heard
    for word in heard:
        assert word not in all_of(written)
    collector.spans(3)
    assert not any(word.encode() in body for word in heard for body in collector.bodies)


@pytest.mark.parametrize("trouble", [None, EngineFailed("of the engine"), RuntimeError("broken")])
async def test_a_stream_s_words_are_in_no_log_and_in_no_trace(
    trouble: Exception | None, written: Path, collector: Collector
) -> None:
    config = {"prompt": PRIVATE, "hotwords": PRIVATE}
    async with server(Engine([trouble])) as running, running.client(config) as client:
        await client.send(words(6), {"type": "config", "language": PRIVATE}, END)
        await client.closed()
    logged = all_of(written)
    assert "/stream" in logged
    assert PRIVATE not in logged
    assert "w0 w1" not in logged
    collector.spans(1)
    assert not any(PRIVATE.encode() in body for body in collector.bodies)
