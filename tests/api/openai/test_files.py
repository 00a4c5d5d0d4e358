"""OpenAI's own clients against the whole application over a real socket."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
import openai
import pytest
from openai.types.audio import (
    Transcription,
    TranscriptionStreamEvent,
    TranscriptionTextDeltaEvent,
    TranscriptionTextDoneEvent,
    TranscriptionVerbose,
    Translation,
    TranslationVerbose,
)

from tests.api.fakes import CLIP, HEARD, SEGMENTS, TEXT, WORDS, FakePort
from tests.api.openai.service import Endpoint, Kind, ask, patient, refused, serving
from tests.api.streams import PATIENCE_S, Engine, said, words
from tests.audio.clips import silence, tone, wav
from whisper_serve.audio.decode import decode
from whisper_serve.engines.base import DecodeTask, TemperaturePolicy
from whisper_serve.errors import (
    DeadlineExceeded,
    EngineFailed,
    EngineUnavailable,
    InvalidKey,
    Overloaded,
    TooManyStreams,
    WhisperServeError,
)
from whisper_serve.text.formats import to_srt, to_vtt
from whisper_serve.text.transcript import Hypothesis

ENDPOINTS: tuple[Endpoint, ...] = ("transcriptions", "translations")
GRANULARITIES: tuple[list[str], ...] = ([], ["segment"], ["word"], ["word", "segment"])
LANGUAGES: tuple[dict[str, Any], ...] = ({}, {"language": "de"})
# OpenAI's client says so of its translations.
pytestmark = pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
both_clients = pytest.mark.parametrize("kind", ["sync", "async"])
both_endpoints = pytest.mark.parametrize("endpoint", ENDPOINTS)

# Windows of five seconds, so that a recording has many.
SHORT_WINDOWS = {"chunking": {"chunk_duration": 5.0}}
# Of 30 s: "w0 w1 ... w59".
LONG = wav(words(60))


def fields_of(endpoint: Endpoint, **fields: Any) -> dict[str, Any]:
    """What the client has no argument for goes in its `extra_body`."""
    if endpoint == "transcriptions":
        return fields
    known = {"prompt", "response_format", "temperature"}
    extra = {name: value for name, value in fields.items() if name not in known}
    return {name: fields[name] for name in known & fields.keys()} | {"extra_body": extra}


async def asked(endpoint: Endpoint = "transcriptions", **fields: Any) -> DecodeTask:
    """What the engine is asked when a client sends `fields`."""
    port = FakePort()
    async with serving(port) as url:
        await ask(url, endpoint=endpoint, **fields)
    return port.tasks[0]


# Every form of the answer


@both_clients
@both_endpoints
@pytest.mark.parametrize("fields", LANGUAGES)
async def test_json_is_the_text_and_its_price(
    kind: Kind, endpoint: Endpoint, fields: dict[str, Any]
) -> None:
    async with serving() as url:
        answer = await ask(url, kind, endpoint, **fields_of(endpoint, **fields))
    assert isinstance(answer, (Transcription, Translation))
    assert answer.model_dump(exclude_none=True) == {
        "text": TEXT,
        "usage": {"type": "duration", "seconds": 2},
    }


@both_clients
@pytest.mark.parametrize(
    ("endpoint", "granularities", "fields"), [*product(ENDPOINTS, GRANULARITIES, LANGUAGES)]
)
async def test_verbose_json_has_the_times_that_are_asked_for(
    kind: Kind, endpoint: Endpoint, granularities: list[str], fields: dict[str, Any]
) -> None:
    chosen: dict[str, Any] = {"response_format": "verbose_json", **fields}
    if granularities:
        chosen["timestamp_granularities"] = granularities
    async with serving() as url:
        answer = await ask(url, kind, endpoint, **fields_of(endpoint, **chosen))
    assert isinstance(answer, (TranscriptionVerbose, TranslationVerbose))
    body = answer.to_dict()
    assert (body["text"], body["duration"]) == (TEXT, 2.0)
    task, language = {
        "transcriptions": ("transcribe", "german"),
        "translations": ("translate", "english"),
    }[endpoint]
    assert (body["task"], body["language"]) == (task, language)
    assert body["usage"] == {"type": "duration", "seconds": 2}
    assert ("segments" in body) == ("segment" in granularities or not granularities)
    assert ("words" in body) == ("word" in granularities)


@both_clients
@pytest.mark.parametrize(
    ("endpoint", "response_format", "fields"),
    [*product(ENDPOINTS, ["text", "srt", "vtt"], LANGUAGES)],
)
async def test_plain_formats_are_plain_text(
    kind: Kind, endpoint: Endpoint, response_format: str, fields: dict[str, Any]
) -> None:
    chosen = {"response_format": response_format, **fields}
    async with serving() as url:
        answer = await ask(url, kind, endpoint, **fields_of(endpoint, **chosen))
    assert isinstance(answer, str)
    match response_format:
        case "text":
            assert answer == f"{TEXT}\n"
        case "srt":
            assert answer == to_srt(SEGMENTS)
        case "vtt":
            assert answer == to_vtt(SEGMENTS)


@both_clients
@pytest.mark.parametrize(
    ("response_format", "fields"), [*product([None, "json", "text"], LANGUAGES)]
)
async def test_a_stream_is_deltas_and_then_the_whole(
    kind: Kind, response_format: str | None, fields: dict[str, Any]
) -> None:
    chosen = {**fields, **({"response_format": response_format} if response_format else {})}
    engine = Engine()
    async with serving(engine, SHORT_WINDOWS) as url:
        events = await ask(url, kind, file=LONG, stream=True, **chosen)
    *deltas, done = events
    assert len(deltas) > 3
    assert all(isinstance(event, TranscriptionTextDeltaEvent) for event in deltas)
    assert isinstance(done, TranscriptionTextDoneEvent)
    assert "".join(delta.delta for delta in deltas) == done.text == said(60)
    assert done.to_dict()["usage"] == {"type": "duration", "seconds": 30}
    assert {task.language for task in engine.tasks[:1]} == {fields.get("language")}


@both_clients
async def test_a_stream_has_logprobs_when_they_are_asked_for(kind: Kind) -> None:
    async with serving(Engine(), SHORT_WINDOWS) as url:
        *deltas, done = await ask(url, kind, file=LONG, stream=True, include=["logprobs"])
    parts = [entry for delta in deltas for entry in delta.logprobs]
    assert [entry.to_dict() for entry in parts] == [entry.to_dict() for entry in done.logprobs]
    assert "".join(entry.token for entry in parts).strip() == done.text
    assert {entry.logprob for entry in parts} == {round(math.log(0.9), 6)}


async def test_translations_are_streamed_as_well() -> None:
    async with serving() as url, httpx.AsyncClient(base_url=url) as client:
        answer = await client.post(
            "/audio/translations",
            files={"file": CLIP},
            data={"model": "whisper-1", "stream": "true"},
        )
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.text.count("data: ") == 2


async def test_silence_is_an_empty_text() -> None:
    settings = {"vad": {"threshold": 0.5}}
    async with serving(settings=settings) as url:
        quiet = wav(silence(1.5))
        assert (await ask(url, file=quiet)).text == ""
        assert await ask(url, file=quiet, response_format="text") == "\n"
        verbose = await ask(url, file=quiet, response_format="verbose_json")
        assert (verbose.language, verbose.segments, verbose.duration) == ("", [], 1.5)
        [done] = await ask(url, file=quiet, stream=True)
        assert (done.text, done.to_dict()["usage"]["seconds"]) == ("", 2)


async def test_segments_and_words_have_the_decodes_numbers() -> None:
    async with serving() as url:
        answer = await ask(
            url, response_format="verbose_json", timestamp_granularities=["word", "segment"]
        )
    first = answer.segments[0]
    assert first.to_dict() == {
        "id": 0,
        "seek": 0,
        "start": 0.1,
        "end": 1.0,
        "text": " Grüße, Welt",
        "tokens": [11, 12],
        "temperature": 0.2,
        "avg_logprob": -0.3,
        "compression_ratio": 1.1,
        "no_speech_prob": 0.05,
    }
    assert "".join(segment.text for segment in answer.segments).strip() == answer.text
    assert [word.to_dict() for word in answer.words] == [
        {"word": word.text.strip(), "start": word.start, "end": word.end} for word in WORDS
    ]
    assert len(answer.segments) == len(SEGMENTS)


async def test_words_have_logprobs_when_they_are_asked_for() -> None:
    async with serving() as url:
        answer = await ask(url, include=["logprobs"])
    first = answer.logprobs[0]
    assert bytes(map(int, first.bytes)).decode() == first.token == " Grüße,"
    assert first.logprob == pytest.approx(math.log(0.91234), abs=1e-6)
    assert "".join(entry.token for entry in answer.logprobs).strip() == answer.text


# What the engine is asked


async def test_without_fields_the_defaults_are_asked() -> None:
    task = await asked()
    assert (task.language, task.task, task.context, task.hotwords) == (None, "transcribe", "", "")
    assert (task.temperature, task.model) == (TemperaturePolicy(), "")


@both_endpoints
async def test_fields_reach_the_engine(endpoint: Endpoint) -> None:
    task = await asked(
        endpoint,
        **fields_of(
            endpoint,
            language="german",
            prompt="Dear friends",
            temperature=0.4,
            keywords=["Ray", "Serve"],
        ),
    )
    assert task.task == ("translate" if endpoint == "translations" else "transcribe")
    assert (task.language, task.context, task.hotwords) == ("de", "Dear friends", "Ray, Serve")
    assert task.temperature.temperatures == (0.4, 0.6, 0.8, 1.0)


async def test_one_language_of_many_is_the_language() -> None:
    assert (await asked(languages=["fr"])).language == "fr"


async def test_an_empty_language_is_detected() -> None:
    assert (await asked(language="")).language is None


async def test_of_a_long_prompt_the_end_counts() -> None:
    task = await asked(prompt="far away " * 5_000 + "the end")
    assert task.context.endswith("away the end")


@pytest.mark.parametrize("model", ["whisper-1", "base"])
async def test_the_default_model_has_several_names(model: str) -> None:
    assert (await asked(model=model)).model == ""


async def test_another_model_is_asked_for_by_name() -> None:
    port = FakePort()
    async with serving(port, {"models": ["tiny.en"]}) as url:
        await ask(url, model="tiny.en")
    assert port.tasks[0].model == "tiny.en"


async def test_the_clients_request_id_is_the_engines() -> None:
    port = FakePort()
    async with serving(port) as url, patient(url) as client:
        answer = await client.audio.transcriptions.with_raw_response.create(
            file=("a.wav", CLIP), model="whisper-1", extra_headers={"X-Request-ID": "r-1"}
        )
    assert answer.headers["x-request-id"] == port.tasks[0].request_id == "r-1"


# How speech is found


@pytest.fixture(scope="module")
def paused(sample: Path) -> bytes:
    """Ten seconds of speech, a pause of a second, and the same again."""
    with sample.open("rb") as file:
        speech = decode(file, accepted=(".wav",), max_duration_s=60.0)
    return wav(np.concatenate([silence(3.0), speech, silence(1.0), speech]))


async def heard_s(clip: bytes, **fields: Any) -> float:
    """Seconds that the engine hears."""
    port = FakePort()
    async with serving(port, {"vad": {}}) as url:
        await ask(url, file=clip, **fields)
    return sum(task.duration_s for task in port.tasks)


async def test_auto_is_the_configured_way(paused: bytes) -> None:
    as_configured = await heard_s(paused)
    assert await heard_s(paused, chunking_strategy="auto") == as_configured
    assert await heard_s(paused, chunking_strategy={"type": "server_vad"}) == as_configured


@pytest.mark.parametrize(
    ("settings", "more_s"),
    [
        ({"threshold": 0.999}, -0.5),
        ({"prefix_padding_ms": 600}, 0.4),
        ({"silence_duration_ms": 500}, -0.5),
        ({"silence_duration_ms": 10_000}, 0.0),
    ],
)
async def test_a_server_vad_takes_effect(
    paused: bytes, settings: dict[str, Any], more_s: float
) -> None:
    strategy = {"type": "server_vad", **settings}
    more = await heard_s(paused, chunking_strategy=strategy) - await heard_s(paused)
    assert more >= more_s if more_s >= 0 else more <= more_s


# Refusals


@both_clients
@pytest.mark.parametrize(
    ("fields", "param", "reason"),
    [
        ({"model": ""}, "model", "at least 1 character"),
        ({"model": " "}, "model", "should match"),
        ({"language": "klingon"}, "language", "does not know"),
        ({"languages": ["de", "fr"]}, "languages", "one language"),
        ({"language": "de", "languages": ["de"]}, "languages", "give one of them"),
        ({"response_format": "xml"}, "response_format", "'json', 'text'"),
        ({"response_format": "diarized_json"}, "response_format", "diarized_json: speakers"),
        ({"temperature": 1.5}, "temperature", "less than or equal to 1"),
        ({"temperature": float("nan")}, "temperature", "finite"),
        ({"timestamp_granularities": ["word"]}, "timestamp_granularities", "verbose_json"),
        ({"timestamp_granularities": ["syllable"]}, "timestamp_granularities", "'word' or"),
        ({"include": ["speakers"]}, "include", "logprobs"),
        ({"include": ["logprobs"], "response_format": "text"}, "include", "json"),
        ({"known_speaker_names": ["me"]}, "known_speaker_names", "not told apart"),
        ({"known_speaker_references": ["d"]}, "known_speaker_references", "not told apart"),
        ({"keywords": ["x" * 600] * 2}, "keywords", "more than 1,000"),
        ({"chunking_strategy": "none"}, "chunking_strategy", "`auto` or an object"),
        ({"chunking_strategy": {"type": "client"}}, "chunking_strategy.type", "server_vad"),
        (
            {"chunking_strategy": {"type": "server_vad", "threshold": 2}},
            "chunking_strategy.threshold",
            "less than or equal to 1",
        ),
        ({"extra_body": {"punctuate": True}}, "punctuate", "unknown parameter; known: file,"),
        ({"extra_query": {"prompt": "x"}}, "prompt", "not of the query"),
    ],
)
async def test_what_cannot_be_done_is_refused_by_name(
    kind: Kind, fields: dict[str, Any], param: str, reason: str
) -> None:
    port = FakePort()
    async with serving(port) as url:
        refusal = await refused(url, kind, **fields)
    assert isinstance(refusal, openai.BadRequestError)
    assert (refusal.param, refusal.code) == (param, "invalid_parameter")
    assert refusal.type == "invalid_request_error"
    assert reason in refusal.message
    assert port.tasks == []


@pytest.mark.parametrize("response_format", ["srt", "vtt", "verbose_json"])
async def test_only_text_is_streamed(response_format: str) -> None:
    async with serving() as url:
        refusal = await refused(url, response_format=response_format, stream=True)
    assert isinstance(refusal, openai.BadRequestError)
    assert refusal.param == "stream"


@pytest.mark.parametrize("response_format", ["json", "text", "srt", "vtt"])
async def test_only_verbose_json_has_words(response_format: str) -> None:
    async with serving() as url:
        refusal = await refused(
            url, response_format=response_format, timestamp_granularities=["word"]
        )
    assert refusal.param == "timestamp_granularities"


@both_endpoints
async def test_an_unknown_model_is_not_found(endpoint: Endpoint) -> None:
    async with serving() as url:
        refusal = await refused(url, endpoint=endpoint, model="gpt-9")
    assert isinstance(refusal, openai.NotFoundError)
    assert (refusal.code, refusal.param) == ("model_not_found", "model")
    assert "base" in refusal.message


@pytest.mark.parametrize(
    ("clip", "code"), [(b"", "empty_audio"), (b"no sound" * 99, "unreadable_audio")]
)
@pytest.mark.parametrize("stream", [True, False])
async def test_a_file_that_is_no_recording_is_refused(clip: bytes, code: str, stream: bool) -> None:
    async with serving() as url:
        refusal = await refused(url, file=clip, stream=stream)
    assert isinstance(refusal, openai.BadRequestError)
    assert (refusal.param, refusal.code) == ("file", code)


@both_clients
async def test_a_file_over_the_limit_is_refused_in_openais_words(kind: Kind) -> None:
    async with serving(settings={"openai": {"max_file_bytes": len(CLIP) - 1}}) as url:
        refusal = await refused(url, kind)
    assert type(refusal) is openai.APIStatusError
    assert (refusal.status_code, refusal.param) == (413, None)
    assert f"Maximum content size limit ({len(CLIP) - 1}) exceeded" in refusal.message


async def test_what_stands_around_the_file_does_not_count() -> None:
    async with serving(settings={"openai": {"max_file_bytes": len(CLIP)}}) as url:
        assert (await ask(url, prompt="far away " * 10_000)).text == TEXT


async def test_a_recording_that_is_too_long_is_refused() -> None:
    async with serving(settings={"limits": {"max_audio_s": 1.0}}) as url:
        refusal = await refused(url)
    assert (refusal.status_code, refusal.code, refusal.param) == (413, "audio_too_long", "file")


class Told(NamedTuple):
    """What the client makes of a failure."""

    exception: type[openai.APIStatusError]
    status: int
    code: str
    type: str


FAILURES: list[tuple[WhisperServeError, Told]] = [
    (
        InvalidKey("expired"),
        Told(openai.AuthenticationError, 401, "invalid_api_key", "invalid_request_error"),
    ),
    (TooManyStreams(3, 2.0), Told(openai.RateLimitError, 429, "rate_limit_exceeded", "requests")),
    (Overloaded(2.2), Told(openai.InternalServerError, 503, "overloaded", "server_error")),
    (
        EngineUnavailable(5.0),
        Told(openai.InternalServerError, 503, "engine_unavailable", "server_error"),
    ),
    (
        DeadlineExceeded(1.0),
        Told(openai.InternalServerError, 504, "deadline_exceeded", "server_error"),
    ),
    (
        EngineFailed("secret"),
        Told(openai.InternalServerError, 500, "engine_failed", "server_error"),
    ),
]


@both_clients
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("error", "told"), FAILURES, ids=lambda value: type(value).__name__)
async def test_a_failure_is_the_clients_own_exception(
    kind: Kind, stream: bool, error: WhisperServeError, told: Told
) -> None:
    async with serving(FakePort(error)) as url:
        refusal = await refused(url, kind, stream=stream)
    assert told == (type(refusal), refusal.status_code, refusal.code, refusal.type)
    assert "secret" not in refusal.message
    assert ("retry-after" in refusal.response.headers) == (told.status in {429, 503})


async def test_a_fault_of_ours_is_told_without_internals() -> None:
    async with serving(FakePort(RuntimeError("secret"))) as url:
        refusal = await refused(url)
    assert isinstance(refusal, openai.InternalServerError)
    assert (refusal.code, "secret" in refusal.message) == ("internal_error", False)


async def test_a_request_that_takes_too_long_is_given_up() -> None:
    engine = Engine(trouble=never)
    async with serving(engine, {"limits": {"request_timeout_s": 0.3}}) as url:
        for stream in (False, True):
            refusal = await refused(url, stream=stream)
            assert (refusal.status_code, refusal.code) == (504, "deadline_exceeded")
    assert engine.given_up == 2


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_a_wrong_method_and_a_wrong_path_have_the_envelope(method: str) -> None:
    async with serving() as url, httpx.AsyncClient(base_url=url) as client:
        for path, status, code in (
            ("/audio/transcriptions", 405, "method_not_allowed"),
            ("/audio/speech", 404, "not_found"),
        ):
            answer = await client.request(method, path)
            assert answer.status_code == status
            assert answer.json()["error"]["code"] == code
            assert answer.json()["error"].keys() == {"message", "type", "param", "code"}


# While a long recording is heard


async def never(_task: DecodeTask) -> None:
    await asyncio.Event().wait()


def gates(count: int) -> tuple[list[asyncio.Event], list[Callable[[DecodeTask], Awaitable[None]]]]:
    """Calls that wait, each for its own event."""
    events = [asyncio.Event() for _ in range(count)]

    def waiting(event: asyncio.Event) -> Callable[[DecodeTask], Awaitable[None]]:
        async def wait(_task: DecodeTask) -> None:
            await asyncio.wait_for(event.wait(), PATIENCE_S)

        return wait

    return events, [waiting(event) for event in events]


async def test_text_comes_while_the_rest_is_still_decoded() -> None:
    events, troubles = gates(30)
    engine = Engine(troubles)
    async with serving(engine, SHORT_WINDOWS) as url, patient(url) as client:
        events[0].set()
        stream = await streamed(client)
        text = ""
        for number in range(1, 4):
            text += delta_of(await asyncio.wait_for(anext(stream), PATIENCE_S))
            assert said(60).startswith(text)
            assert len(engine.tasks) <= number + 1
            events[number].set()
        for gate in events:
            gate.set()
        *deltas, done = [event async for event in stream]
    assert isinstance(done, TranscriptionTextDoneEvent)
    assert text + "".join(map(delta_of, deltas)) == done.text == said(60)


async def streamed(client: openai.AsyncOpenAI) -> openai.AsyncStream[TranscriptionStreamEvent]:
    return await client.audio.transcriptions.create(
        file=("long.wav", LONG), model="whisper-1", stream=True
    )


def delta_of(event: TranscriptionStreamEvent) -> str:
    assert isinstance(event, TranscriptionTextDeltaEvent)
    return event.delta


async def test_windows_side_by_side_are_streamed_in_order() -> None:
    async def late(task: DecodeTask) -> None:
        await asyncio.sleep(0.05)

    engine = Engine([None, late, None, late])
    settings = {"chunking": {"chunk_duration": 5.0, "use_context": False}}
    async with serving(engine, settings) as url:
        *deltas, done = await ask(url, file=LONG, stream=True)
    assert "".join(delta.delta for delta in deltas) == done.text == said(60)


@both_clients
@pytest.mark.parametrize(
    ("trouble", "code"),
    [
        (Overloaded(1.0), "overloaded"),
        (EngineFailed("secret"), "engine_failed"),
        (RuntimeError("secret"), "internal_error"),
    ],
)
async def test_a_failure_in_the_middle_is_raised_by_the_client(
    kind: Kind, trouble: Exception, code: str
) -> None:
    engine = Engine([None, None], trouble=trouble)
    async with serving(engine, SHORT_WINDOWS) as url:
        with pytest.raises(openai.APIError) as raised:
            await ask(url, kind, file=LONG, stream=True)
    assert not isinstance(raised.value, openai.APIStatusError)
    body = raised.value.body
    assert isinstance(body, dict)
    assert body["code"] == raised.value.code == code
    assert (raised.value.type, "secret" in raised.value.message) == ("server_error", False)


async def test_text_before_a_failure_was_sent() -> None:
    engine = Engine([None, None], trouble=Overloaded(1.0))
    async with serving(engine, SHORT_WINDOWS) as url, patient(url) as client:
        stream = await streamed(client)
        text = delta_of(await anext(stream)) + delta_of(await anext(stream))
        with pytest.raises(openai.APIError, match="at its capacity"):
            await anext(stream)
    assert text
    assert said(60).startswith(text)


async def test_the_time_of_a_request_is_limited_in_a_stream_too() -> None:
    engine = Engine([None], trouble=never)
    settings = {**SHORT_WINDOWS, "limits": {"request_timeout_s": 0.5}}
    async with serving(engine, settings) as url:
        with pytest.raises(openai.APIError, match="not done within"):
            await ask(url, file=LONG, stream=True)
    assert engine.given_up == 1


async def until(fact: Callable[[], bool]) -> None:
    async def wait() -> None:
        while not fact():  # noqa: ASYNC110 - an engine does not tell
            await asyncio.sleep(0.005)

    await asyncio.wait_for(wait(), PATIENCE_S)


@pytest.mark.parametrize("use_context", [True, False])
async def test_a_client_that_goes_away_gives_up_what_waits(use_context: bool) -> None:
    engine = Engine([None], trouble=never)
    settings = {"chunking": {"chunk_duration": 5.0, "use_context": use_context}}
    async with serving(engine, settings) as url:
        async with patient(url) as client:
            stream = await streamed(client)
            await anext(stream)
            waiting = 1 if use_context else 4
            await until(lambda: len(engine.tasks) == 1 + waiting)
            await stream.close()
        await until(lambda: engine.given_up == waiting)
        assert len(engine.tasks) == 1 + waiting


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_goes_away_before_any_text_gives_up_what_waits(stream: bool) -> None:
    engine = Engine(trouble=never)
    async with serving(engine, SHORT_WINDOWS) as url:
        asking = asyncio.ensure_future(ask(url, file=LONG, stream=stream))
        await until(lambda: len(engine.tasks) == 1)
        asking.cancel()
        await until(lambda: engine.given_up == 1)
        with pytest.raises(asyncio.CancelledError):
            await asking


async def test_requests_do_not_wait_for_each_other() -> None:
    there = 0
    all_there = asyncio.Event()

    async def wait_for_others(_task: DecodeTask) -> Hypothesis:
        nonlocal there
        there += 1
        if there == 4:
            all_there.set()
        await asyncio.wait_for(all_there.wait(), PATIENCE_S)
        return HEARD

    async with serving(FakePort(wait_for_others)) as url:
        kinds: list[Kind] = ["sync", "async"]
        calls = [ask(url, kind, stream=stream) for kind in kinds for stream in (False, True)]
        answers = await asyncio.gather(*calls)
    texts = [answer[-1].text if isinstance(answer, list) else answer.text for answer in answers]
    assert texts == [TEXT] * 4


async def test_a_field_may_be_written_without_brackets_too() -> None:
    async with serving() as url, httpx.AsyncClient(base_url=url) as client:
        answer = await client.post(
            "/audio/transcriptions",
            files={"file": wav(tone(2.0))},
            data={
                "model": "whisper-1",
                "response_format": "verbose_json",
                "timestamp_granularities": ["word", "segment"],
                "chunking_strategy": '{"type": "server_vad", "threshold": 1e-6}',
            },
        )
    assert {"words", "segments"} <= answer.json().keys()
