"""A live stream as its client sees it: when the next piece is due, and what all that came means.

It waits for nothing and knows no clock: whoever holds the connection tells it the time. Times are
those of one monotonic clock.

    conversation = Conversation(speech, dialect, due=now)
    # as often as the handshake is refused:
    wait_s = conversation.refused(now, 503, retry_after_s=5.0)  # None: give up
    # when it was let in:
    conversation.began(now)
    while (at := conversation.next_at) is not None:
        ...  # wait until then
        conversation.sent(now)  # after `send(conversation.next_piece)`
    # for each message, on whatever thread:
    conversation.received(now, text)
    # in the end, however it came:
    conversation.ended(now)  # or conversation.failed(now, "why")
    conversation.outcome(wall_s)

A client's pace is that of speech. What it is late is its own fault and is told as such
(`Outcome.late_s`); delays of final text count from when samples really were sent, delays of words
from when they were spoken.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from benchmarks.delays import TOLD, Answers, Sent, Word, final_word_delays, shown_word_delays
from benchmarks.overload import REFUSALS
from loadtest.dialects import Dialect, Message
from loadtest.outcome import CUT, Outcome, Refusal, Timed
from loadtest.speech import Speech
from whisper_serve.audio.pcm import SAMPLE_RATE, seconds

PIECE = SAMPLE_RATE // 10
# What a client waits that was refused and not told how long.
UNTOLD_S = 1.0
NOT_ADMITTED, NO_END = "not admitted", "it ended before it was done"


@dataclass(slots=True)
class Conversation:
    """`due`: when the stream was to begin. A client that is refused tries again as it is told, for
    `patience_s` in all."""

    speech: Speech
    dialect: Dialect
    due: float
    patience_s: float = 0.0
    _pieces: list[bytes] = field(default_factory=list)
    _refusals: list[Refusal] = field(default_factory=list)
    _tried_at: float | None = None
    _sent: Sent | None = None
    _received: list[tuple[float, str]] = field(default_factory=list)
    _ended_at: float | None = None
    _fault: str = ""

    # What is told

    def tries(self, now: float) -> None:
        """An attempt begins."""
        self._tried_at = now

    def refused(self, now: float, status: int, retry_after_s: float | None) -> float | None:
        """How long to wait before the next attempt; None: no more of them, and the end."""
        self._refusals.append(Refusal(now - self.due, status, retry_after_s))
        if status not in REFUSALS:
            self.failed(now, f"refused with {status}")
            return None
        wait_s = UNTOLD_S if retry_after_s is None else retry_after_s
        if now + wait_s > self.due + self.patience_s:
            self.failed(now, f"{NOT_ADMITTED}: {status}")
            return None
        return wait_s

    def began(self, now: float) -> None:
        """It was let in, and the first sample is spoken now."""
        self._sent = Sent(now, PIECE)
        self._pieces = self.speech.pieces(PIECE)

    def sent(self, now: float) -> None:
        """The next piece has gone."""
        assert self._sent is not None
        self._sent.at.append(now)

    def stops(self) -> None:
        """Nothing more is said than was sent."""
        if self._sent is not None:
            del self._pieces[len(self._sent.at) :]

    def received(self, now: float, message: str) -> None:
        """Only noted: it is read when the stream is over."""
        self._received.append((now, message))

    def ended(self, now: float) -> None:
        """The service closed the connection in order."""
        self._ended_at = now

    def failed(self, now: float, fault: str) -> None:
        self._ended_at, self._fault = now, fault

    def cut(self, now: float) -> None:
        """Nobody waits for its end any more."""
        self.failed(now, CUT)

    # What is decided

    @property
    def is_over(self) -> bool:
        return self._ended_at is not None

    @property
    def next_at(self) -> float | None:
        """When the next piece has been spoken; None when all has been said."""
        if self._sent is None or len(self._sent.at) >= len(self._pieces):
            return None
        return self._sent.began + (len(self._sent.at) + 1) * seconds(PIECE)

    @property
    def next_piece(self) -> bytes:
        assert self._sent is not None
        return self._pieces[len(self._sent.at)]

    # What came of it

    def outcome(self, wall_s: float) -> Outcome:
        """`wall_s`: what the wall's clock shows more than this one."""
        base = Outcome(
            kind=self.dialect.kind,
            name=self.speech.name,
            due_at=self.due + wall_s,
            fault=self._fault,
            refusals=tuple(self._refusals),
        )
        return base if self._sent is None else self._told(base, self._sent)

    def _told(self, base: Outcome, sent: Sent) -> Outcome:
        assert self._ended_at is not None
        assert self._tried_at is not None
        messages = [(at, json.loads(text)) for at, text in self._received]
        said = [(at, told) for at, message in messages for told in self.dialect.reads(message)]
        answers = Answers([(at, told) for at, told in said if told["type"] in TOLD])
        words, audio_s = answers.words(), self._audio_s(sent)
        passages = self.speech.recording.passages
        return replace(
            base,
            fault=self._fault or self._unfinished(message for _, message in messages),
            passages=tuple(passage for passage in passages if passage.start < audio_s),
            audio_s=audio_s,
            text=answers.text,
            waited_s=sent.began - self.due,
            connect_s=sent.began - self._tried_at,
            ended_s=self._ended_at - self.due,
            took_s=self._ended_at - sent.began,
            first_word_s=_first_word_s(answers, sent),
            tail_s=self._ended_at - sent.at[-1] if sent.at else None,
            shown=self._timed(_shown(words, sent)),
            word_finals=self._timed(_word_finals(words, sent)),
            finals=self._timed(_finals(answers, sent)),
            late_s=tuple(sent.lags()),
            told=tuple(f"{told['type']} {told['code']}" for _, told in said if "code" in told),
        )

    def _audio_s(self, sent: Sent) -> float:
        return min(seconds(len(sent.at) * PIECE), self.speech.seconds)

    def _unfinished(self, messages: Iterable[Message]) -> str:
        is_done = any(message["type"] == self.dialect.last for message in messages)
        return "" if is_done else NO_END

    def _timed(self, delays: Iterable[tuple[float, float]]) -> tuple[Timed, ...]:
        return tuple(Timed(at - self.due, delay_s) for at, delay_s in delays)


def _first_word_s(answers: Answers, sent: Sent) -> float | None:
    shown = (at for at, told in answers.messages if told.get("text", "").strip())
    return next((at - sent.began for at in shown), None)


def _shown(words: Sequence[Word], sent: Sent) -> Iterator[tuple[float, float]]:
    at = [min(word.final_at, word.shown_at or word.final_at) for word in words]
    return zip(at, shown_word_delays(words, sent.began), strict=True)


def _word_finals(words: Sequence[Word], sent: Sent) -> Iterator[tuple[float, float]]:
    at = [word.final_at for word in words]
    return zip(at, final_word_delays(words, sent.began), strict=True)


def _finals(answers: Answers, sent: Sent) -> Iterator[tuple[float, float]]:
    at = [at for at, _ in answers.of("final")]
    return zip(at, answers.final_delays(sent), strict=True)
