"""OpenAI's own clients against the running service: real weights, real Ray Serve, real HTTP."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jiwer
import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.audio import TranscriptionTextDoneEvent
from whisper.normalizers import EnglishTextNormalizer
from whisper.tokenizer import get_tokenizer

from tests.audio.clips import wav
from tests.conftest import SAMPLE_WORDS
from tests.serving.conftest import REQUEST_TIMEOUT_S, Deploy, Service
from whisper_serve.audio.decode import decode
from whisper_serve.audio.pcm import SAMPLE_RATE

pytestmark = [
    pytest.mark.server,
    pytest.mark.weights,
    # OpenAI's client says so of its translations.
    pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning"),
]

LONG = "long/3526-176653.flac"
MAX_FILE_BYTES = 4 * 2**20
normalize = EnglishTextNormalizer()


@pytest.fixture(scope="module")
def service(deploy: Deploy) -> Service:
    return deploy("openai", {"openai": {"max_file_bytes": MAX_FILE_BYTES}})


@pytest.fixture
def client(service: Service) -> Iterator[OpenAI]:
    with OpenAI(**options(service)) as client:
        yield client


def options(service: Service) -> dict[str, Any]:
    return {
        "api_key": "any",
        "base_url": f"{service.url}/v1",
        "max_retries": 0,
        "timeout": REQUEST_TIMEOUT_S,
    }


def transcribed(client: OpenAI, recording: Path, **fields: Any) -> Any:
    return client.audio.transcriptions.create(file=recording, model="whisper-1", **fields)


def test_the_models_are_told(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["base", "whisper-1"]
    assert client.models.retrieve("whisper-1").id == "whisper-1"


def test_the_sample_gives_its_words_in_every_form(client: OpenAI, sample: Path) -> None:
    answer = transcribed(client, sample)
    assert normalize(answer.text) == SAMPLE_WORDS
    assert (answer.usage.type, answer.usage.seconds) == ("duration", 10)
    assert transcribed(client, sample, response_format="text") == f"{answer.text}\n"
    assert transcribed(client, sample, response_format="srt").startswith("1\n00:00:0")
    assert transcribed(client, sample, response_format="vtt").startswith("WEBVTT\n\n00:00:0")


@pytest.mark.parametrize(
    "granularities", [[], ["segment"], ["word"], ["word", "segment"]], ids=" and ".join
)
def test_verbose_json_has_the_times_that_are_asked_for(
    client: OpenAI, sample: Path, granularities: list[str]
) -> None:
    chosen = {"timestamp_granularities": granularities} if granularities else {}
    answer = transcribed(client, sample, response_format="verbose_json", **chosen)
    assert (answer.language, normalize(answer.text)) == ("english", SAMPLE_WORDS)
    assert answer.duration == pytest.approx(9.96, abs=0.01)
    if "word" in granularities:
        assert normalize(" ".join(word.word for word in answer.words)) == SAMPLE_WORDS
        edges = [edge for word in answer.words for edge in (word.start, word.end)]
        assert edges == sorted(edges)
    else:
        assert answer.words is None
    if granularities == ["word"]:
        assert answer.segments is None
    else:
        first = answer.segments[0]
        assert (first.id, type(first.seek), bool(first.tokens)) == (0, int, True)
        assert -1 < first.avg_logprob < 0
        assert 0 < first.compression_ratio < 2.4


def test_numbers_are_those_of_the_decode(client: OpenAI, corpus: Path) -> None:
    """Windows are cut in the middle of what they hear, and what is cut off is not told."""
    with (corpus / LONG).open("rb") as file:
        minute = decode(file, accepted=(".flac",), max_duration_s=600.0)[: 60 * SAMPLE_RATE]
    answer = client.audio.transcriptions.create(
        file=("minute.wav", wav(minute)),
        model="whisper-1",
        language="en",
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
    )
    segments, words = answer.segments or [], answer.words or []
    decoded = get_tokenizer(multilingual=True).decode
    assert [decoded(segment.tokens) for segment in segments] == [s.text for s in segments]
    seeks = [segment.seek for segment in segments]
    assert seeks == sorted(seeks)
    assert len(set(seeks)) > 1
    assert all(segment.seek / 100 <= segment.start + 0.001 <= segment.end for segment in segments)
    assert all(0 <= s.temperature <= 1 and 0 <= s.no_speech_prob <= 1 for s in segments)
    starts = [word.start for word in words]
    assert {segment.start for segment in segments} <= set(starts)
    written = "".join(segment.text for segment in segments)
    assert written.replace(" ", "") == "".join(word.word for word in words)


def test_every_word_has_a_logprob(client: OpenAI, sample: Path) -> None:
    answer = transcribed(client, sample, include=["logprobs"])
    assert "".join(entry.token for entry in answer.logprobs).strip() == answer.text
    assert all(-20 < entry.logprob <= 0 for entry in answer.logprobs)


def test_a_language_and_a_way_to_find_speech_may_be_given(client: OpenAI, sample: Path) -> None:
    answer = transcribed(
        client,
        sample,
        language="en",
        keywords=["Beckett"],
        temperature=0,
        chunking_strategy={"type": "server_vad", "threshold": 0.4, "silence_duration_ms": 700},
    )
    assert normalize(answer.text) == SAMPLE_WORDS


def test_translation_writes_english(client: OpenAI, corpus: Path) -> None:
    answer = client.audio.translations.create(
        file=corpus / "fleurs/fleurs-es-000.ogg", model="whisper-1", response_format="verbose_json"
    )
    assert answer.language == "english"
    assert {"the", "of", "and"} & set(normalize(answer.text).split())


def test_a_long_recording_comes_while_it_is_decoded(client: OpenAI, corpus: Path) -> None:
    stream = client.audio.transcriptions.create(
        file=corpus / LONG, model="whisper-1", language="en", stream=True
    )
    began, arrivals, deltas = time.monotonic(), [], []
    for event in stream:
        arrivals.append(time.monotonic() - began)
        deltas.append(getattr(event, "delta", ""))
    assert isinstance(event, TranscriptionTextDoneEvent)
    assert "".join(deltas) == event.text
    *_, last_delta, _ = arrivals
    early = [arrival for arrival in arrivals if arrival < last_delta / 2]
    assert len(early) >= 2, arrivals
    manifest = json.loads((corpus / "librispeech.json").read_text())
    spoken = next(entry["text"] for entry in manifest if entry["file"] == LONG)
    assert jiwer.wer(normalize(spoken), normalize(event.text)) < 0.06


def test_a_client_that_goes_away_leaves_the_engines_idle(
    client: OpenAI, service: Service, corpus: Path
) -> None:
    stream = client.audio.transcriptions.create(
        file=corpus / LONG, model="whisper-1", language="en", stream=True
    )
    assert next(stream).type == "transcript.text.delta"
    stream.close()
    deadline = time.monotonic() + 20
    idle = 0
    while idle < 4:
        load = service.client.get("/health").json()
        idle = idle + 1 if load["windows_running"] == load["windows_waiting"] == 0 else 0
        assert time.monotonic() < deadline
        time.sleep(0.1)


async def test_many_at_once_are_answered(service: Service, sample: Path) -> None:
    async with AsyncOpenAI(**options(service)) as client:
        calls = [
            client.audio.transcriptions.create(file=sample, model=model, language="en")
            for model in ("base", "whisper-1", "base")
        ]
        texts = {answer.text for answer in await asyncio.gather(*calls)}
    assert len(texts) == 1


@pytest.mark.parametrize(
    ("fields", "kind", "param"),
    [
        ({"model": "gpt-9"}, openai.NotFoundError, "model"),
        ({"response_format": "diarized_json"}, openai.BadRequestError, "response_format"),
        ({"file": b"no sound" * 99}, openai.BadRequestError, "file"),
        ({"file": bytes(MAX_FILE_BYTES + 1)}, openai.APIStatusError, None),
        ({"file": b"no sound" * 99, "stream": True}, openai.BadRequestError, "file"),
    ],
)
def test_refusals_are_the_clients_own_exceptions(
    client: OpenAI,
    sample: Path,
    fields: dict[str, Any],
    kind: type[openai.APIStatusError],
    param: str | None,
) -> None:
    with pytest.raises(openai.APIStatusError) as raised:
        client.audio.transcriptions.create(**{"file": sample, "model": "whisper-1", **fields})
    assert (type(raised.value), raised.value.param) == (kind, param)


def test_a_path_that_is_not_there_has_openais_envelope(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as raised:
        client.embeddings.create(model="base", input="x")
    assert raised.value.code == "not_found"
