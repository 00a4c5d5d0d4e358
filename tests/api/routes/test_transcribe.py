from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence

import httpx
import numpy as np
import pytest

from tests.api.fakes import (
    CLIP,
    HEARD,
    TEXT,
    FakePort,
    Settings,
    app_with,
    client_of,
    is_failure,
)
from tests.audio.clips import silence, tone, wav
from whisper_serve.engines.base import DecodeTask, TemperaturePolicy
from whisper_serve.errors import (
    DeadlineExceeded,
    EngineFailed,
    EngineUnavailable,
    InvalidParameter,
    Overloaded,
    WhisperServeError,
)
from whisper_serve.text.transcript import Hypothesis

SRT = """\
1
00:00:00,100 --> 00:00:01,900
Grüße, Welt & <alle>.
"""
VTT = """\
WEBVTT

00:00:00.100 --> 00:00:01.900
Grüße, Welt &amp; &lt;alle>.
"""


async def transcribe(
    port: FakePort | None = None,
    *,
    clip: bytes = CLIP,
    form: dict[str, str] | None = None,
    query: dict[str, str] | None = None,
    settings: Settings | None = None,
) -> httpx.Response:
    async with client_of(app_with(port, settings=settings)) as client:
        return await client.post("/transcribe", files={"audio_file": clip}, data=form, params=query)


async def asked(models: Sequence[str] = (), **fields: str) -> DecodeTask:
    """What the engine is asked when a client sends `fields`."""
    port = FakePort()
    answer = await transcribe(port, form=fields, settings={"models": models})
    assert answer.status_code == 200
    return port.tasks[0]


# Forms of the answer


async def test_an_answer_keeps_its_promise() -> None:
    answer = await transcribe()
    body = answer.json()
    latency = body.pop("latency")
    request_id = body.pop("request_id")
    assert 0 <= latency < 30
    assert request_id == answer.headers["x-request-id"]
    assert body == {
        "success": True,
        "text": TEXT,
        "word_count": 4,
        "gpu_memory": 1.235,
        "error": None,
        "code": None,
        "language": "de",
        "language_probability": 0.9877,
        "duration": 2.0,
        "segments": [
            {"id": 0, "start": 0.1, "end": 1.0, "text": "Grüße, Welt"},
            {"id": 1, "start": 1.1, "end": 1.9, "text": "& <alle>."},
        ],
        "words": None,
    }


async def test_the_promised_fields_come_first() -> None:
    body = (await transcribe()).json()
    assert list(body)[:6] == ["success", "text", "latency", "word_count", "gpu_memory", "error"]


async def test_word_times_are_given_when_asked_for() -> None:
    body = (await transcribe(form={"word_timestamps": "true"})).json()
    assert body["words"] == [
        {"word": "Grüße,", "start": 0.1, "end": 0.6, "probability": 0.9123},
        {"word": "Welt", "start": 0.6, "end": 1.0, "probability": 0.8},
        {"word": "& <alle>.", "start": 1.1, "end": 1.9, "probability": 0.7},
    ]


async def test_a_verbose_answer_tells_about_the_decode() -> None:
    body = (await transcribe(form={"response_format": "verbose_json"})).json()
    first = body["segments"][0]
    assert first == {
        "id": 0,
        "start": 0.1,
        "end": 1.0,
        "text": "Grüße, Welt",
        "seek": 0.0,
        "tokens": [11, 12],
        "temperature": 0.2,
        "avg_logprob": -0.3,
        "compression_ratio": 1.1,
        "no_speech_prob": 0.05,
    }
    assert body["text"] == TEXT


@pytest.mark.parametrize(
    ("response_format", "content_type", "content"),
    [
        ("text", "text/plain; charset=utf-8", f"{TEXT}\n"),
        (
            "srt",
            "application/x-subrip; charset=utf-8",
            SRT,
        ),
        (
            "vtt",
            "text/vtt; charset=utf-8",
            VTT,
        ),
    ],
)
async def test_a_text_answer_is_text(response_format: str, content_type: str, content: str) -> None:
    answer = await transcribe(form={"response_format": response_format})
    assert answer.headers["content-type"] == content_type
    assert normalized(answer.content.decode("utf-8")) == normalized(content)


