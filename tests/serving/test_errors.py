"""What a client does wrong gets a clear answer from the running service, and costs little."""

from __future__ import annotations

import io
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
import psutil
import pytest
from pydub import AudioSegment
from pydub.generators import Sine

from tests.serving.conftest import Deploy, Service
from tests.serving.scripted import build_slow, notes

pytestmark = pytest.mark.server

MEGABYTE = 2**20
LIMIT = 8 * MEGABYTE
PROMISED = {"success", "text", "latency", "word_count", "gpu_memory", "error"}
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360"
    "000002000001e221bc330000000049454e44ae426082"
)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch")


@pytest.fixture(scope="module")
def service(deploy: Deploy, scratch: Path) -> Service:
    settings: dict[str, dict[str, Any]] = {
        "model": {"model_dir": str(scratch)},
        "limits": {"max_upload_bytes": LIMIT, "max_audio_s": 60.0},
    }
    return deploy("errors", settings, build_slow)


@pytest.fixture(scope="module")
def speech(sample: Path) -> AudioSegment:
    return AudioSegment.from_wav(io.BytesIO(sample.read_bytes()))


def wav(audio: AudioSegment) -> bytes:
    file = io.BytesIO()
    audio.export(file, format="wav")
    return file.getvalue()


def mp3(audio: AudioSegment) -> bytes:
    """With PyAV, since pydub would need FFmpeg's command."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp3") as container:
        stream = container.add_stream("libmp3lame", rate=audio.frame_rate, layout="mono")
        samples = np.array(audio.set_channels(1).get_array_of_samples(), np.int16)
        frame = av.AudioFrame.from_ndarray(samples[np.newaxis], format="s16", layout="mono")
        frame.sample_rate = audio.frame_rate
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)
    return file.getvalue()


def video_without_audio() -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)
    return file.getvalue()


def refused(answer: httpx.Response, status: int, pattern: str) -> None:
    body = answer.json()
    assert answer.status_code == status, body
    assert body.keys() >= PROMISED
    assert (body["success"], body["text"], body["word_count"]) == (False, "", 0)
    assert re.search(pattern, body["error"]), body["error"]
    assert body["request_id"] == answer.headers["x-request-id"]


def send(service: Service, content: bytes, name: str = "a.wav", **fields: str) -> httpx.Response:
    return service.client.post("/transcribe", files={"audio_file": (name, content)}, data=fields)


def test_no_file(service: Service) -> None:
    answer = service.client.post("/transcribe", files={"note": (None, "no file here")})
    refused(answer, 400, "no file in 'audio_file'")


def test_no_body_at_all(service: Service) -> None:
    refused(service.client.post("/transcribe"), 415, "there is no Content-Type")


def test_an_empty_file(service: Service) -> None:
    refused(send(service, b""), 400, "empty")


def test_a_recording_without_samples(service: Service) -> None:
    refused(send(service, wav(AudioSegment.empty())), 400, "empty|no samples|no audio")


def test_a_text_file_named_wav(service: Service) -> None:
    refused(send(service, b"This is no sound at all.\n" * 99, "speech.wav"), 400, "not audio")


@pytest.mark.parametrize("encode", [wav, mp3])
def test_a_truncated_recording(service: Service, speech: AudioSegment, encode: Any) -> None:
    whole: bytes = encode(speech)
    refused(send(service, whole[: len(whole) // 2]), 400, r"\d s|seconds|breaks off|cut")


def test_an_image(service: Service) -> None:
    refused(send(service, PNG, "photo.mp3"), 400, "no audio track|image")


def test_a_video_without_sound(service: Service) -> None:
    refused(send(service, video_without_audio(), "film.mp4"), 400, "no audio track")


def test_a_file_in_the_wrong_field(service: Service, speech: AudioSegment) -> None:
    answer = service.client.post("/transcribe", files={"sound": wav(speech)})
    refused(answer, 400, "no file in 'audio_file'; found: 'sound'")


def test_an_unknown_parameter(service: Service, speech: AudioSegment) -> None:
    refused(send(service, wav(speech), speed="fast"), 400, "speed: unknown.*language")


@pytest.mark.parametrize(
    ("name", "value", "pattern"),
    [
        ("language", "klingon", "language: .*klingon"),
        ("task", "summarize", "task: .*transcribe.*translate"),
        ("temperature", "1.5", "temperature: .*1"),
        ("word_timestamps", "perhaps", "word_timestamps: "),
        ("response_format", "docx", "response_format: .*json.*srt"),
    ],
)
def test_an_impossible_value(
    service: Service, speech: AudioSegment, name: str, value: str, pattern: str
) -> None:
    refused(send(service, wav(speech), **{name: value}), 400, pattern)


def test_a_body_that_is_announced_too_large(service: Service) -> None:
    refused(send(service, bytes(LIMIT + 1)), 413, "limit of 8,388,608 bytes")


def memory_of(name: str) -> int:
    """Resident bytes of the processes whose command line has `name` in it."""
    found = psutil.process_iter(["cmdline", "memory_info"])
    sizes = [p.info["memory_info"].rss for p in found if name in " ".join(p.info["cmdline"] or [])]
    assert sizes
    return sum(sizes)


def test_an_endless_body_is_refused_while_it_comes_and_is_not_kept(service: Service) -> None:
    """A gigabyte is on offer. Serve's proxy has no flow control and takes in some of it before
    our answer comes; of that some is on its way to the ingress, which keeps no more than the
    limit."""
    front, proxy = "ServeReplica:errors:Ingress", "ProxyActor"
    before = memory_of(front), memory_of(proxy)

    def body() -> Iterator[bytes]:
        for _ in range(1000):
            yield bytes(MEGABYTE)

    headers = {"Content-Type": "application/octet-stream"}
    try:
        answer = service.client.post("/transcribe", content=body(), headers=headers)
    except (httpx.NetworkError, httpx.RemoteProtocolError):
        pass  # the service may close the connection once it has answered
    else:
        refused(answer, 413, "larger than the limit")
    assert memory_of(front) - before[0] < 200 * MEGABYTE
    assert memory_of(proxy) - before[1] < 500 * MEGABYTE


def test_a_recording_that_is_too_long(service: Service) -> None:
    minute_and_a_half = Sine(440, sample_rate=8000).to_audio_segment(duration=90_000)
    refused(send(service, wav(minute_and_a_half)), 413, "longer than the limit of 60 seconds")


def test_an_unknown_path_and_a_wrong_method(service: Service) -> None:
    refused(service.client.get("/transcribe"), 405, "Method Not Allowed")
    refused(service.client.get("/nowhere"), 404, "Not Found")


def test_a_client_that_goes_away_costs_no_further_windows(
    service: Service, scratch: Path, speech: AudioSegment
) -> None:
    """55 s of speech are two windows or more; the client leaves during the first one."""
    recording = wav(speech.set_frame_rate(16_000) * 6)[: 16_000 * 2 * 55]
    recording = wav(AudioSegment(recording[44:], sample_width=2, frame_rate=16_000, channels=1))
    before = len(notes(scratch, "decoded"))
    host, port = service.url.removeprefix("http://").partition("/")[0].split(":")
    with socket.create_connection((host, int(port))) as connection:
        head = (
            f"POST /{service.name}/transcribe HTTP/1.1\r\nHost: {host}\r\n"
            f"Content-Type: audio/wav\r\nContent-Length: {len(recording)}\r\n\r\n"
        )
        connection.sendall(head.encode() + recording)
        deadline = time.monotonic() + 20
        while len(notes(scratch, "decoded")) == before and time.monotonic() < deadline:
            time.sleep(0.05)
    assert len(notes(scratch, "decoded")) == before + 1
    time.sleep(7)  # two windows' time
    assert len(notes(scratch, "decoded")) == before + 1
    assert service.client.get("/health").status_code == 200
