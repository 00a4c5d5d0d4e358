"""What becomes of audio until a turn is made of it."""

from __future__ import annotations

import pytest

from whisper_serve.api.openai.realtime.configuration import AudioFormat
from whisper_serve.api.openai.realtime.input_buffer import (
    SPARE_S,
    CollectingBuffer,
    Cut,
    StreamedBuffer,
)
from whisper_serve.errors import EmptyAudio, InvalidParameter, InvalidRequest

PCM, ULAW = AudioFormat(), AudioFormat(type="audio/pcmu")
SECOND = bytes(48_000)
TENTH = bytes(4_800)


class Heard:
    """How far the stream has been heard."""

    at_s = 0.0

    def __call__(self) -> float:
        return self.at_s


def collecting(max_s: float = 60.0, heard: Heard | None = None) -> CollectingBuffer:
    return CollectingBuffer(PCM, max_s, heard or Heard())


# With turn detection


def test_audio_is_passed_on_at_once() -> None:
    buffer = StreamedBuffer(PCM)
    assert buffer.append(b"abc") == b"abc"
    assert buffer.append(b"") == b""


def test_a_commit_is_about_all_that_came() -> None:
    buffer = StreamedBuffer(PCM)
    buffer.append(SECOND)
    assert buffer.commit() == Cut(1.0)
    buffer.append(TENTH)
    assert buffer.commit() == Cut(1.1)
    assert StreamedBuffer(ULAW).append(bytes(8_000))


@pytest.mark.parametrize("more", [b"", TENTH[:-2]])
def test_there_is_nothing_to_commit_twice(more: bytes) -> None:
    buffer = StreamedBuffer(PCM)
    for _ in range(2):
        buffer.append(more)
        with pytest.raises(EmptyAudio):
            buffer.commit()
        buffer.append(SECOND)
        buffer.commit()


def test_a_clear_is_about_the_same_and_too_little_is_nothing() -> None:
    buffer = StreamedBuffer(PCM)
    assert buffer.clear() is None
    buffer.append(SECOND)
    assert buffer.clear() == Cut(1.0)
    assert buffer.clear() is None
    with pytest.raises(EmptyAudio):
        buffer.commit()


# Without


def test_audio_waits_for_a_commit() -> None:
    buffer = collecting()
    assert buffer.append(SECOND) == b""
    assert buffer.append(b"\1" * 48_000) == b""
    assert buffer.commit() == Cut(2.0, SECOND + b"\1" * 48_000)
    buffer.append(TENTH)
    assert buffer.commit() == Cut(2.1, TENTH)


def test_what_is_cleared_was_never_in_the_stream() -> None:
    buffer = collecting()
    buffer.append(b"\1" * 48_000)
    assert buffer.clear() is None
    buffer.append(SECOND)
    assert buffer.commit() == Cut(1.0, SECOND)


@pytest.mark.parametrize("audio", [b"", TENTH[:-1]])
def test_too_little_cannot_be_committed_but_waits(audio: bytes) -> None:
    buffer = collecting()
    buffer.append(audio)
    with pytest.raises(EmptyAudio, match="100 ms"):
        buffer.commit()
    buffer.append(SECOND[len(audio) :])
    assert buffer.commit() == Cut(1.0, SECOND)


def test_half_a_sample_is_neither_lost_nor_guessed() -> None:
    buffer = collecting()
    buffer.append(SECOND[:-1])
    with pytest.raises(InvalidRequest, match="within a sample"):
        buffer.commit()
    buffer.append(b"\0")
    assert buffer.commit() == Cut(1.0, SECOND)


def test_there_is_room_for_so_much_and_more_has_no_effect() -> None:
    heard = Heard()
    buffer = collecting(3.0 + SPARE_S, heard)
    for _ in range(3):
        buffer.append(SECOND)
    with pytest.raises(InvalidParameter, match="audio") as refused:
        buffer.append(b"\1" * 4)
    assert refused.value.parameter == "audio"
    assert buffer.commit() == Cut(3.0, SECOND * 3)
    # What waits for its text takes room too.
    with pytest.raises(InvalidParameter):
        buffer.append(SECOND)
    heard.at_s = 3.0
    buffer.append(SECOND)
    assert buffer.commit() == Cut(4.0, SECOND)


def test_clearing_makes_room() -> None:
    buffer = collecting(1.0 + SPARE_S)
    buffer.append(SECOND)
    buffer.clear()
    buffer.append(SECOND)
    assert buffer.commit() == Cut(1.0, SECOND)
