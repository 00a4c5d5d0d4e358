"""Whole files, over real sockets; streams are tested in `test_stream`."""

from __future__ import annotations

import io
import os
import socket
from pathlib import Path

import pytest

from tests.client.answering import Answer, answering, refusal, transcript
from whisper_serve.api.schemas import TranscribeParameters
from whisper_serve.client import AsyncClient
from whisper_serve.errors import (
    ConnectionLost,
    InvalidParameter,
    ServerRefused,
    UnexpectedAnswer,
    UnreadableAudio,
)


async def test_a_file_is_sent_and_its_text_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "talk.mp3"
    path.write_bytes(b"you")
    with answering() as server:
        async with AsyncClient(server.url) as client:
            found = await client.transcribe(path)
            again = await client.transcribe(str(path))
        [upload, _] = server.uploads
    assert found.text == again.text == "Hello you."
    assert (upload.path, upload.filename, upload.content) == ("/transcribe", "talk.mp3", b"you")
    assert upload.fields == {"response_format": "json"}


async def test_bytes_and_open_files_are_sent_too() -> None:
    middle = io.BytesIO(b"from the start")
    middle.seek(5)
    with answering() as server:
        async with AsyncClient(server.url) as client:
            await client.transcribe(b"some bytes")
            await client.transcribe(middle)
        contents = [upload.content for upload in server.uploads]
    assert contents == [b"some bytes", b"from the start"]
    assert not middle.closed


async def test_a_pipe_is_sent_too() -> None:
    read_end, write_end = os.pipe()
    os.write(write_end, b"through a pipe")
    os.close(write_end)
    with answering() as server, os.fdopen(read_end, "rb") as pipe:
        async with AsyncClient(server.url) as client:
            await client.transcribe(pipe)
        assert server.uploads[0].content == b"through a pipe"


async def test_options_are_form_fields() -> None:
    with answering() as server:
        async with AsyncClient(server.url) as client:
            found = await client.transcribe(
                b"x",
                model="tiny.en",
                language="de",
                task="translate",
                prompt="Grüße & 100 %",
                hotwords="Ray",
                word_timestamps=True,
                temperature=0.2,
                beam_size=2,
                best_of=3,
                suppress_tokens=[-1, 13],
                use_context=False,
                verbose=True,
            )
        [upload] = server.uploads
    assert upload.fields == {
        "model": "tiny.en",
        "language": "de",
        "task": "translate",
        "prompt": "Grüße & 100 %",
        "hotwords": "Ray",
        "word_timestamps": "true",
        "temperature": "0.2",
        "beam_size": "2",
        "best_of": "3",
        "suppress_tokens": "-1,13",
        "use_context": "false",
        "response_format": "verbose_json",
    }
    assert found.words is not None
    assert [word.word for word in found.words] == ["Hello", "you."]
    assert found.segments[0].tokens == (1, 2)


async def test_no_language_is_left_out() -> None:
    with answering() as server:
        async with AsyncClient(server.url) as client:
            await client.transcribe(b"x", language=None)
        assert "language" not in server.uploads[0].fields


async def test_form_fields_are_what_the_service_reads() -> None:
    with answering() as server:
        async with AsyncClient(server.url) as client:
            await client.transcribe(b"x", suppress_tokens=(13, 50_256), beam_size=None)
            await client.transcribe(b"x", suppress_tokens=[], use_context=True)
        some, none = [TranscribeParameters.parse(upload.fields) for upload in server.uploads]
    assert (some.suppress_tokens, some.beam_size) == ((13, 50_256), None)
    assert (none.suppress_tokens, none.use_context) == ((), True)


async def test_it_tells_how_much_is_sent() -> None:
    told: list[tuple[int, int]] = []
    with answering() as server:
        async with AsyncClient(server.url) as client:
            await client.transcribe(bytes(300_000), progress=lambda *sent: told.append(sent))
    counts, totals = zip(*told, strict=True)
    assert list(counts) == sorted(counts)
    assert len(counts) >= 5
    assert set(totals) == {counts[-1]}
    assert 300_000 < counts[-1] < 301_000


async def test_a_prefix_and_headers_are_used() -> None:
    with answering() as server:
        headers = {"Authorization": "Bearer x"}
        async with AsyncClient(f"{server.url}/speech/", headers=headers) as client:
            await client.transcribe(b"x")
        [upload] = server.uploads
    assert (upload.path, upload.authorization) == ("/speech/transcribe", "Bearer x")


# Failures


async def test_a_refusal_carries_the_service_s_words() -> None:
    no = refusal(503, "overloaded", "it is full", Retry_After="7")
    with answering(no) as server:
        async with AsyncClient(server.url, give_up_after_s=1.0) as client:
            with pytest.raises(ServerRefused) as caught:
                await client.transcribe(b"x")
    error = caught.value
    assert (error.status, error.error_code, error.reason) == (503, "overloaded", "it is full")
    assert error.retry_after_s == 7.0
    assert str(error) == "it is full (503 overloaded)"


@pytest.mark.parametrize("body", [b"<html>Bad Gateway</html>", b"", b"[]", b'{"detail": 1}'])
async def test_a_refusal_by_something_in_between_is_told(body: bytes) -> None:
    with answering(Answer(502, body, {"Retry_After": "soon"})) as server:
        async with AsyncClient(server.url) as client:
            with pytest.raises(ServerRefused) as caught:
                await client.transcribe(b"x")
    assert (caught.value.status, caught.value.error_code) == (502, "http_error")
    assert caught.value.retry_after_s is None


@pytest.mark.parametrize("body", [b"<html>Welcome</html>", b"{}", b""])
async def test_what_is_not_this_service_is_told(body: bytes) -> None:
    with answering(Answer(200, body)) as server:
        async with AsyncClient(server.url) as client:
            with pytest.raises(UnexpectedAnswer, match=server.url):
                await client.transcribe(b"x")


async def test_nobody_there_is_told() -> None:
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        async with AsyncClient(url) as client:
            with pytest.raises(ConnectionLost, match=f"{url}/transcribe: "):
                await client.transcribe(b"x")


async def test_an_answer_that_takes_too_long_is_not_waited_for() -> None:
    slow = Answer(200, b"{}", delay_s=0.5)
    with answering(slow) as server:
        async with AsyncClient(server.url, answer_timeout_s=0.1) as client:
            with pytest.raises(ConnectionLost, match="ReadTimeout"):
                await client.transcribe(b"x")


@pytest.mark.parametrize("name", ["nowhere.mp3", "."])
async def test_a_file_that_cannot_be_read_is_told(name: str, tmp_path: Path) -> None:
    async with AsyncClient() as client:
        with pytest.raises(UnreadableAudio, match="cannot be read"):
            await client.transcribe(tmp_path / name)


async def test_the_client_goes_on_after_a_failure() -> None:
    answers = iter([refusal(400, "unreadable_audio", "no audio")])
    with answering(lambda upload: next(answers, transcript(upload))) as server:
        async with AsyncClient(server.url) as client:
            with pytest.raises(ServerRefused, match="no audio"):
                await client.transcribe(b"noise")
            assert (await client.transcribe(b"you")).text == "Hello you."


@pytest.mark.parametrize(
    "url",
    ["127.0.0.1:8000", "ftp://host", "http://", "http://host:port", "http://host?a=b", ""],
)
def test_a_base_url_that_is_none_is_told(url: str) -> None:
    with pytest.raises(InvalidParameter, match=r"^base_url"):
        AsyncClient(url)
