from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whisper_serve.audio.inlet import MAX_FUTILE_BYTES, Inlet
from whisper_serve.errors import UnreadableAudio

WAIT_S = 10.0


class Reader:
    """Reads all there is, `size` bytes at a time, in a thread of its own."""

    def __init__(self, inlet: Inlet, size: int = 3) -> None:
        self.inlet, self.size = inlet, size
        self.got: list[bytes] = []

    def run(self) -> None:
        while part := self.inlet.read(self.size):
            self.got.append(part)
        self.inlet.leave()


@contextmanager
def running(target: Reader) -> Iterator[Reader]:
    thread = Thread(target=target.run, daemon=True)
    thread.start()
    try:
        yield target
    finally:
        target.inlet.close()
        thread.join(WAIT_S)
        assert not thread.is_alive()


def given_to(inlet: Inlet, data: bytes) -> Thread:
    """Puts `data` and ends, as the other side of what a test reads."""

    def write() -> None:
        inlet.put(data)
        inlet.end()

    thread = Thread(target=write, daemon=True)
    thread.start()
    return thread


@settings(max_examples=30)
@given(parts=st.lists(st.binary(max_size=10), max_size=8), size=st.integers(1, 12))
def test_all_that_was_put_is_read_when_put_returns(parts: list[bytes], size: int) -> None:
    with running(Reader(Inlet(), size)) as reader:
        put = b""
        for part in parts:
            reader.inlet.put(part)
            put += part
            assert b"".join(reader.got) == put


def test_end_returns_when_the_reader_has_left() -> None:
    with running(Reader(Inlet())) as reader:
        reader.inlet.put(b"all of it")
        states = [reader.inlet.ran_out]
        reader.inlet.end()
        states.append(reader.inlet.ran_out)
        assert states == [False, True]
        reader.inlet.put(b"too late")
        assert b"".join(reader.got) == b"all of it"


def test_a_read_gives_what_there_is_and_no_more_than_it_asked_for() -> None:
    inlet = Inlet()
    writer = given_to(inlet, b"abcde")
    assert [inlet.read(2), inlet.read(100), inlet.read(100)] == [b"ab", b"cde", b""]
    inlet.leave()
    writer.join(WAIT_S)


def test_a_peek_leaves_everything_where_it_is() -> None:
    inlet = Inlet()
    writer = given_to(inlet, b"abcde")
    assert inlet.peek(lambda data: len(data) >= 3) == b"abcde"
    assert inlet.read(2) == b"ab"
    assert inlet.peek(lambda data: len(data) >= 3) == b"cde"
    assert inlet.peek(lambda data: len(data) >= 4) == b"cde"  # there will be no more
    assert not inlet.ran_out
    inlet.leave()
    writer.join(WAIT_S)


def test_a_peek_waits_until_there_is_enough() -> None:
    class Peeking(Reader):
        def run(self) -> None:
            self.got.append(self.inlet.peek(lambda data: len(data) >= 4))
            super().run()

    with running(Peeking(Inlet(), size=100)) as reader:
        reader.inlet.put(b"abc")
        assert reader.got == []
        reader.inlet.put(b"de")
        assert reader.got == [b"abcde", b"abcde"]


def test_put_returns_when_the_reader_leaves_in_the_middle() -> None:
    inlet = Inlet()
    writer = given_to(inlet, b"abcde")
    assert inlet.read(2) == b"ab"
    inlet.leave()
    writer.join(WAIT_S)
    assert not writer.is_alive()


def test_close_lets_both_sides_go_on() -> None:
    inlet = Inlet()
    writer = given_to(inlet, b"abcde")
    assert inlet.read(2) == b"ab"
    inlet.close()
    assert inlet.read(2) == b""
    inlet.leave()
    writer.join(WAIT_S)
    assert not writer.is_alive()


def test_a_closed_inlet_takes_nothing() -> None:
    inlet = Inlet()
    inlet.close()
    inlet.close()
    inlet.put(b"abc")
    assert (inlet.read(10), inlet.peek(bool)) == (b"", b"")


def test_reading_in_vain_ends() -> None:
    inlet = Inlet()
    writer = given_to(inlet, bytes(MAX_FUTILE_BYTES + 1))
    inlet.read(MAX_FUTILE_BYTES)
    with pytest.raises(UnreadableAudio, match="16 MiB"):
        inlet.read(1)
    inlet.leave()
    writer.join(WAIT_S)


def test_reading_may_go_on_for_ever_when_something_is_found() -> None:
    inlet = Inlet()
    writer = given_to(inlet, bytes(MAX_FUTILE_BYTES + 1))
    inlet.read(MAX_FUTILE_BYTES)
    inlet.found()
    assert inlet.read(1) == b"\0"
    inlet.leave()
    writer.join(WAIT_S)
