from __future__ import annotations

import json
import math
from collections import deque
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.client.scripted import BLOCK_S, CONFIG, RATE, Hearer, spoken, text_of
from whisper_serve.client.events import Done, Failed, Final, Progress, Ready, Warned
from whisper_serve.client.journal import END, READ_AHEAD_S, Journal, Layout
from whisper_serve.errors import InvalidParameter, UnexpectedAnswer

REACH_S = 0.6
PIECE = 4_001  # bytes, an odd number
LIMITS = {"max_backlog_s": 10.0, "idle_timeout_s": 30.0, "max_frame_bytes": 2**24}
READY = {
    "type": "ready",
    "session_id": "s",
    "protocol": 1,
    "config": {"policy": "chunk", "chunk_duration": 1.0, "overlap": 0.25},
    "limits": LIMITS,
}


def opened(config: dict[str, Any] | None = None, **limits: float) -> Journal:
    """A journal whose connection is ready."""
    journal = Journal(CONFIG if config is None else config)
    journal.next_message()
    tell(journal, {**READY, "limits": {**LIMITS, **limits}})
    return journal


def tell(journal: Journal, message: dict[str, Any]) -> Any:
    return journal.receive(json.dumps(message))


def ack(until: float, **resume: Any) -> dict[str, Any]:
    return {
        "type": "ack",
        "received_until": until,
        "committed_until": until,
        "lag": 0.0,
        "resume": {"committed_until": until, **resume},
    }


def final(text: str, **fields: Any) -> dict[str, Any]:
    return {
        "type": "final",
        "start": 0.0,
        "end": 1.0,
        "text": text,
        "words": None,
        "language": "en",
        "language_probability": 1.0,
        "processing_time": 0.1,
        **fields,
    }


def drained(journal: Journal) -> list[str | bytes]:
    """All that may be sent now."""
    return list(iter(journal.next_message, None))


# Any sequence of losses


Schedule = list[tuple[int, int]]


class World:
    """A journal, the server that it talks to, what lies on the wire between them, and a user."""

    def __init__(self, values: list[int], max_backlog_s: float) -> None:
        audio = spoken(values)
        self.source = deque(audio[i : i + PIECE] for i in range(0, len(audio), PIECE))
        self.journal = Journal(CONFIG)
        self.max_backlog_s = max_backlog_s
        self.finals: list[Final] = []
        self.done: list[Done] = []
        self.most_kept = 0
        self.reconnect()

    def reconnect(self) -> None:
        """All that is on the wire is lost, and the server has forgotten everything."""
        self.journal.connect()
        self.server = Hearer(max_backlog_s=self.max_backlog_s, reach_s=REACH_S)
        self.wire: deque[dict[str, Any]] = deque()

    def take_audio(self) -> bool:
        if not self.journal.wants_audio or (not self.source and self.finished):
            return False
        if self.source:
            self.journal.add(self.source.popleft())
        else:
            self.finished = True
            self.journal.finish()
        self.most_kept = max(self.most_kept, self.journal.kept_bytes)
        return True

    finished = False

    def send(self) -> bool:
        message = self.journal.next_message()
        if isinstance(message, str):
            self.wire.extend(self.server.text(message))
        elif message is not None:
            self.wire.extend(self.server.audio(message))
        return message is not None

    def hear(self) -> bool:
        if not self.wire:
            return False
        event = tell(self.journal, self.wire.popleft())
        if isinstance(event, Final):
            self.finals.append(event)
        if isinstance(event, Done):
            self.done.append(event)
        return True

    def go_on(self) -> bool:
        return any([self.take_audio(), self.send(), self.hear()])

    def run(self, schedule: Schedule) -> None:
        """What happens in this order, and then everything without another loss."""
        steps = [self.take_audio, self.send, self.hear, self.reconnect, self.go_on]
        for step, count in schedule:
            for _ in range(count):
                if not self.journal.is_done:
                    steps[step]()
        while not self.journal.is_done:
            assert self.go_on(), "it is stuck"


SPOKEN = st.lists(st.integers(0, 99), max_size=9) | st.lists(
    st.integers(1, 99), min_size=20, max_size=40
)
# Steps of `World.run` and how often each is taken. Losses are rare, so that something gets
# through between them.
STEPS = st.sampled_from([0, 1, 2, 3, 4, 4, 4])
SCHEDULE = st.lists(st.tuples(STEPS, st.integers(1, 20)), min_size=3, max_size=60)
BACKLOGS = st.sampled_from([5.0, 10.0, 14.0])


