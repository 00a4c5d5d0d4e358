from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from tests.client.answering import answering, refusal
from tests.client.scripted import CONFIG, Fault, running, spoken, text_of
from whisper_serve.client import Client, Done, Final, Ready, Reconnecting
from whisper_serve.errors import ClientError, InvalidParameter, ServerRefused

VALUES = list(range(1, 40))
WAIT_S = 10.0


def test_a_file_is_transcribed() -> None:
    told: list[tuple[int, int]] = []
    with answering() as server, Client(server.url) as client:
        found = client.transcribe(b"you", language="de", progress=lambda *sent: told.append(sent))
        assert server.uploads[0].fields["language"] == "de"
    assert found.text == "Hello you."
    assert told


def test_a_stream_is_an_iterator_that_reconnects() -> None:
    with running(Fault(6)) as server, Client(server.url) as client:
        events = list(client.stream(spoken(VALUES), **CONFIG))  # type: ignore[arg-type]
    assert isinstance(events[0], Ready)
    assert any(isinstance(event, Reconnecting) for event in events)
    assert "".join(e.text for e in events if isinstance(e, Final)) == text_of(VALUES)
    assert isinstance(events[-1], Done)


def test_the_whole_text_can_be_had_at_once() -> None:
    with running() as server, Client(server.url) as client:
        assert client.transcribe_stream(spoken(VALUES), **CONFIG) == text_of(VALUES)  # type: ignore[arg-type]


def test_failures_are_raised() -> None:
    no = refusal(400, "empty_audio", "the file is empty")
    with answering(no) as server, Client(server.url) as client:
        with pytest.raises(ServerRefused, match="the file is empty"):
            client.transcribe(b"")
        with pytest.raises(InvalidParameter, match="chunk_duration"):
            client.stream(b"", chunk_duration=90.0)
    with pytest.raises(InvalidParameter, match="base_url"):
        Client("nowhere")


def test_leaving_a_stream_ends_its_source() -> None:
    closed = threading.Event()

    def source() -> Iterator[bytes]:
        while not closed.wait(0.01):
            yield spoken([1])

    with running() as server, Client(server.url) as client:
        for event in client.stream(source(), **CONFIG):  # type: ignore[arg-type]
            if isinstance(event, Final):
                break
        closed.set()
    assert server.close_codes == [1000]


def test_two_threads_may_use_one_client() -> None:
    with running() as server, Client(server.url) as client:
        texts: list[str] = []

        def work() -> None:
            texts.append(client.transcribe_stream(spoken(VALUES), **CONFIG))  # type: ignore[arg-type]

        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT_S)
    assert texts == [text_of(VALUES)] * 2


def test_closing_ends_the_thread_and_what_still_runs() -> None:
    with running() as server:
        client = Client(server.url)
        events = client.stream(spoken(VALUES), **CONFIG)  # type: ignore[arg-type]
        next(events)
        client.close()
        client.close()
        with pytest.raises(ClientError, match="the client is closed"):
            client.transcribe(b"")
        with pytest.raises(ClientError, match="the client is closed"):
            next(events)
    assert "whisper_serve client" not in [thread.name for thread in threading.enumerate()]
