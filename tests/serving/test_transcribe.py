"""Real recordings through the running service: real weights, real Ray Serve, real HTTP."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jiwer
import pytest
from whisper.normalizers import EnglishTextNormalizer

from tests.conftest import SAMPLE_WORDS
from tests.serving.conftest import Service

pytestmark = [pytest.mark.server, pytest.mark.weights]

PROMISED = {"success", "text", "latency", "word_count", "gpu_memory", "error"}
JFK = (
    "and so my fellow americans ask not what your country can do for you "
    "ask what you can do for your country"
)
normalize = EnglishTextNormalizer()


@pytest.fixture
def service(real: Service) -> Service:
    return real


def transcribe(service: Service, recording: Path, **fields: Any) -> dict[str, Any]:
    with recording.open("rb") as file:
        answer = service.client.post("/transcribe", files={"audio_file": file}, data=fields)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def test_the_sample_gives_its_words(service: Service, sample: Path) -> None:
    body = transcribe(service, sample)
    assert normalize(body["text"]) == SAMPLE_WORDS
    assert body.keys() >= PROMISED
    assert body["success"] is True
    assert body["error"] is None
    assert body["language"] == "en"
    assert body["word_count"] == len(SAMPLE_WORDS.split())
    assert body["gpu_memory"] == 0.0
    assert body["latency"] > 0


def test_words_come_in_order_within_the_recording(service: Service, sample: Path) -> None:
    body = transcribe(service, sample, word_timestamps="true")
    words = body["words"]
    assert normalize(" ".join(word["word"] for word in words)) == SAMPLE_WORDS
    edges = [edge for word in words for edge in (word["start"], word["end"])]
    assert edges == sorted(edges)
    assert 0 <= edges[0] <= edges[-1] <= body["duration"]
    assert all(0 < word["probability"] <= 1 for word in words)


def test_the_bare_file_as_body_gives_the_same(service: Service, sample: Path) -> None:
    for content_type in ("audio/wav", "application/octet-stream"):
        answer = service.client.post(
            "/transcribe", content=sample.read_bytes(), headers={"Content-Type": content_type}
        )
        assert normalize(answer.json()["text"]) == SAMPLE_WORDS


@pytest.mark.parametrize(
    ("response_format", "content_type", "beginning"),
    [
        ("text", "text/plain", r"\w"),
        ("srt", "application/x-subrip", r"1\n00:00:0\d,\d{3} --> 00:00:\d\d,\d{3}\n\w"),
        ("vtt", "text/vtt", r"WEBVTT\n\n00:00:0\d\.\d{3} --> 00:00:\d\d\.\d{3}\n\w"),
    ],
)
def test_plain_formats_are_plain_bodies(
    service: Service, sample: Path, response_format: str, content_type: str, beginning: str
) -> None:
    answer = service.client.post(
        "/transcribe",
        params={"response_format": response_format},
        files={"file": sample.read_bytes()},
    )
    assert answer.headers["content-type"].startswith(content_type)
    assert re.match(beginning, answer.text)
    assert "fail better" in normalize(answer.text)


def test_the_verbose_form_has_the_decodes_numbers(service: Service, sample: Path) -> None:
    segment = transcribe(service, sample, response_format="verbose_json")["segments"][0]
    assert segment["tokens"]
    assert -1 < segment["avg_logprob"] < 0
    assert 0 < segment["compression_ratio"] < 2.4
    assert 0 <= segment["no_speech_prob"] < 0.6


def test_the_clients_request_id_comes_back_once(service: Service, sample: Path) -> None:
    answer = service.client.post(
        "/transcribe",
        files={"audio_file": sample.read_bytes()},
        headers={"X-Request-ID": "my-own-id"},
    )
    assert answer.headers.get_list("x-request-id") == ["my-own-id"]
    assert answer.json()["request_id"] == "my-own-id"


def test_health_names_the_engine(service: Service) -> None:
    body = service.client.get("/health").json()
    assert body["status"] == "healthy"
    assert (body["engine"], body["model"], body["device"]) == ("ctranslate2", "base", "cpu")
    assert service.client.get("/readyz").status_code == 200
    assert service.client.get("/livez").json() == {"status": "alive"}


def test_the_api_describes_itself(service: Service) -> None:
    assert service.client.get("/docs").status_code == 200
    assert "/transcribe" in service.client.get("/openapi.json").json()["paths"]


def test_ten_at_once_give_what_one_at_a_time_gives(service: Service, corpus: Path) -> None:
    recordings = sorted((corpus / "utterances").iterdir())[::6]
    assert len(recordings) == 10
    alone = [transcribe(service, recording)["text"] for recording in recordings]
    with ThreadPoolExecutor(10) as pool:
        together = pool.map(lambda recording: transcribe(service, recording)["text"], recordings)
    assert list(together) == alone


def test_every_container_gives_the_same_words(service: Service, corpus: Path) -> None:
    """One word of the second clip is heard in two ways: what a codec takes away can decide."""
    for stem in ("jfk", "audioformats_p001"):
        files = [f for f in sorted((corpus / "formats").glob(f"{stem}.*")) if f.stat().st_size]
        texts = {file.suffix: normalize(transcribe(service, file)["text"]) for file in files}
        words = {name: text.replace("and crease", "increase") for name, text in texts.items()}
        assert len(set(words.values())) == 1, words
    assert normalize(transcribe(service, corpus / "formats/jfk.mp3")["text"]) == JFK


def test_each_language_is_detected(service: Service, corpus: Path) -> None:
    clips = sorted((corpus / "fleurs").glob("*.ogg"))
    detected = {clip.name: transcribe(service, clip)["language"] for clip in clips}
    assert detected == {clip.name: clip.name.split("-")[1] for clip in clips}


def test_no_speech_gives_no_text(service: Service, corpus: Path) -> None:
    for clip in sorted((corpus / "nonspeech").iterdir()):
        body = transcribe(service, clip)
        assert (body["text"], body["word_count"], body["segments"]) == ("", 0, [])
        assert body["duration"] > 10


@pytest.mark.parametrize("use_context", ["true", "false"])
def test_a_long_recording_is_whole(service: Service, corpus: Path, use_context: str) -> None:
    manifest = json.loads((corpus / "librispeech.json").read_text())
    entry = next(entry for entry in manifest if entry["file"] == "long/669-129074.flac")
    body = transcribe(service, corpus / entry["file"], use_context=use_context)
    errors = jiwer.process_words(normalize(entry["text"]), normalize(body["text"]))
    assert errors.wer < 0.06
    assert errors.deletions < 10
    assert body["segments"][-1]["end"] == pytest.approx(entry["seconds"], abs=2.0)


def test_translation_writes_english(service: Service, corpus: Path) -> None:
    body = transcribe(service, corpus / "fleurs/fleurs-es-000.ogg", task="translate")
    assert body["language"] == "es"
    assert {"the", "of", "and"} & set(normalize(body["text"]).split())