@given(SPOKEN, SCHEDULE, BACKLOGS)
def test_every_final_comes_once_and_in_order_whatever_is_lost(
    values: list[int], schedule: Schedule, max_backlog_s: float
) -> None:
    world = World(values, max_backlog_s)
    world.run(schedule)
    assert "".join(final.text for final in world.finals) == text_of(values)
    words = [word.word for final in world.finals for word in final.words]
    assert words == text_of(values).split()
    [done] = world.done
    assert done.text == text_of(values)
    assert done.words == len(words)


@given(SPOKEN, SCHEDULE, BACKLOGS)
def test_word_times_go_on_across_losses(
    values: list[int], schedule: Schedule, max_backlog_s: float
) -> None:
    world = World(values, max_backlog_s)
    world.run(schedule)
    times = [word.start for final in world.finals for word in final.words]
    assert times == pytest.approx([i * BLOCK_S for i, value in enumerate(values) if value])


@given(st.lists(st.integers(1, 99), min_size=40, max_size=60), SCHEDULE, BACKLOGS)
def test_what_is_kept_is_what_is_not_settled(
    values: list[int], schedule: Schedule, max_backlog_s: float
) -> None:
    world = World(values, max_backlog_s)
    world.run(schedule)
    allowed_s = max(max_backlog_s / 2, 1.0 + 0.25 + 3.0)
    bound_s = allowed_s + REACH_S + READ_AHEAD_S
    assert world.most_kept <= bound_s * 2 * RATE + PIECE
    assert world.server.most_waiting_s < allowed_s


@given(SPOKEN, SCHEDULE)
def test_nothing_is_sent_behind_the_end(values: list[int], schedule: Schedule) -> None:
    world = World(values, 60.0)
    world.run(schedule)
    assert world.journal.next_message() is None
    assert world.journal.keepalive_s == math.inf


# The configuration


def test_the_configuration_goes_first_and_nothing_before_the_server_is_ready() -> None:
    journal = Journal({**CONFIG, "language": "de"})
    journal.add(spoken([1]))
    first = journal.next_message()
    assert isinstance(first, str)
    assert json.loads(first) == {"type": "config", **CONFIG, "language": "de"}
    assert journal.next_message() is None
    assert journal.keepalive_s == math.inf


def test_token_ids_go_as_a_list() -> None:
    first = Journal({"suppress_tokens": (-1, 13)}).next_message()
    assert first == '{"type": "config", "suppress_tokens": [-1, 13]}'


def test_a_wrong_configuration_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(InvalidParameter, match=r"^chunk_duration"):
        Journal({"chunk_duration": 90})
    with pytest.raises(InvalidParameter, match=r"^chunk: unknown key"):
        Journal({"chunk": 5})


def test_resuming_is_not_the_user_s_business() -> None:
    with pytest.raises(InvalidParameter, match=r"^resume"):
        Journal({"resume": {"committed_until": 1.0}})


# Sending


def test_an_empty_stream_is_ended_at_once() -> None:
    journal = opened()
    journal.finish()
    assert drained(journal) == [END]


def test_what_is_sent_and_not_settled_stays_below_half_of_the_backlog() -> None:
    journal = opened(max_backlog_s=10.0)
    journal.add(spoken([1] * 100))
    sent = sum(len(frame) for frame in drained(journal)) / 2 / RATE
    assert 4.8 < sent < 5.0
    tell(journal, ack(2.0))
    more = sum(len(frame) for frame in drained(journal)) / 2 / RATE
    assert 6.8 < sent + more < 7.0


def test_a_long_chunk_may_be_sent_even_where_little_may_wait() -> None:
    """Or the server would wait for the chunk's end, and the client for the server."""
    journal = Journal({"sample_rate": RATE})
    journal.next_message()
    config = {"policy": "chunk", "chunk_duration": 12.0, "overlap": 0.5}
    tell(journal, {**READY, "config": config, "limits": {**LIMITS, "max_backlog_s": 20.0}})
    journal.add(spoken([1] * 100))
    sent = sum(len(frame) for frame in drained(journal)) / 2 / RATE
    assert 12.5 < sent < 18.0


def test_frames_are_never_longer_than_the_server_takes() -> None:
    journal = opened(max_frame_bytes=999)
    journal.add(spoken([1] * 4))
    frames = drained(journal)
    assert max(len(frame) for frame in frames) == 999
    assert b"".join(frame for frame in frames if isinstance(frame, bytes)) == spoken([1] * 4)


