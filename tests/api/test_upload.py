from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest

from tests.api.fakes import CLIP, TEXT, Spool, Wire, app_with, client_of, is_failure
from tests.audio.clips import tone, wav
from whisper_serve.api.upload import IN_MEMORY_BYTES, MAX_FORM_FIELDS

# Too large to stay in memory.
LARGE_CLIP = wav(tone(40.0))
FORM_TYPE = {"Content-Type": "multipart/form-data; boundary=b"}

File = tuple[str, bytes]


def part(name: str, content: bytes, filename: str | None = None) -> bytes:
    named = f'; filename="{filename}"' if filename is not None else ""
    return (
        f'--b\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'.encode()
        + content
        + b"\r\n"
    )


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--b--\r\n"


async def posted(
    content: bytes, headers: dict[str, str] | None = None, limit: int = 10**7
) -> httpx.Response:
    app = app_with(settings={"limits": {"max_upload_bytes": limit}})
    async with client_of(app) as client:
        return await client.post("/transcribe", content=content, headers=headers)


async def posted_form(*parts: bytes) -> httpx.Response:
    return await posted(form(*parts), FORM_TYPE)


# Ways in


@pytest.mark.parametrize("name", ["audio_file", "file"])
async def test_a_form_s_file_has_two_names(name: str) -> None:
    async with client_of(app_with()) as client:
        answer = await client.post("/transcribe", files={name: CLIP})
    assert answer.json()["text"] == TEXT


@pytest.mark.parametrize(
    "content_type",
    [
        "audio/wav",
        "audio/mpeg",
        "AUDIO/X-WAV",
        "audio/ogg; codecs=opus",
        "application/octet-stream",
    ],
)
async def test_a_bare_file_is_taken(content_type: str) -> None:
    answer = await posted(CLIP, {"Content-Type": content_type})
    assert answer.json()["text"] == TEXT


async def test_a_large_file_is_taken_in_a_form(spools: list[Spool]) -> None:
    assert len(LARGE_CLIP) > IN_MEMORY_BYTES
    answer = await posted_form(part("file", LARGE_CLIP, "a.wav"))
    assert answer.json()["duration"] == 40.0
    assert [spool.closed for spool in spools] == [True]


async def test_a_large_bare_file_is_taken(spools: list[Spool]) -> None:
    answer = await posted(LARGE_CLIP, {"Content-Type": "audio/wav"})
    assert answer.json()["duration"] == 40.0
    assert [spool.closed for spool in spools] == [True]


async def test_a_form_may_come_in_any_pieces() -> None:
    body = form(part("language", b"de"), part("audio_file", CLIP, "a.wav"))
    wire = Wire(body[start : start + 97] for start in range(0, len(body), 97))
    await wire.post(app_with(), FORM_TYPE)
    assert wire.status == 200
    assert json.loads(wire.body)["text"] == TEXT


@pytest.mark.parametrize("filename", ["", "a b.wav", "ü.wav", "../../etc/passwd"])
async def test_a_file_s_name_means_nothing(filename: str) -> None:
    answer = await posted_form(part("audio_file", CLIP, filename))
    assert answer.json()["text"] == TEXT


async def test_a_form_may_end_without_a_line_break() -> None:
    body = form(part("audio_file", CLIP, "a.wav")).removesuffix(b"\r\n")
    assert (await posted(body, FORM_TYPE)).status_code == 200


# Nothing to transcribe


@pytest.mark.parametrize("content_type", ["audio/wav", "application/octet-stream"])
async def test_an_empty_body_is_told(content_type: str, spools: list[Spool]) -> None:
    answer = await posted(b"", {"Content-Type": content_type})
    assert is_failure(answer, 400, "empty_audio")
    assert answer.json()["error"] == "the file is empty"
    assert all(spool.closed for spool in spools)


