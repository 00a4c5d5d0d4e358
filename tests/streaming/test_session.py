"""The protocol of one stream, with an engine that answers at once or not at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from dataclasses import replace as with_changes
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.streaming.speaker import Ears, cuts, hear, lengths, speech, text_of, utterances
from whisper_serve.audio.pcm import Samples
from whisper_serve.errors import (
    DeadlineExceeded,
    EngineFailed,
    InvalidMessage,
    InvalidParameter,
    InvalidRequest,
    QuotaExceeded,
)
from whisper_serve.streaming.listener import LiveWindow, Probabilities
from whisper_serve.streaming.messages import (
    Ack,
    Configure,
    Done,
    End,
    Endpoint,
    Failed,
    Final,
    Flush,
    Keepalive,
    Partial,
    Ready,
    Reset,
    ServerMessage,
    SpeechStarted,
    SpeechStopped,
    StreamConfig,
    UtteranceEnd,
    Warned,
    WasReset,
)
from whisper_serve.streaming.session import DONE, GOING_AWAY, StreamOptions, StreamSession
from whisper_serve.text.transcript import DecodeStats, Hypothesis

WORDS = [(0.3, 0.4)] * 12
POLICIES = ["chunk", "agreement", "utterance"]
M = TypeVar("M", bound=ServerMessage)


@dataclass
class Stream:
    """A session whose windows `engine` answers at once."""

    session: StreamSession
    engine: Callable[[LiveWindow], Hypothesis] = hear
    sent: list[ServerMessage] = field(default_factory=list)
    windows: list[LiveWindow] = field(default_factory=list)

    def run(self) -> None:
        while (window := self.session.next_window()) is not None:
            self.windows.append(window)
            self.session.receive_hypothesis(window, self.engine(window))
        self.sent += self.session.messages_to_send()

    def push(self, samples: Samples, step: int = 1_600) -> None:
        for piece in cuts(samples, [step]):
            self.session.receive_audio(piece)
            self.run()

    def end(self) -> Done:
        self.session.receive(End())
        self.run()
        assert self.session.close_code == DONE
        done = self.sent[-1]
        assert isinstance(done, Done)
        return done

    def all(self, kind: type[M]) -> list[M]:
        return [message for message in self.sent if isinstance(message, kind)]

    @property
    def turns(self) -> list[object]:
        """Final texts, causes of endpoints, and where utterances ended, as they came."""
        told: list[object] = []
        for message in self.sent:
            match message:
                case Final(text=text):
                    told.append(text)
                case Endpoint(cause=cause):
                    told.append(cause)
                case UtteranceEnd(at=at):
                    told.append(at)
        return told


def stream(
    engine: Callable[[LiveWindow], Hypothesis] = hear,
    options: StreamOptions | None = None,
    **values: Any,
) -> Stream:
    session = StreamSession(
        StreamConfig.parse(values), options or StreamOptions(), session_id="id", make_vad=Ears
    )
    return Stream(session, engine)


# From ready to done


def test_the_first_message_tells_the_configuration_and_the_limits() -> None:
    opened = stream(options=StreamOptions(limits={"max_backlog_s": 60.0}), language="German")
    [ready] = opened.session.messages_to_send()
    assert isinstance(ready, Ready)
    assert ready.config.language == "de"
    assert ready.limits == {"max_backlog_s": 60.0}


def test_a_stream_without_audio_is_done_at_once() -> None:
    done = stream().end()
    assert (done.text, done.words, done.duration) == ("", 0, 0.0)


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=20, deadline=None)
@given(words=utterances(max_words=25))
def test_the_transcript_is_what_all_finals_say(
    policy: str, words: list[tuple[float, float]]
) -> None:
    spoken_s = lengths(words)
    spoken = stream(lambda w: hear(w, spoken_s=spoken_s), policy=policy)
    spoken.push(speech(words))
    done = spoken.end()
    text = "".join(final.text for final in spoken.all(Final))
    assert done.text == text == " ".join(text_of(len(words)))
    assert done.words == len(words)


def test_statistics_tell_what_a_stream_came_to() -> None:
    stats = DecodeStats(encoded_s=0.25, decoded_s=0.5)
    spoken = stream(lambda w: with_changes(hear(w), stats=stats))
    spoken.push(speech(WORDS))
    spoken.session.receive_retry()
    done = spoken.end()
    final = [window for window in spoken.windows if window.final]
    assert done.statistics["windows"] == len(final)
    assert done.statistics["partials"] == len(spoken.windows) - len(final) > 0
    assert done.statistics["retries"] == 1
    assert done.statistics["processing_s"] == 0.75 * len(spoken.windows)
    assert done.statistics["speech_s"] == pytest.approx(12 * 0.4, abs=12 * 0.35)
    assert spoken.all(Final)[0].processing_time == 0.75


def test_finals_tell_language_words_and_where_to_resume() -> None:
    spoken = stream()
    spoken.push(speech(WORDS))
    spoken.end()
    for final in spoken.all(Final):
        assert final.language == "en"
        assert "".join(word.text for word in final.words).split() == final.text.split()
        assert final.resume.committed_until >= final.words[-1].end - 1e-4


def test_a_resumed_stream_keeps_the_space_before_its_first_word() -> None:
    first = stream()
    first.push(speech(WORDS))
    before = first.all(Final)[-1]
    resume = before.resume.model_dump(mode="json")
    second = stream(resume=resume)
    second.push(speech(WORDS)[round(resume["audio_from"] * 16_000) :])
    second.end()
    text = "".join(final.text for final in [*first.all(Final), *second.all(Final)])
    assert text.split() == text_of(12)
    assert second.all(Final)[0].text.startswith(" ")


# Messages


def test_a_flush_is_acknowledged_when_all_is_final() -> None:
    spoken = stream(chunk_duration=20.0)
    spoken.push(speech(WORDS[:3]))
    assert spoken.all(Final) == []
    spoken.session.receive(Flush())
    spoken.run()
    ack = spoken.sent[-1]
    assert isinstance(ack, Ack)
    assert ack.received_until == pytest.approx(ack.resume.committed_until, abs=1e-4)
    assert "".join(final.text for final in spoken.all(Final)).split() == text_of(3)


def test_a_flush_of_nothing_is_acknowledged_too() -> None:
    quiet = stream()
    quiet.session.receive(Flush())
    quiet.run()
    assert isinstance(quiet.sent[-1], Ack)


def test_a_reset_drops_what_is_pending_and_says_so() -> None:
    spoken = stream(chunk_duration=20.0)
    spoken.push(speech(WORDS[:6]))
    assert spoken.all(Partial)[-1].text
    spoken.session.receive(Reset())
    spoken.run()
    assert spoken.all(Partial)[-1].text == ""
    assert spoken.all(WasReset)[0].at == pytest.approx(6 * 0.7)
    assert spoken.end().text == ""


def test_a_keepalive_is_answered() -> None:
    quiet = stream()
    quiet.session.receive(Keepalive())
    quiet.run()
    assert isinstance(quiet.sent[-1], Ack)


def test_a_new_configuration_is_told_and_holds_from_here_on() -> None:
    spoken = stream(chunk_duration=20.0, interim=False)
    spoken.push(speech(WORDS))
    assert spoken.windows == []
    spoken.session.receive(Configure({"chunk_duration": 1.0, "language": "de"}))
    spoken.push(np.zeros(1_600, np.int16))
    assert spoken.all(Ready)[-1].config.chunk_duration == 1.0
    assert spoken.windows[0].language == "de"


@pytest.mark.parametrize(
    "values", [{"sample_rate": 8_000}, {"nonsense": 1}, {"overlap": 9.0}, {"vad": False}]
)
def test_a_wrong_change_has_no_effect(values: dict[str, Any]) -> None:
    spoken = stream()
    with pytest.raises(InvalidRequest):
        spoken.session.receive(Configure(values))
    spoken.run()
    assert len(spoken.all(Ready)) == 1
    assert spoken.session.config == StreamConfig()


@pytest.mark.parametrize("message", [End(), Flush(), Reset(), Keepalive(), Configure({})])
def test_nothing_is_taken_after_the_end(message: Any) -> None:
    ended = stream()
    ended.session.receive(End())
    with pytest.raises(InvalidMessage, match="ended"):
        ended.session.receive(message)
    with pytest.raises(InvalidMessage, match="ended"):
        ended.session.receive_audio(np.zeros(10, np.int16))


# Speech and partials


def test_speech_is_told_where_it_starts_and_stops() -> None:
    spoken = stream()
    spoken.push(speech([(1.0, 0.4), (0.1, 0.4), (2.0, 0.4)]))
    spoken.end()
    started = [message.at for message in spoken.all(SpeechStarted)]
    stopped = [message.at for message in spoken.all(SpeechStopped)]
    assert started == pytest.approx([1.0, 3.9], abs=0.05)
    assert stopped == pytest.approx([1.9, 4.3], abs=0.05)


# Turns

PAUSED = [(1.0, 0.4), (0.1, 0.4), (0.8, 0.4), (3.0, 0.4), (0.2, 0.4)]


def test_each_silence_is_an_endpoint_behind_all_that_was_said_before_it() -> None:
    spoken = stream(endpointing=0.6, chunk_duration=20.0, interim=False)
    spoken.push(speech(PAUSED))
    spoken.end()
    assert spoken.turns == ["w0 w1", "silence", " w2", "silence", " w3 w4", "silence"]
    assert [final.endpoint for final in spoken.all(Final)] == ["silence"] * 3
    at = [endpoint.at for endpoint in spoken.all(Endpoint)]
    assert at == pytest.approx([2.5, 3.7, 7.1], abs=0.05)


def test_without_endpointing_nothing_is_said_of_endpoints() -> None:
    spoken = stream()
    spoken.push(speech(PAUSED))
    spoken.end()
    assert spoken.all(Endpoint) == []
    assert {final.endpoint for final in spoken.all(Final)} == {None}


def test_speech_has_stopped_after_the_silence_of_an_endpoint() -> None:
    spoken = stream(endpointing=1.5)
    spoken.push(speech(PAUSED))
    spoken.end()
    stopped = [message.at for message in spoken.all(SpeechStopped)]
    assert stopped == pytest.approx([3.1, 7.1], abs=0.05)


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=25, deadline=None)
@given(
    words=utterances(max_words=20),
    endpointing=st.sampled_from([0.1, 0.3, 1.0, 3.0]),
    utterance_end=st.sampled_from([None, 0.5, 1.5]),
    sizes=st.lists(st.integers(200, 60_000), min_size=1, max_size=5),
)
def test_turns_are_the_same_however_the_audio_comes(
    policy: str,
    words: list[tuple[float, float]],
    endpointing: float,
    utterance_end: float | None,
    sizes: list[int],
) -> None:
    spoken_s = lengths(words)

    def told(sizes: list[int]) -> tuple[list[object], list[tuple[int, int]]]:
        spoken = stream(
            lambda w: hear(w, spoken_s=spoken_s),
            policy=policy,
            endpointing=endpointing,
            utterance_end=utterance_end,
            interim=False,
        )
        for piece in cuts(speech(words), sizes):
            spoken.session.receive_audio(piece)
            spoken.run()
        done = spoken.end()
        assert done.text == " ".join(text_of(len(words)))
        stopped, ends = len(spoken.all(SpeechStopped)), spoken.all(Endpoint)
        assert len(ends) == stopped
        return spoken.turns, [(window.start, window.end) for window in spoken.windows]

    assert told(sizes) == told([512])


def test_an_utterance_ends_once_behind_its_last_final_word() -> None:
    spoken = stream(endpointing=0.3, utterance_end=1.0)
    spoken.push(speech(PAUSED))
    spoken.push(np.zeros(16_000 * 4, np.int16))
    one, two, first, three, second = [t for t in spoken.turns if t != "silence"]
    assert (one, two, three) == ("w0 w1", " w2", " w3 w4")
    assert (first, second) == (pytest.approx(3.1, abs=0.01), pytest.approx(7.1, abs=0.01))


def test_sound_without_words_is_an_endpoint_and_no_end_of_an_utterance() -> None:
    silent = Hypothesis((), "en", 1.0)
    spoken = stream(lambda _: silent, endpointing=0.3, utterance_end=1.0)
    spoken.push(speech([(1.0, 0.4), (3.0, 0.4)]))
    spoken.end()
    assert [endpoint.cause for endpoint in spoken.all(Endpoint)] == ["silence"] * 2
    assert spoken.all(UtteranceEnd) == []


def test_a_flush_is_an_endpoint_of_its_own() -> None:
    spoken = stream(endpointing=0.5, chunk_duration=20.0)
    spoken.push(speech(WORDS[:3]))
    spoken.session.receive(Flush())
    spoken.run()
    [final] = spoken.all(Final)
    [endpoint] = spoken.all(Endpoint)
    assert (final.endpoint, endpoint.cause) == ("flush", "flush")
    assert endpoint.at == pytest.approx(2.1)


def test_endpoints_come_in_the_order_of_what_they_end_and_each_configuration_is_told_once() -> None:
    """What a dialect builds on that has to know which text belongs to what."""
    spoken = stream(endpointing=0.5, chunk_duration=20.0, interim=False)
    session = spoken.session
    session.receive_audio(speech([(0.3, 0.4), (1.0, 0.4)]))
    session.receive(Configure({}))
    session.receive(Flush())
    session.receive_audio(speech([(0.1, 0.0)]))
    session.receive(Configure({}))
    session.receive(Flush())
    session.receive_audio(speech([(0.3, 0.4), (1.0, 0.0)]))
    spoken.run()
    causes = [endpoint.cause for endpoint in spoken.all(Endpoint)]
    assert causes == ["silence", "flush", "flush", "silence"]
    at = [endpoint.at for endpoint in spoken.all(Endpoint)]
    assert at == sorted(at)
    assert len(spoken.all(Ready)) == 3


def test_a_final_tells_its_endpoint_whatever_is_told_in_between() -> None:
    session = stream(endpointing=0.5, chunk_duration=20.0).session
    session.receive_audio(speech([(0.3, 0.4), (0.6, 0.0)]))
    window = session.next_window()
    assert window is not None
    session.receive_hypothesis(window, hear(window))
    session.acknowledge()
    assert session.next_window() is None
    told = session.messages_to_send()
    assert [m.endpoint for m in told if isinstance(m, Final)] == ["silence"]
    assert isinstance(told[-1], Endpoint)


def test_what_is_said_before_a_threshold_of_its_own_is_no_speech() -> None:
    class Doubtful(Ears):
        def push(self, samples: Samples) -> Probabilities:
            return super().push(samples) * np.float32(0.6)

    for threshold, count in ((0.5, 1), (0.7, 0)):
        session = StreamSession(
            StreamConfig.parse({"vad_threshold": threshold}),
            StreamOptions(),
            session_id="id",
            make_vad=Doubtful,
        )
        spoken = Stream(session)
        spoken.push(speech([(1.0, 0.5)]))
        spoken.end()
        assert len(spoken.all(SpeechStarted)) == count


def test_what_is_kept_before_speech_can_be_chosen() -> None:
    for padding in (0.0, 0.1, 1.5):
        spoken = stream(prefix_padding=padding, interim=False)
        spoken.push(speech([(3.0, 0.5)]))
        spoken.end()
        [window] = spoken.windows
        assert window.start == pytest.approx((3.0 - padding) * 16_000, abs=512)


@pytest.mark.parametrize("key", ["endpointing", "utterance_end"])
def test_silence_is_told_by_voice_activity_detection_only(key: str) -> None:
    with pytest.raises(InvalidParameter, match=f"{key}: needs vad"):
        StreamConfig.parse({"vad": False, key: 1.0})


# Partials


def test_without_interim_there_are_no_partials() -> None:
    spoken = stream(interim=False)
    spoken.push(speech(WORDS))
    spoken.end()
    assert spoken.all(Partial) == []
    assert all(window.final for window in spoken.windows)


@pytest.mark.parametrize("policy", POLICIES)
def test_partials_come_while_somebody_speaks_and_repeat_nothing_final(policy: str) -> None:
    words = [(0.05, 0.4)] * 40
    spoken_s = lengths(words)
    spoken = stream(lambda w: hear(w, spoken_s=spoken_s), policy=policy)
    spoken.push(speech(words))
    spoken.end()
    final: list[str] = []
    for message in spoken.sent:
        if isinstance(message, Final):
            final += message.text.split()
        elif isinstance(message, Partial):
            assert not set(message.text.split()) & set(final)
    assert len(spoken.all(Partial)) >= 8
    assert final == text_of(40)


def test_a_partial_that_became_final_is_taken_back() -> None:
    spoken = stream()
    spoken.push(speech(WORDS[:5]))
    assert spoken.all(Partial)[-1].text
    spoken.push(np.zeros(3 * 16_000, np.int16))
    assert spoken.all(Final)
    assert spoken.all(Partial)[-1].text == ""


# Failures


def test_a_failed_window_is_told_and_its_words_come_later() -> None:
    broken = stream(interim=False)
    failures = iter([True, True])

    def run() -> None:
        while (window := broken.session.next_window()) is not None:
            if next(failures, False):
                broken.session.receive_failure(window, EngineFailed("secret"))
            else:
                broken.session.receive_hypothesis(window, hear(window))
        broken.sent += broken.session.messages_to_send()

    for piece in cuts(speech([(0.3, 0.4)] * 30), [1_600]):
        broken.session.receive_audio(piece)
        run()
    broken.session.receive(End())
    run()
    errors = broken.all(Failed)
    assert [(error.code, error.fatal) for error in errors] == [("engine_failed", False)] * 2
    assert "secret" not in errors[0].message
    done = broken.sent[-1]
    assert isinstance(done, Done)
    assert done.text.split() == text_of(30)
    assert done.statistics["errors"] == 2


def test_a_failed_partial_is_no_matter() -> None:
    spoken = stream(chunk_duration=20.0)
    spoken.session.receive_audio(speech(WORDS))
    partial = spoken.session.next_window()
    assert partial is not None
    spoken.session.receive_failure(partial, DeadlineExceeded(1.0))
    spoken.run()
    assert spoken.all(Failed) == []
    assert spoken.end().statistics["errors"] == 0


def test_what_cannot_be_decoded_at_the_end_is_to_be_resumed() -> None:
    spoken = stream(interim=False, chunk_duration=20.0)
    spoken.push(speech(WORDS))
    spoken.session.receive(End())
    window = spoken.session.next_window()
    assert window is not None
    spoken.session.receive_failure(window, EngineFailed("secret"))
    spoken.run()
    assert spoken.all(Failed)[0].fatal
    assert spoken.session.close_code == 1011
    assert spoken.all(Done) == []


def test_an_abort_is_the_last_word() -> None:
    spoken = stream()
    spoken.session.abort(InvalidParameter("language", "unknown"))
    spoken.run()
    assert spoken.sent[-1] == Failed("invalid_parameter", "language: unknown", fatal=True)
    assert spoken.session.close_code == 1008


def test_a_warning_comes_once() -> None:
    spoken = stream()
    for _ in range(3):
        spoken.session.warn("falling_behind", "slow")
    spoken.run()
    assert len(spoken.all(Warned)) == 1


def test_the_backlog_is_what_was_received_and_is_not_settled() -> None:
    spoken = stream(interim=False, chunk_duration=20.0)
    spoken.push(speech(WORDS))
    assert spoken.session.backlog_s == pytest.approx(12 * 0.7 - 0.2, abs=0.1)
    assert spoken.session.received_s == pytest.approx(12 * 0.7)
    spoken.end()
    assert spoken.session.backlog_s == 0.0


# The service goes away

# Of `WORDS`, in samples.
WORD, PAUSE = 11_200, 4_800


@settings(max_examples=40, derandomize=True)
@given(policy=st.sampled_from(POLICIES), at=st.integers(0, 12 * WORD), seamless=st.booleans())
def test_a_stream_that_is_left_anywhere_goes_on_elsewhere_with_nothing_lost_or_twice(
    policy: str, at: int, *, seamless: bool
) -> None:
    """`seamless`: at once, without settling. What is settled ends in a pause here, since a word
    that is cut in two is two words to this engine."""
    audio = speech(WORDS)
    if not seamless:
        at = at // WORD * WORD + PAUSE // 2
    first = stream(policy=policy)
    first.push(audio[:at])
    if seamless:
        first.session.leave_now()
    else:
        first.session.leave()
    first.run()
    assert first.session.close_code == GOING_AWAY
    assert first.all(Done) == []
    ack = first.sent[-1]
    assert isinstance(ack, Ack)
    if not seamless:
        assert ack.resume.committed_until == pytest.approx(ack.received_until, abs=1e-4)
    second = stream(policy=policy, resume=ack.resume.model_dump(mode="json"))
    second.push(audio[round((ack.resume.audio_from or 0.0) * 16_000) :])
    second.end()
    finals = [*first.all(Final), *second.all(Final)]
    words = [word.text.strip() for final in finals for word in final.words]
    assert words == text_of(len(WORDS))


def test_one_that_is_left_for_an_error_is_settled_first() -> None:
    spoken = stream(interim=False, chunk_duration=20.0)
    spoken.push(speech(WORDS))
    spoken.session.leave(QuotaExceeded(60.0, 3600.0))
    spoken.run()
    words = [word.text.strip() for final in spoken.all(Final) for word in final.words]
    assert words == text_of(len(WORDS))
    assert isinstance(spoken.sent[-1], Failed)
    assert (spoken.sent[-1].code, spoken.sent[-1].fatal) == ("quota_exceeded", True)
    assert spoken.all(Ack)[-1].resume.committed_until == pytest.approx(
        spoken.all(Ack)[-1].received_until, abs=1e-4
    )
    assert spoken.session.close_code == QuotaExceeded.ws_close_code


def test_nothing_is_taken_of_one_that_is_left() -> None:
    spoken = stream(interim=False, chunk_duration=20.0)
    spoken.push(speech(WORDS))
    spoken.session.leave()
    assert spoken.session.is_leaving
    with pytest.raises(InvalidMessage):
        spoken.session.receive_audio(speech(WORDS))


def test_a_window_that_fails_meanwhile_leaves_the_rest_to_be_resumed() -> None:
    spoken = stream(interim=False, chunk_duration=20.0)
    spoken.push(speech(WORDS))
    spoken.session.leave()
    window = spoken.session.next_window()
    assert window is not None
    spoken.session.receive_failure(window, EngineFailed("secret"))
    spoken.run()
    assert spoken.session.close_code == GOING_AWAY
    assert spoken.all(Failed) == []
    assert spoken.all(Ack)[-1].resume.committed_until < spoken.all(Ack)[-1].received_until


def test_one_that_its_client_has_ended_is_not_left() -> None:
    spoken = stream(interim=False, chunk_duration=20.0)
    spoken.push(speech(WORDS))
    spoken.session.receive(End())
    spoken.session.leave()
    spoken.run()
    assert spoken.session.close_code == DONE
    spoken.session.leave_now()
    assert spoken.session.close_code == DONE