def test_a_live_source_is_sent_as_it_comes() -> None:
    journal = opened()
    journal.add(bytes(3))
    assert drained(journal) == [bytes(3)]


def test_the_source_is_not_read_far_ahead() -> None:
    journal = opened(max_backlog_s=10.0)
    wanted = []
    for blocks in (3, 1, 0):
        journal.add(spoken([1] * blocks))
        wanted.append(journal.wants_audio)
    drained(journal)
    assert [*wanted, journal.wants_audio] == [True, False, False, True]


def test_signs_of_life_come_before_the_server_loses_patience() -> None:
    journal = opened(idle_timeout_s=6.0)
    assert journal.keepalive_s == 2.0
    journal.finish()
    drained(journal)
    assert journal.keepalive_s == math.inf


def test_a_server_that_finds_it_too_fast_gets_real_time_on_every_connection() -> None:
    journal = opened(max_backlog_s=60.0)
    journal.add(spoken([1] * 20))
    drained(journal)
    assert journal.wait_until_s == -math.inf
    warned = tell(journal, {"type": "warning", "code": "client_too_fast", "message": "slower"})
    assert warned == Warned("client_too_fast", "slower")
    assert 4.5 <= journal.wait_until_s < 5.0
    journal.connect()
    assert journal.wait_until_s < 0.0


def test_a_server_s_real_time_is_kept_from_the_beginning() -> None:
    """What it allows to run ahead is never used up by more than half."""
    journal = opened(max_ahead_s=1.0, max_backlog_s=60.0)
    journal.add(spoken([1] * 20))
    now, sent = 0.0, 0
    while (frame := journal.next_message()) is not None:
        sent += len(frame)
        assert sent / 2 / RATE - now <= 0.5
        now = max(now, journal.wait_until_s)
    assert sent == len(spoken([1] * 20))
    assert now == pytest.approx(5.0, abs=0.6)


# Resuming


def test_audio_that_is_not_needed_any_more_is_forgotten() -> None:
    journal = opened()
    journal.add(spoken([1, 2, 3, 4]))
    drained(journal)
    tell(journal, ack(0.75, audio_from=0.5))
    assert journal.kept_bytes == len(spoken([3, 4]))


def test_what_was_kept_is_sent_again_with_the_newest_resume_object() -> None:
    journal = opened()
    journal.add(spoken([1, 2, 3, 4]))
    drained(journal)
    newest = {"committed_until": 0.75, "audio_from": 0.5, "position": 1.0, "of_a_later": "version"}
    tell(journal, ack(0.25, audio_from=0.0))
    tell(journal, ack(0.75, **newest))
    journal.connect()
    config = journal.next_message()
    assert isinstance(config, str)
    assert json.loads(config)["resume"] == newest
    tell(journal, READY)
    assert b"".join(drained(journal)) == spoken([3, 4])  # type: ignore[arg-type]


def test_without_audio_from_it_goes_on_at_what_is_settled() -> None:
    journal = opened()
    journal.add(spoken([1, 2, 3]))
    drained(journal)
    tell(journal, ack(0.5, audio_from=None))
    assert journal.kept_bytes == len(spoken([3]))


def test_a_resume_object_that_needs_forgotten_audio_is_not_taken() -> None:
    journal = opened()
    journal.add(spoken([1, 2, 3, 4]))
    drained(journal)
    tell(journal, ack(0.75, audio_from=0.5))
    tell(journal, ack(0.8, audio_from=0.25))
    journal.connect()
    config = journal.next_message()
    assert isinstance(config, str)
    assert json.loads(config)["resume"]["audio_from"] == 0.5


def test_a_rounding_behind_the_end_is_the_end() -> None:
    journal = opened()
    journal.add(spoken([1]))
    drained(journal)
    tell(journal, ack(0.2504))
    assert journal.kept_bytes == 0
    journal.add(spoken([2]))
    assert drained(journal) == [spoken([2])]


def test_the_end_is_sent_again_after_a_loss() -> None:
    journal = opened()
    journal.finish()
    assert drained(journal) == [END]
    journal.connect()
    journal.next_message()
    tell(journal, READY)
    assert drained(journal) == [END]