async def test_an_empty_file_is_told(spools: list[Spool]) -> None:
    answer = await posted_form(part("audio_file", b"", "a.wav"))
    assert is_failure(answer, 400, "empty_audio")
    assert answer.json()["error"] == "the file is empty"
    assert all(spool.closed for spool in spools)


async def test_an_empty_form_is_told() -> None:
    answer = await posted_form()
    assert is_failure(answer, 400, "empty_audio")
    assert answer.json()["error"] == "the form has no file in 'audio_file'"


async def test_a_file_under_another_name_is_told(spools: list[Spool]) -> None:
    answer = await posted_form(part("task", b"transcribe"), part("recording", CLIP, "a.wav"))
    assert is_failure(answer, 400, "empty_audio")
    assert answer.json()["error"].endswith("in 'audio_file'; found: 'task', 'recording'")
    assert all(spool.closed for spool in spools)


async def test_a_forgotten_at_sign_is_told() -> None:
    answer = await posted_form(part("audio_file", b"recording.wav"))
    assert is_failure(answer, 400, "empty_audio")
    assert "audio_file=@recording.wav" in answer.json()["error"]


# Too much


@pytest.mark.parametrize("names", [("audio_file", "file"), ("file", "file"), ("file", "other")])
async def test_two_files_are_no_guess(names: tuple[str, str], spools: list[Spool]) -> None:
    answer = await posted_form(*(part(name, CLIP, "a.wav") for name in names))
    assert is_failure(answer, 400, "invalid_request")
    assert answer.json()["error"] == "send one file, in 'audio_file'"
    assert all(spool.closed for spool in spools)


async def test_too_many_files_are_told(spools: list[Spool]) -> None:
    answer = await posted_form(*(part("file", b"x", "a.wav") for _ in range(5)))
    assert is_failure(answer, 400, "invalid_request")
    assert all(spool.closed for spool in spools)


async def test_too_many_fields_are_told(spools: list[Spool]) -> None:
    fields = [part(f"field{number}", b"x") for number in range(MAX_FORM_FIELDS + 1)]
    answer = await posted_form(part("file", CLIP, "a.wav"), *fields)
    assert is_failure(answer, 400, "invalid_request")
    assert all(spool.closed for spool in spools)


async def test_a_field_that_is_too_long_is_told() -> None:
    answer = await posted_form(part("prompt", b"x" * (2**20 + 1)), part("file", CLIP, "a.wav"))
    assert is_failure(answer, 400, "invalid_request")


@pytest.mark.parametrize("content_type", ["audio/wav", FORM_TYPE["Content-Type"]])
async def test_a_body_that_is_announced_too_large_is_not_read(content_type: str) -> None:
    wire = Wire([b"x" * 1_000])
    app = app_with(settings={"limits": {"max_upload_bytes": 999}})
    await wire.post(app, {"Content-Type": content_type, "Content-Length": "1000"})
    assert wire.status == 413
    assert wire.taken == 0
    body = json.loads(wire.body)
    assert (body["success"], body["code"]) == (False, "upload_too_large")
    assert body["error"] == "the upload is larger than the limit of 999 bytes"


def endless() -> Iterator[bytes]:
    yield part("audio_file", b"", "a.wav").removesuffix(b"\r\n")
    while True:
        yield bytes(64 * 1024)


@pytest.mark.parametrize("content_type", ["audio/wav", FORM_TYPE["Content-Type"]])
@pytest.mark.parametrize("announced", [{}, {"Content-Length": "5"}])
async def test_a_body_that_does_not_end_is_read_up_to_the_limit(
    content_type: str, announced: dict[str, str], spools: list[Spool]
) -> None:
    limit = 3 * 2**20
    wire = Wire(endless())
    app = app_with(settings={"limits": {"max_upload_bytes": limit}})
    await wire.post(app, {"Content-Type": content_type, **announced})
    assert wire.status == 413
    assert limit < wire.taken <= limit + 64 * 1024
    assert [spool.closed for spool in spools] == [True]


