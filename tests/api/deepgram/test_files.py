"""A recording in a request's body, as bare HTTP and through Deepgram's own client."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
import numpy as np
import pytest
from deepgram.core.api_error import ApiError
from deepgram.errors import BadRequestError
from deepgram.types import ListenV1Response

from tests.api.deepgram.service import OLD_NAMES, ListenServer, app_of, listening
from tests.api.fakes import CLIP, TEXT, FakePort, Spool, client_of
from tests.api.streams import for_ever, words
from tests.audio.clips import Recipe, silence, tone, wav
from whisper_serve import __version__
from whisper_serve.api.deepgram.answers import ServedModel
from whisper_serve.engines.base import DecodeTask
from whisper_serve.errors import EngineFailed, Overloaded
from whisper_serve.text.transcript import Hypothesis

pytestmark = pytest.mark.filterwarnings(OLD_NAMES)
Query = Mapping[str, str | list[str]]
OCTETS = {"content-type": "application/octet-stream"}
LOUD = tone(1.0)


async def listen(
    body: bytes = CLIP,
    port: FakePort | None = None,
    *,
    query: Query | None = None,
    headers: Mapping[str, str] = OCTETS,
    settings: Mapping[str, Any] | None = None,
) -> httpx.Response:
    async with client_of(app_of(port or FakePort(), settings or {})) as client:
        return await client.post(
            "/v1/listen", content=body, params=dict(query or {}), headers=headers
        )


async def asked(**query: str | list[str]) -> DecodeTask:
    """What the engine is asked."""
    port = FakePort()
    assert (await listen(port=port, query=query)).status_code == 200
    return port.tasks[0]


def alternative_of(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    [channel] = answer.json()["results"]["channels"]
    [alternative] = channel["alternatives"]
    assert isinstance(alternative, dict)
    return alternative


def is_refused(answer: httpx.Response, status: int, code: str, named: str) -> bool:
    body = answer.json()
    assert body.keys() == {"err_code", "err_msg", "request_id"}
    assert body["request_id"] == answer.headers["dg-request-id"]
    assert named in body["err_msg"]
    return (answer.status_code, body["err_code"]) == (status, code)


# The answer


async def test_a_recording_is_answered_with_its_words_and_with_what_heard_them() -> None:
    answer = await listen(query={"smart_format": "true"})
    assert answer.status_code == 200
    body = answer.json()
    created = body["metadata"].pop("created")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]{8}\.\d{3}Z", created)
    uuid = ServedModel("base").uuid
    assert body == {
        "metadata": {
            "transaction_key": "deprecated",
            "request_id": answer.headers["dg-request-id"],
            "sha256": hashlib.sha256(CLIP).hexdigest(),
            "duration": 2.0,
            "channels": 1,
            "models": [uuid],
            "model_info": {uuid: {"name": "base", "version": __version__, "arch": "whisper"}},
        },
        "results": {
            "channels": [
                {
                    "alternatives": [
                        {
                            "transcript": TEXT,
                            "confidence": 0.8041,
                            "words": [
                                {
                                    "word": "grüße",
                                    "start": 0.1,
                                    "end": 0.6,
                                    "confidence": 0.9123,
                                    "punctuated_word": "Grüße,",
                                },
                                {
                                    "word": "welt",
                                    "start": 0.6,
                                    "end": 1.0,
                                    "confidence": 0.8,
                                    "punctuated_word": "Welt",
                                },
                                {
                                    "word": "alle",
                                    "start": 1.1,
                                    "end": 1.9,
                                    "confidence": 0.7,
                                    "punctuated_word": "& <alle>.",
                                },
                            ],
                        }
                    ]
                }
            ]
        },
    }


@pytest.mark.parametrize("query", [{}, {"punctuate": "false", "smart_format": "false"}])
async def test_unformatted_text_is_bare_words(query: dict[str, str]) -> None:
    alternative = alternative_of(await listen(query=query))
    assert alternative["transcript"] == "grüße welt alle"
    assert all("punctuated_word" not in word for word in alternative["words"])


@pytest.mark.parametrize("query", [{"punctuate": "true"}, {"smart_format": "true"}])
async def test_either_switch_gives_whisper_s_text(query: dict[str, str]) -> None:
    assert alternative_of(await listen(query=query))["transcript"] == TEXT


async def test_the_language_is_told_to_who_asks_for_it() -> None:
    [channel] = (await listen(query={"detect_language": "true"})).json()["results"]["channels"]
    assert (channel["detected_language"], channel["language_confidence"]) == ("de", 0.9877)
    for query in ({}, {"detect_language": "false"}, {"language": "de"}):
        [channel] = (await listen(query=query)).json()["results"]["channels"]
        assert channel.keys() == {"alternatives"}


async def test_multilingual_text_tells_its_languages() -> None:
    assert alternative_of(await listen(query={"language": "multi"}))["languages"] == ["de"]


async def test_labels_come_back() -> None:
    answer = await listen(
        query={"tag": ["a", "b"], "extra": "key:value", "mip_opt_out": "true", "version": "latest"}
    )
    metadata = answer.json()["metadata"]
    assert (metadata["tags"], metadata["extra"]) == (["a", "b"], {"key": "value"})


async def test_silence_has_no_words() -> None:
    answer = await listen(wav(silence(1.0)), FakePort(Hypothesis((), "en", 0.5)))
    assert alternative_of(answer) == {"transcript": "", "confidence": 0.0, "words": []}


# What the engine is asked


@pytest.mark.parametrize(
    ("language", "code"), [("de", "de"), ("pt-BR", "pt"), ("multi", None), ("", None)]
)
async def test_the_language_reaches_the_engine(language: str, code: str | None) -> None:
    assert (await asked(language=language)).language == code


async def test_without_a_language_it_is_detected() -> None:
    assert (await asked()).language is None
    assert (await asked(detect_language="true")).language is None


async def test_terms_reach_the_engine() -> None:
    assert (await asked(keyterm=["Ray", "Silero"], keywords="Triton:2")).hotwords == (
        "Ray, Silero, Triton"
    )


async def test_the_model_reaches_the_engine() -> None:
    settings = {"model": {"size": "base"}, "models": ["large-v3"]}
    names = [("nova-3", "", "base"), ("whisper-large", "large-v3", "large-v3")]
    for name, expected, told in names:
        port = FakePort()
        answer = await listen(port=port, settings=settings, query={"model": name})
        assert port.tasks[0].model == expected
        [info] = answer.json()["metadata"]["model_info"].values()
        assert info["name"] == told


# The body


@pytest.mark.parametrize(
    "content_type", ["audio/wav", "video/mp4", "application/octet-stream", "text/plain", None]
)
async def test_a_recording_may_have_any_type(content_type: str | None) -> None:
    headers = {"content-type": content_type} if content_type else {"accept": "*/*"}
    assert alternative_of(await listen(headers=headers))["words"]


@pytest.mark.parametrize(
    ("content_type", "named"),
    [
        ("application/json", "url"),
        ("application/json; charset=utf-8", "url"),
        ("multipart/form-data; boundary=x", "multipart/form-data"),
    ],
)
async def test_what_holds_no_recording_is_refused(content_type: str, named: str) -> None:
    answer = await listen(b'{"url": "http://test/"}', headers={"content-type": content_type})
    assert is_refused(answer, 400, "Bad Request", named)


@pytest.mark.parametrize(
    ("encoding", "rate", "body"),
    [
        ("linear16", 16_000, LOUD.tobytes()),
        ("linear32", 16_000, (LOUD / np.float32(32768)).tobytes()),
        ("mulaw", 8_000, Recipe("mulaw", "pcm_mulaw", 8_000).tone(1.0)),
        ("alaw", 8_000, Recipe("alaw", "pcm_alaw", 8_000).tone(1.0)),
    ],
)
async def test_bare_audio_is_heard_as_what_it_is_said_to_be(
    encoding: str, rate: int, body: bytes
) -> None:
    port = FakePort()
    answer = await listen(body, port, query={"encoding": encoding, "sample_rate": str(rate)})
    metadata = answer.json()["metadata"]
    assert metadata["duration"] == pytest.approx(1.0, abs=0.01)
    assert metadata["sha256"] == hashlib.sha256(body).hexdigest()
    heard = port.tasks[0].samples[1_000:15_000].astype(float)
    assert np.corrcoef(heard, LOUD[1_000:15_000])[0, 1] > 0.99


async def test_two_channels_of_bare_audio_are_mixed_down() -> None:
    bare = {"encoding": "linear16", "sample_rate": "16000", "channels": "2"}
    answer = await listen(np.repeat(LOUD, 2).tobytes(), query=bare)
    assert answer.json()["metadata"]["duration"] == 1.0


@pytest.mark.parametrize("encoding", ["flac", "ogg-opus"])
async def test_what_has_a_header_is_judged_by_it(encoding: str) -> None:
    assert alternative_of(await listen(query={"encoding": encoding}))["words"]


@pytest.mark.parametrize(
    ("body", "named"),
    [(b"", "empty"), (b"nothing to hear", "not audio"), (CLIP[:-40_000], "incomplete")],
)
async def test_what_cannot_be_heard_is_refused(body: bytes, named: str) -> None:
    assert is_refused(await listen(body), 400, "Bad Request", named)


async def test_bare_audio_without_a_byte_is_empty() -> None:
    answer = await listen(b"", query={"encoding": "mulaw", "sample_rate": "8000"})
    assert is_refused(answer, 400, "Bad Request", "empty")


async def test_more_than_the_limit_is_refused() -> None:
    settings = {"limits": {"max_upload_bytes": 1_000}}
    answer = await listen(bytes(1_001), settings=settings)
    assert is_refused(answer, 413, "Payload Too Large", "1,000 bytes")


async def test_nothing_is_left_of_a_recording(spools: list[Spool]) -> None:
    await listen()
    await listen(b"nothing to hear")
    assert len(spools) == 2
    assert all(spool.closed for spool in spools)


# Failures


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ({"diarize": "true"}, "diarize"),
        ({"callback": "http://test/"}, "callback"),
        ({"utterances": "true"}, "utterances"),
        ({"channels": "9"}, "channels"),
        ({"sped": "2"}, "sped"),
    ],
    ids=str,
)
async def test_a_wrong_parameter_is_refused_before_the_body_is_read(
    query: dict[str, str], named: str
) -> None:
    port = FakePort()
    answer = await listen(b"nothing to hear", port, query=query)
    assert is_refused(answer, 400, "INVALID_QUERY_PARAMETER", f"{named}: ")
    assert port.tasks == []


async def test_a_model_that_is_not_served_is_refused() -> None:
    assert is_refused(await listen(query={"model": "small"}), 400, "Bad Request", "No such model")


async def test_an_engine_s_failure_is_ours_and_tells_nothing() -> None:
    answer = await listen(port=FakePort(EngineFailed("a secret")))
    assert is_refused(answer, 500, "Internal Server Error", "failed inside the engine")


async def test_a_fault_of_ours_tells_nothing() -> None:
    answer = await listen(port=FakePort(ValueError("a secret")))
    assert is_refused(answer, 500, "Internal Server Error", "unexpectedly")


async def test_who_comes_when_there_is_no_room_may_come_back() -> None:
    answer = await listen(port=FakePort(Overloaded(7.0)))
    assert is_refused(answer, 503, "Service Unavailable", "capacity")
    assert answer.headers["retry-after"] == "7"


async def test_what_takes_too_long_is_given_up() -> None:
    async def never(task: DecodeTask) -> Hypothesis:
        await for_ever(task)
        raise AssertionError

    settings = {"limits": {"request_timeout_s": 0.1}}
    answer = await listen(port=FakePort(never), settings=settings)
    assert is_refused(answer, 504, "Gateway Timeout", "0.1 s")


# Through Deepgram's own client


async def test_the_client_gets_what_was_said() -> None:
    async with listening() as server, server.sdk() as sdk:
        answer = await sdk.listen.v1.media.transcribe_file(
            request=wav(words(3)), model="nova-3", smart_format=True, detect_language=True
        )
    assert isinstance(answer, ListenV1Response)
    assert (answer.metadata.duration, answer.metadata.channels) == (1.5, 1)
    assert answer.metadata.created.tzinfo is not None
    [channel] = answer.results.channels
    assert channel.detected_language == "en"
    assert channel.alternatives is not None
    assert channel.alternatives[0].transcript == "w0 w1 w2"
    assert channel.alternatives[0].words is not None
    assert [word.start for word in channel.alternatives[0].words] == [0.1, 0.6, 1.1]


async def test_the_client_may_send_a_recording_in_pieces() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        clip = wav(words(3))
        for first in range(0, len(clip), 10_000):
            yield clip[first : first + 10_000]

    async with listening() as server, server.sdk() as sdk:
        answer = await sdk.listen.v1.media.transcribe_file(request=pieces(), keyterm=["Ray", "a b"])
    assert isinstance(answer, ListenV1Response)
    assert answer.metadata.sha256 == hashlib.sha256(wav(words(3))).hexdigest()


async def test_the_client_raises_what_is_refused() -> None:
    async with listening() as server, server.sdk() as sdk:
        media = sdk.listen.v1.media
        with pytest.raises(BadRequestError) as refused:
            await media.transcribe_file(request=CLIP, diarize=True)
        with pytest.raises(BadRequestError) as fetched:
            await media.transcribe_url(url="http://test/clip.wav")
    assert isinstance(refused.value.body, dict)
    assert refused.value.body["err_code"] == "INVALID_QUERY_PARAMETER"
    assert "diarize" in refused.value.body["err_msg"]
    assert isinstance(fetched.value.body, dict)
    assert "url" in fetched.value.body["err_msg"]


async def test_the_client_raises_what_is_too_large() -> None:
    async with (
        listening(settings={"limits": {"max_upload_bytes": 100}}) as server,
        server.sdk() as sdk,
    ):
        with pytest.raises(ApiError) as caught:
            await sdk.listen.v1.media.transcribe_file(request=CLIP)
    assert caught.value.status_code == 413


async def test_the_blocking_client_gets_the_same() -> None:
    def transcribe(server: ListenServer) -> Any:
        with server.blocking_sdk() as sdk:
            return sdk.listen.v1.media.transcribe_file(request=wav(words(2)), punctuate=True)

    async with listening() as server:
        answer = await asyncio.to_thread(transcribe, server)
    assert answer.results.channels[0].alternatives[0].transcript == "w0 w1"