@pytest.mark.parametrize(
    ("config", "layout"),
    [
        ({}, Layout(2, 16_000)),
        ({"channels": 2}, Layout(4, 16_000)),
        ({"encoding": "pcm_f32le", "sample_rate": 44_100}, Layout(4, 44_100)),
        ({"encoding": "mulaw", "sample_rate": 8_000}, Layout(1, 8_000)),
        ({"encoding": "alaw", "channels": 2}, Layout(2, 16_000)),
    ],
)
def test_seconds_are_whole_frames_of_bytes(config: dict[str, Any], layout: Layout) -> None:
    journal = opened(config)
    assert journal.bytes_per_s == layout.frame_bytes * layout.sample_rate
    journal.add(bytes(journal.bytes_per_s))
    drained(journal)
    tell(journal, ack(0.33333, audio_from=0.33333))
    cut = round(0.33333 * layout.sample_rate) * layout.frame_bytes
    assert journal.kept_bytes == journal.bytes_per_s - cut


# Containers


def test_a_container_is_not_kept_and_cannot_be_resumed() -> None:
    journal = opened({"encoding": "container"})
    before = journal.can_resume
    journal.add(b"webm")
    assert not journal.wants_audio
    assert drained(journal) == [b"webm"]
    assert journal.kept_bytes == 0
    assert (before, journal.can_resume) == (True, False)
    with pytest.raises(InvalidParameter, match="container"):
        _ = journal.bytes_per_s


def test_a_container_waits_while_the_server_lags() -> None:
    journal = opened({"encoding": "container"}, max_backlog_s=10.0)
    journal.add(b"webm")
    tell(journal, {**ack(9.0), "lag": 5.0})
    assert drained(journal) == []
    tell(journal, {**ack(9.0), "lag": 4.0})
    assert drained(journal) == [b"webm"]


# Receiving


def test_messages_become_events() -> None:
    journal = opened()
    assert tell(journal, ack(0.0)) == Progress(0.0, 0.0, 0.0)
    event = tell(
        journal, final(" so", words=[{"word": "so", "start": 0, "end": 1, "probability": 1}])
    )
    assert event.text == " so"
    assert event.words[0].word == "so"
    assert tell(journal, READY) == Ready("s", READY["config"], LIMITS)  # type: ignore[arg-type]


def test_without_word_times_words_are_counted_in_the_text() -> None:
    journal = opened()
    assert tell(journal, final("one two")).words == ()
    tell(journal, final(" three"))
    statistics = {"windows": 2}
    done = tell(
        journal,
        {"type": "done", "text": "three", "duration": 3.0, "words": 1, "statistics": statistics},
    )
    assert done == Done("one two three", 3.0, 3, statistics)


def test_an_error_is_an_event_unless_it_is_fatal() -> None:
    journal = opened()
    error = {"type": "error", "code": "invalid_message", "message": "what?", "fatal": False}
    assert tell(journal, error) == Failed("invalid_message", "what?")
    refusals = [journal.refusal]
    assert tell(journal, {**error, "fatal": True}) is None
    refusals.append(journal.refusal)
    journal.connect()
    assert [*refusals, journal.refusal] == [None, ("invalid_message", "what?"), None]


def test_what_a_newer_server_says_is_passed_over() -> None:
    journal = opened()
    assert tell(journal, {"type": "applause", "at": 1.0}) is None
    assert tell(journal, {**ack(0.0), "mood": "good"}) == Progress(0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    "message",
    [
        "<html>",
        "[]",
        '{"type": "partial"}',
        '{"type": "final", "text": 3}',
        json.dumps({**READY, "protocol": 2}),
        json.dumps(ack(0.0, audio_from="now")),
        json.dumps({**ack(0.0), "resume": {}}),
    ],
)
def test_what_is_no_message_of_the_protocol_is_told(message: str) -> None:
    with pytest.raises(UnexpectedAnswer):
        opened().receive(message)


# A server that is about to stop

DRAINING = {"type": "warning", "code": "draining", "message": "go on elsewhere"}


def test_a_stream_goes_on_elsewhere_when_its_server_is_about_to_stop() -> None:
    journal = opened()
    told = [journal.wants_to_leave]
    tell(journal, DRAINING)
    told.append(journal.wants_to_leave)
    journal.connect()
    told.append(journal.wants_to_leave)
    assert told == [False, True, False]


def test_one_that_has_been_sent_to_its_end_waits_for_what_is_left() -> None:
    journal = opened()
    journal.finish()
    assert drained(journal) == [END]
    tell(journal, DRAINING)
    assert not journal.wants_to_leave


def test_a_container_cannot_go_elsewhere() -> None:
    journal = opened({"encoding": "container"})
    tell(journal, DRAINING)
    assert not journal.wants_to_leave