def normalized(subtitles: str) -> str:
    """How WebVTT writes a `>` that need not be written as anything else."""
    return subtitles.replace("&gt;", ">")


@pytest.mark.parametrize("response_format", ["text", "srt", "vtt", "verbose_json"])
async def test_a_failure_is_json_whatever_was_asked_for(response_format: str) -> None:
    answer = await transcribe(clip=b"no audio", form={"response_format": response_format})
    assert is_failure(answer, 400, "unreadable_audio")


async def test_silence_is_a_success_without_text() -> None:
    port = FakePort()
    answer = await transcribe(port, clip=wav(silence(1.5)), settings={"vad": {"threshold": 0.5}})
    body = answer.json()
    assert (answer.status_code, body["success"], body["text"]) == (200, True, "")
    assert (body["segments"], body["word_count"], body["duration"]) == ([], 0, 1.5)
    assert not port.tasks


# What the engine is asked


async def test_the_engine_hears_the_recording() -> None:
    task = await asked()
    assert len(task.samples) == 32_000
    assert np.abs(task.samples).max() > 8_000


async def test_without_parameters_the_defaults_are_asked() -> None:
    task = await asked()
    assert (task.language, task.task, task.context, task.hotwords) == (None, "transcribe", "", "")
    assert task.temperature == TemperaturePolicy()
    assert (task.beam_size, task.best_of, task.suppress_tokens) == (5, 5, (-1,))


@pytest.mark.parametrize(
    ("name", "asked_for"),
    [("", ""), ("base", ""), ("tiny.en", "tiny.en"), ("turbo", "large-v3-turbo")],
)
async def test_a_model_is_chosen_by_its_name(name: str, asked_for: str) -> None:
    assert (await asked(models=["tiny.en", "turbo"], model=name)).model == asked_for


@pytest.mark.parametrize("name", ["small", "../models/base", "https://host/model.pt"])
async def test_a_model_that_is_not_served_is_not_found(name: str) -> None:
    port = FakePort()
    answer = await transcribe(port, form={"model": name}, settings={"models": ["tiny.en"]})
    assert is_failure(answer, 404, "model_not_found")
    assert answer.json()["error"].endswith("served: base, tiny.en")
    assert port.tasks == []


@pytest.mark.parametrize("language", ["de", "DE", "German", "de-AT", " german "])
async def test_a_language_has_several_names(language: str) -> None:
    assert (await asked(language=language)).language == "de"


async def test_no_language_is_no_language() -> None:
    assert (await asked(language="")).language is None


async def test_parameters_reach_the_engine() -> None:
    task = await asked(
        task="translate", prompt="Dear friends", hotwords="Ray Serve", temperature="0.4"
    )
    assert (task.task, task.context, task.hotwords) == ("translate", "Dear friends", "Ray Serve")
    assert task.temperature.temperatures == (0.4, 0.6, 0.8, 1.0)


async def test_the_way_of_decoding_reaches_the_engine() -> None:
    task = await asked(beam_size="2", best_of="3", suppress_tokens="-1, 13")
    assert (task.beam_size, task.best_of, task.suppress_tokens) == (2, 3, (-1, 13))


async def test_a_beam_that_is_not_chosen_is_as_wide_as_configured() -> None:
    port = FakePort()
    await transcribe(port, settings={"model": {"beam_size": 4}})
    assert port.tasks[0].beam_size == 4


@pytest.mark.parametrize("way", ["form", "query"])
async def test_no_ids_leave_only_control_tokens_to_be_suppressed(way: str) -> None:
    port, fields = FakePort(), {"suppress_tokens": ""}
    if way == "form":
        await transcribe(port, form=fields)
    else:
        await transcribe(port, query=fields)
    assert port.tasks[0].suppress_tokens == ()


async def test_the_request_s_id_reaches_the_engine() -> None:
    port = FakePort()
    async with client_of(app_with(port)) as client:
        headers = {"X-Request-ID": "r-1"}
        answer = await client.post("/transcribe", files={"file": CLIP}, headers=headers)
    assert port.tasks[0].request_id == "r-1"
    assert answer.json()["request_id"] == answer.headers["x-request-id"] == "r-1"