async def test_a_body_of_just_the_limit_is_taken() -> None:
    for limit, status in ((len(CLIP), 200), (len(CLIP) - 1, 413)):
        answer = await posted(CLIP, {"Content-Type": "audio/wav"}, limit)
        assert answer.status_code == status


@pytest.mark.parametrize("length", ["", "many", "²", "-1", "9" * 5_000])
async def test_a_senseless_length_is_not_believed(length: str) -> None:
    wire = Wire([CLIP])
    await wire.post(app_with(), {"Content-Type": "audio/wav", "Content-Length": length})
    assert wire.status == 200


# Broken


@pytest.mark.parametrize(
    "content_type", [None, "", "text/html", "application/json", "video/mp4", "multipart/mixed"]
)
async def test_another_type_is_refused(content_type: str | None) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    wire = Wire([CLIP])
    await wire.post(app_with(), headers)
    assert wire.status == 415
    body = json.loads(wire.body)
    assert (body["success"], body["code"]) == (False, "unsupported_media_type")
    assert "multipart/form-data" in body["error"]
    assert wire.taken == 0


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", form(part("file", CLIP, "a.wav"))),
        ("multipart/form-data; boundary=", form(part("file", CLIP, "a.wav"))),
        ("multipart/form-data; boundary=c", form(part("file", CLIP, "a.wav"))),
        ("multipart/form-data; boundary=b", b""),
        ("multipart/form-data; boundary=b", b"no form"),
        ("multipart/form-data; boundary=b", b"--b\r\nno header\r\n\r\n\r\n--b--\r\n"),
        ("multipart/form-data; boundary=b", b"--b\r\nContent-Type: a/b\r\n\r\nx\r\n--b--\r\n"),
        ("multipart/form-data; boundary=b", form(part("file", LARGE_CLIP, "a.wav"))[:-5]),
        ("multipart/form-data; boundary=b", part("file", CLIP, "a.wav")[:5_000]),
        ("multipart/form-data; boundary=" + "b" * 300, b"--b"),
    ],
)
async def test_a_broken_form_is_told(content_type: str, body: bytes, spools: list[Spool]) -> None:
    answer = await posted(body, {"Content-Type": content_type})
    assert is_failure(answer, 400, "invalid_request")
    assert answer.json()["error"].startswith("the form cannot be read: ")
    assert all(spool.closed for spool in spools)


@pytest.mark.parametrize("content_type", ["audio/wav", FORM_TYPE["Content-Type"]])
async def test_a_client_that_goes_away_leaves_nothing(
    content_type: str, spools: list[Spool]
) -> None:
    wire = Wire([part("file", LARGE_CLIP, "a.wav")], ends=False)
    await wire.post(app_with(), {"Content-Type": content_type})
    assert wire.status == 499  # for the log; nobody gets it
    assert [spool.closed for spool in spools] == [True]


# Forms that were made to do harm


PIECE = bytes(1 << 16)
BOMBS = {
    "10,000 fields": (b"", part("f", b"x") * 10_000),
    "a name without end": (b'--b\r\nContent-Disposition: form-data; name="', PIECE),
    "a header without end": (b"--b\r\n", PIECE.replace(b"\0", b"a")),
    "headers without end": (b"--b\r\n", b"X-A: b\r\n" * 8_000),
    "a field without end": (part("language", b"en")[:-2], PIECE),
}


@pytest.mark.parametrize("name", BOMBS)
async def test_a_form_without_measure_is_given_up_early(name: str, spools: list[Spool]) -> None:
    wire = Wire(it_goes_on(*BOMBS[name]))
    await wire.post(app_with(), FORM_TYPE)
    assert wire.status == 400
    assert json.loads(wire.body)["code"] == "invalid_request"
    assert wire.taken < 4 << 20
    assert all(spool.closed for spool in spools)


def it_goes_on(head: bytes, piece: bytes) -> Iterator[bytes]:
    yield head
    for _ in range(1_600):
        yield piece
