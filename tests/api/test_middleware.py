from __future__ import annotations

import asyncio
import json

import pytest
from starlette.types import Message, Receive, Scope, Send

from tests.api.fakes import (
    CLIP,
    FakeEngines,
    FakePort,
    Lines,
    Wire,
    app_with,
    client_of,
    is_failure,
)
from whisper_serve.api.middleware import RequestContextMiddleware
from whisper_serve.engines.base import DecodeTask
from whisper_serve.errors import EngineFailed, EngineUnavailable, Overloaded
from whisper_serve.observability.context import current_request_id
from whisper_serve.text.transcript import Hypothesis

BROKEN = FakePort(RuntimeError("no such file: /opt/secret"))


# The id


async def test_every_answer_has_an_id() -> None:
    async with client_of(app_with()) as client:
        paths = ["/", "/livez", "/health", "/nowhere"]
        ids = [(await client.get(path)).headers["x-request-id"] for path in paths]
    assert len(set(ids)) == len(ids)


async def test_a_client_s_id_comes_back() -> None:
    async with client_of(app_with()) as client:
        answer = await client.get("/livez", headers={"x-request-id": "r-1"})
    assert answer.headers["x-request-id"] == "r-1"


async def test_an_id_that_does_not_fit_a_header_is_made_fit() -> None:
    async with client_of(app_with()) as client:
        answer = await client.get("/livez", headers={"X-Request-ID": " r 1\t" + "x" * 500})
    assert answer.headers["x-request-id"].startswith("r1xxx")
    assert len(answer.headers["x-request-id"]) == 128


async def test_behind_a_proxy_the_id_is_not_sent_twice() -> None:
    async with client_of(app_with(send_request_id=False)) as client:
        answer = await client.post(
            "/transcribe", files={"file": CLIP}, headers={"X-Request-ID": "r-1"}
        )
    assert "x-request-id" not in answer.headers
    assert answer.json()["request_id"] == "r-1"


async def test_requests_side_by_side_have_their_own_ids() -> None:
    seen: dict[str, str] = {}

    async def note(task: DecodeTask) -> Hypothesis:
        await asyncio.sleep(0.01)
        seen[task.request_id] = current_request_id()
        raise Overloaded(1.0)

    async with client_of(app_with(FakePort(note))) as client:
        await asyncio.gather(
            *(
                client.post("/transcribe", files={"file": CLIP}, headers={"X-Request-ID": f"r-{n}"})
                for n in range(4)
            )
        )
    assert seen == {f"r-{n}": f"r-{n}" for n in range(4)}


# The log


async def test_a_request_is_one_line(lines: Lines) -> None:
    async with client_of(app_with()) as client:
        headers = {"X-Request-ID": "r-1"}
        await client.post("/transcribe", files={"file": CLIP}, headers=headers)
    [record] = [each for each in lines.records if each.name == "whisper_serve.access"]
    assert record.levelname == "INFO"
    assert record.getMessage().startswith("POST /transcribe 200 in ")
    assert {*lines.request_ids} == {"r-1"}
    fields = vars(record)["fields"]
    assert fields.keys() == {"method", "path", "status", "seconds", "client"}


async def test_a_query_stays_out_of_the_log(lines: Lines) -> None:
    async with client_of(app_with()) as client:
        await client.get("/nowhere?prompt=private")
    [message] = lines.messages
    assert message.startswith("GET /nowhere 404 in")
    assert "private" not in message


async def test_a_path_cannot_forge_a_line(lines: Lines) -> None:
    async with client_of(app_with()) as client:
        await client.get("/x%0A2030-01-01 ERROR forged")
    [message] = lines.messages
    assert message.startswith("GET /x%0A2030-01-01%20ERROR%20forged 404 in")


@pytest.mark.parametrize("path", ["/health", "/livez", "/readyz"])
async def test_probes_are_quiet(path: str, lines: Lines) -> None:
    async with client_of(app_with()) as client:
        await client.get(path)
    assert [record.levelname for record in lines.records] == ["DEBUG"]


async def test_a_probe_that_fails_is_not_quiet(lines: Lines) -> None:
    engines = FakeEngines(EngineUnavailable(5.0))
    async with client_of(app_with(engines=engines)) as client:
        await client.get("/health")
    assert [record.levelname for record in lines.records] == ["INFO"]
    assert lines.messages[0].startswith("GET /health 503 in")