async def test_context_can_be_chosen() -> None:
    long_clip = wav(tone(12.0))
    for use_context in ("true", "false"):
        port = FakePort()
        settings = {"chunking": {"chunk_duration": 5.0}}
        form = {"use_context": use_context}
        await transcribe(port, clip=long_clip, form=form, settings=settings)
        with_context = [task for task in port.tasks if TEXT in task.context]
        assert bool(with_context) == (use_context == "true")


async def test_a_window_has_the_configured_time() -> None:
    port = FakePort()
    await transcribe(port, settings={"limits": {"window_timeout_s": 7.0}})
    assert port.tasks[0].timeout_s == 7.0


# Two ways for parameters


async def test_the_query_is_as_good_as_the_form() -> None:
    port = FakePort()
    answer = await transcribe(port, query={"language": "de", "word_timestamps": "true"})
    assert port.tasks[0].language == "de"
    assert answer.json()["words"]


async def test_query_and_form_add_up() -> None:
    port = FakePort()
    answer = await transcribe(port, query={"language": "de"}, form={"response_format": "text"})
    assert port.tasks[0].language == "de"
    assert answer.text == f"{TEXT}\n"


async def test_a_bare_body_takes_its_parameters_from_the_query() -> None:
    port = FakePort()
    async with client_of(app_with(port)) as client:
        answer = await client.post(
            "/transcribe",
            content=CLIP,
            headers={"Content-Type": "audio/wav"},
            params={"language": "de"},
        )
    assert answer.json()["text"] == TEXT
    assert port.tasks[0].language == "de"


@pytest.mark.parametrize("flag", ["true", "1", "yes", "on", "True"])
async def test_a_flag_may_be_written_in_several_ways(flag: str) -> None:
    assert (await transcribe(form={"word_timestamps": flag})).json()["words"]


BAD_PARAMETERS = [
    ("language", "klingon", "Whisper does not know the language 'klingon'"),
    ("task", "summarize", "'transcribe' or 'translate'"),
    ("temperature", "hot", "valid number"),
    ("temperature", "-0.1", "greater than or equal to 0"),
    ("temperature", "1.1", "less than or equal to 1"),
    ("temperature", "nan", "finite number"),
    ("word_timestamps", "maybe", "valid boolean"),
    ("use_context", "", "valid boolean"),
    ("response_format", "docx", "'json', 'text', 'srt', 'vtt' or 'verbose_json'"),
    ("prompt", "x" * 4_001, "at most 4000 characters"),
    ("hotwords", "x" * 1_001, "at most 1000 characters"),
    ("beam_size", "0", "greater than or equal to 1"),
    ("beam_size", "11", "less than or equal to 10"),
    ("beam_size", "2.5", "valid integer"),
    ("beam_size", "", "valid integer"),
    ("best_of", "0", "greater than or equal to 1"),
    ("best_of", "11", "less than or equal to 10"),
    ("best_of", "all", "valid integer"),
    ("suppress_tokens", "hello", "whole numbers with commas between them"),
    ("suppress_tokens", "1.5", "whole numbers with commas between them"),
    ("suppress_tokens", "1,,2", "whole numbers with commas between them"),
    ("suppress_tokens", "[1, 2]", "whole numbers with commas between them"),
    ("suppress_tokens", "-2", "whole numbers from -1 to 51865"),
    ("suppress_tokens", "13,51866", "whole numbers from -1 to 51865"),
    ("suppress_tokens", "1" + 1_000 * ",1", "at most 1,000 token ids, and these are 1,001"),
    ("engine", "torch", "unknown parameter; known: model, language, task"),
]


@pytest.mark.parametrize("way", ["form", "query"])
@pytest.mark.parametrize(("name", "value", "reason"), BAD_PARAMETERS)
async def test_a_bad_parameter_is_named(way: str, name: str, value: str, reason: str) -> None:
    port = FakePort()
    fields = {name: value}
    if way == "form":
        answer = await transcribe(port, form=fields)
    else:
        answer = await transcribe(port, query=fields)
    assert is_failure(answer, 400, "invalid_parameter")
    assert answer.json()["error"].startswith(f"{name}: ")
    assert reason in answer.json()["error"]
    assert not port.tasks


