from __future__ import annotations

import pytest

from tests.api.fakes import SEGMENTS, TEXT
from whisper_serve.api.plain_bodies import CONTENT, PlainFormat, plain_body
from whisper_serve.text.formats import to_srt, to_vtt
from whisper_serve.text.transcript import Transcript

HEARD = Transcript(SEGMENTS, "de", 0.9, 2.0)


@pytest.mark.parametrize(
    ("form", "content_type", "body"),
    [
        ("text", "text/plain; charset=utf-8", f"{TEXT}\n"),
        ("srt", "application/x-subrip; charset=utf-8", to_srt(SEGMENTS)),
        ("vtt", "text/vtt; charset=utf-8", to_vtt(SEGMENTS)),
    ],
)
def test_a_body_is_the_text_and_its_type_is_among_those_described(
    form: PlainFormat, content_type: str, body: str
) -> None:
    answer = plain_body(HEARD, form)
    assert (answer.headers["content-type"], bytes(answer.body).decode()) == (content_type, body)
    assert content_type.partition(";")[0] in CONTENT