async def test_a_client_that_goes_away_is_told_in_the_log(lines: Lines) -> None:
    await Wire([b"RIFF"], ends=False).post(app_with(), {"Content-Type": "audio/wav"})
    assert [message.split(" in ")[0] for message in lines.messages] == ["POST /transcribe 499"]


async def test_a_request_that_is_cancelled_is_told_in_the_log(lines: Lines) -> None:
    reached = asyncio.Event()

    async def never(_task: DecodeTask) -> Hypothesis:
        reached.set()
        await asyncio.sleep(60)
        raise AssertionError

    wire = Wire([CLIP])
    serving = asyncio.ensure_future(
        wire.post(app_with(FakePort(never)), {"Content-Type": "audio/wav"})
    )
    await reached.wait()
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert wire.status is None
    assert [message.split(" in ")[0] for message in lines.messages] == ["POST /transcribe 499"]


# What nobody foresaw


async def test_a_fault_of_ours_is_an_answer_without_internals() -> None:
    async with client_of(app_with(BROKEN)) as client:
        answer = await client.post("/transcribe", files={"file": CLIP})
    assert is_failure(answer, 500, "internal_error")
    assert answer.json()["error"] == "the service failed unexpectedly"
    assert "secret" not in answer.text


async def test_a_fault_of_ours_has_its_id_in_the_answer_and_in_the_log(lines: Lines) -> None:
    async with client_of(app_with(BROKEN)) as client:
        headers = {"X-Request-ID": "r-1"}
        answer = await client.post("/transcribe", files={"file": CLIP}, headers=headers)
    assert answer.headers["x-request-id"] == answer.json()["request_id"] == "r-1"
    fault, access = lines.records
    assert fault.exc_info is not None
    assert str(fault.exc_info[1]) == "no such file: /opt/secret"
    assert access.getMessage().startswith("POST /transcribe 500 in")
    assert lines.request_ids == ["r-1", "r-1"]


async def test_a_fault_of_ours_does_not_reach_the_server() -> None:
    wire = Wire([CLIP])
    await wire.post(app_with(BROKEN), {"Content-Type": "audio/wav"})
    assert wire.status == 500
    assert json.loads(wire.body)["success"] is False


async def test_half_an_answer_is_broken_off_by_the_server(lines: Lines) -> None:
    async def half_an_answer(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise RuntimeError("torn")

    wire = Wire([])
    with pytest.raises(RuntimeError, match="torn"):
        await wire.post(RequestContextMiddleware(half_an_answer, send_id=True), {})
    assert (wire.status, wire.body) == (200, b"half")
    assert "unforeseen failure" in lines.messages


async def test_what_is_no_request_and_no_socket_passes_untouched() -> None:
    seen: list[Scope] = []

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        seen.append(scope)

    async def nothing(_message: Message | None = None) -> Message:
        return {}

    async def send(_message: Message) -> None: ...

    await RequestContextMiddleware(app, send_id=True)({"type": "lifespan"}, nothing, send)
    assert seen == [{"type": "lifespan"}]


# How loud a failure is


@pytest.mark.parametrize(
    ("port", "levels"),
    [
        (FakePort(EngineFailed("CUDA error")), ["ERROR", "INFO"]),
        (FakePort(Overloaded(1.0)), ["WARNING", "INFO"]),
        (FakePort(EngineUnavailable(1.0)), ["WARNING", "INFO"]),
    ],
)
async def test_only_what_is_broken_is_an_error_in_the_log(
    port: FakePort, levels: list[str], lines: Lines
) -> None:
    async with client_of(app_with(port)) as client:
        await client.post("/transcribe", files={"file": CLIP})
    assert [record.levelname for record in lines.records] == levels
    assert bool(lines.records[0].exc_info) == (levels[0] == "ERROR")


async def test_a_client_s_mistake_is_the_access_line_only(lines: Lines) -> None:
    async with client_of(app_with()) as client:
        await client.post("/transcribe", files={"file": b"no audio"})
    assert [message.split(" in ")[0] for message in lines.messages] == ["POST /transcribe 400"]