@pytest.mark.parametrize("other_way", [{"query": {"task": "translate"}}, {}])
async def test_a_parameter_that_is_given_twice_is_no_guess(
    other_way: dict[str, dict[str, str]],
) -> None:
    boundary = "--b\r\nContent-Disposition: form-data; name="
    twice = 2 if not other_way else 1
    body = (
        (
            f'{boundary}"task"\r\n\r\ntranscribe\r\n' * twice
            + f'{boundary}"file"; filename="a.wav"\r\n\r\n'
        ).encode()
        + CLIP
        + b"\r\n--b--\r\n"
    )
    async with client_of(app_with()) as client:
        answer = await client.post(
            "/transcribe",
            content=body,
            params=other_way.get("query"),
            headers={"Content-Type": "multipart/form-data; boundary=b"},
        )
    assert is_failure(answer, 400, "invalid_parameter")
    assert answer.json()["error"] == "task: given more than once"


# Files that cannot be used


async def test_what_is_no_audio_is_told() -> None:
    answer = await transcribe(clip=b"this is text, not sound" * 100)
    assert is_failure(answer, 400, "unreadable_audio")


async def test_a_format_that_is_not_accepted_is_told_with_those_that_are() -> None:
    answer = await transcribe(settings={"model": {"supported_formats": [".mp3", ".flac"]}})
    assert is_failure(answer, 400, "unsupported_format")
    assert ".mp3, .flac" in answer.json()["error"]


async def test_a_recording_that_is_too_long_is_told() -> None:
    answer = await transcribe(settings={"limits": {"max_audio_s": 1.5}})
    assert is_failure(answer, 413, "audio_too_long")
    assert "1.5 seconds" in answer.json()["error"]


# Engines that cannot answer


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Overloaded(2.2), 503),
        (EngineUnavailable(5.0), 503),
        (DeadlineExceeded(120.0), 504),
        (EngineFailed("CUDA error: an illegal memory access at 0x7f"), 500),
        (InvalidParameter("language", "the model 'tiny.en' knows English only"), 400),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_an_error_of_the_engine_is_told(error: WhisperServeError, status: int) -> None:
    answer = await transcribe(FakePort(error))
    assert is_failure(answer, status, error.code)
    assert answer.json()["error"] == str(error)
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize(("error", "seconds"), [(Overloaded(2.2), 3), (EngineUnavailable(5.0), 5)])
async def test_who_shall_come_back_is_told_when(error: WhisperServeError, seconds: int) -> None:
    answer = await transcribe(FakePort(error))
    assert answer.headers["retry-after"] == str(seconds)


@pytest.mark.parametrize("error", [DeadlineExceeded(1.0), EngineFailed("")])
async def test_nobody_else_is_told_to_come_back(error: WhisperServeError) -> None:
    assert "retry-after" not in (await transcribe(FakePort(error))).headers


async def test_the_engine_s_detail_is_for_the_log_only() -> None:
    answer = await transcribe(FakePort(EngineFailed("CUDA error at /opt/secret")))
    assert not re.search("CUDA|secret", answer.text)


async def test_a_request_that_takes_too_long_is_given_up() -> None:
    given_up = asyncio.Event()

    async def never(_task: DecodeTask) -> Hypothesis:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            given_up.set()
            raise
        return HEARD

    answer = await transcribe(FakePort(never), settings={"limits": {"request_timeout_s": 0.5}})
    assert is_failure(answer, 504, "deadline_exceeded")
    assert given_up.is_set()


async def test_requests_do_not_wait_for_each_other() -> None:
    waiting = 0
    all_there = asyncio.Event()

    async def wait_for_others(_task: DecodeTask) -> Hypothesis:
        nonlocal waiting
        waiting += 1
        if waiting == 3:
            all_there.set()
        await asyncio.wait_for(all_there.wait(), 10)
        return HEARD

    async with client_of(app_with(FakePort(wait_for_others))) as client:
        requests = [client.post("/transcribe", files={"audio_file": CLIP}) for _ in range(3)]
        answers = await asyncio.gather(*requests)
    assert [answer.status_code for answer in answers] == [200] * 3
    assert len({answer.json()["request_id"] for answer in answers}) == 3
