"""One live stream, without I/O: the protocol around a `LiveListener`.

Messages, audio and hypotheses go in; windows and messages come out. Nothing here waits,
reads a clock or knows a socket. After anything that went in, take `next_window` until it
gives none, and `messages_to_send`; once `close_code` is set, close.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from whisper_serve.audio.pcm import Samples, seconds
from whisper_serve.audio.vad import VadOptions
from whisper_serve.errors import InvalidMessage, WhisperServeError
from whisper_serve.streaming.effort import Effort
from whisper_serve.streaming.events import Event, Silences, SpeechEvents
from whisper_serve.streaming.listener import (
    AlwaysSpeech,
    LiveListener,
    LiveWindow,
    Mark,
    Outcome,
    Vad,
)
from whisper_serve.streaming.messages import (
    Ack,
    Cause,
    ClientMessage,
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
    StreamConfig,
    UtteranceEnd,
    Warned,
    WasReset,
)
from whisper_serve.streaming.policies import make_policy
from whisper_serve.text.transcript import Hypothesis, Word

DONE, GOING_AWAY = 1000, 1001


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """What the service has settled for all streams. `reach_s`: how far a window reaches back
    over final text, as long as answers take no more than `target_s`; `limits` are told to the
    client."""

    vad: VadOptions = field(default_factory=VadOptions)
    reach_s: float = 20.0
    target_s: float | None = None
    limits: Mapping[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class Statistics:
    """What a stream came to so far."""

    windows: int = 0
    partials: int = 0
    retries: int = 0
    errors: int = 0
    speech_s: float = 0.0
    processing_s: float = 0.0

    def fields(self) -> dict[str, float]:
        return {
            "windows": self.windows,
            "partials": self.partials,
            "retries": self.retries,
            "errors": self.errors,
            "speech_s": round(self.speech_s, 3),
            "processing_s": round(self.processing_s, 3),
        }


class StreamSession:
    """A stream from its configuration to its `done`."""

    def __init__(
        self,
        config: StreamConfig,
        options: StreamOptions,
        *,
        session_id: str,
        make_vad: Callable[[], Vad],
    ) -> None:
        self._config = config
        self._options = options
        self._session_id = session_id
        vad = options.vad
        if config.vad_threshold is not None:
            vad = replace(vad, threshold=config.vad_threshold)
        self._listener = LiveListener(
            make_policy(config),
            make_vad() if config.vad else AlwaysSpeech(),
            vad,
            effort=Effort(options.reach_s, options.target_s),
            lead_s=config.prefix_padding,
            use_context=config.use_context,
            language=config.language,
            resume=config.resume,
        )
        self._began = self._listener.received
        silences = Silences(config.endpointing, config.utterance_end)
        self._events = SpeechEvents(self._began, vad, silences)
        self._statistics = Statistics()
        self._text: list[str] = []
        self._words = 0
        # The end of the last final word since the end of an utterance was told.
        self._spoken_until: float | None = None
        self._partial_shown = False
        self._ended = False
        # No more is taken, and the stream closes once all that came is final.
        self.is_leaving = False
        self._leaves_for: WhisperServeError | None = None
        self._warned: set[str] = set()
        self.close_code: int | None = None
        self._messages: list[ServerMessage] = [self._ready()]

    # What goes in

    def receive(self, message: ClientMessage) -> None:
        """Raises `InvalidRequest` for a message that cannot be obeyed; it has no effect."""
        if self._ended:
            raise InvalidMessage("the stream has ended")
        match message:
            case Configure(values):
                self._configure(self._config.changed(values))
            case Flush():
                self._listener.settle("flush")
            case Reset():
                self._listener.reset()
                self._clear_partial()
                self._messages.append(WasReset(seconds(self._listener.received)))
            case Keepalive():
                self.acknowledge()
            case End():
                self.receive_end()

    def receive_audio(self, samples: Samples) -> None:
        """16 kHz mono int16, any number. Raises `InvalidRequest` after the end."""
        if self._ended:
            raise InvalidMessage("the stream has ended")
        probabilities = self._listener.push(samples)
        if self._config.vad:
            self._notice(self._events.push(probabilities))

    def receive_end(self) -> None:
        """No more audio will come, said by the client or by its going away."""
        if self._ended:
            return
        self._ended = True
        probabilities = self._listener.finish()
        if self._config.vad:
            self._notice([*self._events.push(probabilities), *self._events.finish()])
        self._listener.settle("end")

    def receive_hypothesis(self, window: LiveWindow, hypothesis: Hypothesis) -> None:
        outcome = self._listener.answer(window, hypothesis)
        if outcome is None:
            return
        stats = hypothesis.stats
        processing_s = stats.encoded_s + stats.decoded_s
        self._statistics.processing_s += processing_s
        if window.final:
            self._statistics.windows += 1
        else:
            self._statistics.partials += 1
        if outcome.final:
            self._finalize(outcome, hypothesis, processing_s)
        self._show(outcome.tail)

    def receive_failure(self, window: LiveWindow, error: WhisperServeError) -> None:
        """A window could not be decoded. Its audio is not lost: it is heard with what follows."""
        if not self._listener.fail(window) or not window.final:
            return
        self._statistics.errors += 1
        if self.is_leaving:
            self.leave_now()
        elif self._ended:
            self.abort(error)
        else:
            self._messages.append(Failed(error.code, str(error), fatal=False))

    def receive_retry(self) -> None:
        """A window is being asked for once more."""
        self._statistics.retries += 1

    def refuse(self, error: WhisperServeError) -> None:
        """Tell the client that what it sent had no effect."""
        self._messages.append(Failed(error.code, str(error), fatal=False))

    def abort(self, error: WhisperServeError) -> None:
        """End the stream here; what is not final can be resumed."""
        self._messages.append(Failed(error.code, str(error), fatal=True))
        self.close_code = error.ws_close_code

    def leave(self, error: WhisperServeError | None = None) -> None:
        """Nothing more is taken, because of `error` or since the service goes away: settle what
        came, and close then. Of a stream whose client has ended it, that is what goes on anyway."""
        if not self._ended:
            self.is_leaving = True
            self._leaves_for = error
            self.receive_end()

    def leave_now(self) -> None:
        """Close; what is not final can be resumed elsewhere."""
        if self.close_code is None:
            self._clear_partial()
            self.acknowledge()
            if self._leaves_for is None:
                self.close_code = GOING_AWAY
            else:
                self.abort(self._leaves_for)

    def warn(self, code: str, message: str) -> None:
        """Warn the client, once for each `code`."""
        if code not in self._warned:
            self._warned.add(code)
            self._messages.append(Warned(code, message))

    def acknowledge(self) -> None:
        self._messages.append(Ack(seconds(self._listener.received), self._listener.resume_point))

    # What comes out

    @property
    def backlog_s(self) -> float:
        """Audio that was received and is not settled."""
        return seconds(self._listener.received - self._listener.settled)

    @property
    def received_s(self) -> float:
        """Audio that this connection brought."""
        return seconds(self._listener.received - self._began)

    @property
    def received_until_s(self) -> float:
        """Where in the whole stream the audio ends that was received."""
        return seconds(self._listener.received)

    @property
    def config(self) -> StreamConfig:
        return self._config

    def next_window(self, *, partials: bool = True) -> LiveWindow | None:
        """The window to decode next; without `partials` for final text only."""
        interim = partials and self._config.interim and not self._ended
        window = self._listener.next_window(partial=interim and self._config.policy != "agreement")
        for mark in self._listener.passed():
            self._reached(mark)
        return window

    def messages_to_send(self) -> list[ServerMessage]:
        messages, self._messages = self._messages, []
        return messages

    # In between

    def _configure(self, config: StreamConfig) -> None:
        changed = {"policy", "chunk_duration", "overlap"}
        if config.model_dump(include=changed) != self._config.model_dump(include=changed):
            self._listener.policy = make_policy(config)
        self._listener.language = config.language
        self._listener.use_context = config.use_context
        self._config = config
        self._messages.append(self._ready())

    def _ready(self) -> Ready:
        return Ready(self._session_id, self._config, self._options.limits)

    def _finalize(self, outcome: Outcome, hypothesis: Hypothesis, processing_s: float) -> None:
        text = "".join(word.text for word in outcome.final)
        if not self._text and self._config.resume is None:
            text = text.lstrip()
        self._text.append(text)
        self._words += len(outcome.final)
        self._spoken_until = outcome.final[-1].end
        self._messages.append(
            Final(
                text=text,
                words=outcome.final,
                language=hypothesis.language,
                language_probability=hypothesis.language_probability,
                processing_time=processing_s,
                resume=self._listener.resume_point,
                with_words=self._config.word_timestamps,
            )
        )

    def _show(self, tail: tuple[Word, ...]) -> None:
        if not self._config.interim:
            return
        if tail:
            text = "".join(word.text for word in tail)
            self._messages.append(Partial(tail[0].start, tail[-1].end, text, tail))
            self._partial_shown = True
        else:
            self._clear_partial()

    def _clear_partial(self) -> None:
        if self._partial_shown:
            at = seconds(self._listener.settled)
            self._messages.append(Partial(at, at, ""))
        self._partial_shown = False

    def _notice(self, events: Iterable[Event]) -> None:
        for event in events:
            if isinstance(event, Mark):
                self._listener.settle(event.reason, event.position)
            else:
                self._messages.append(event)

    def _reached(self, mark: Mark) -> None:
        """Everything before `mark` is final."""
        match mark.reason:
            case "silence" | "flush" as cause:
                self._tell_endpoint(Endpoint(seconds(mark.position), cause))
            case "utterance_end" if self._spoken_until is not None:
                self._messages.append(UtteranceEnd(self._spoken_until))
                self._spoken_until = None
            case "end":
                self._conclude()

    def _tell_endpoint(self, endpoint: Endpoint) -> None:
        self._mark_last_final(endpoint.cause)
        self._messages.append(endpoint)
        if endpoint.cause == "flush":
            self.acknowledge()

    def _mark_last_final(self, cause: Cause) -> None:
        """Text that was not sent yet is told to be the last before its endpoint."""
        for number, message in reversed([*enumerate(self._messages)]):
            if isinstance(message, Final):
                self._messages[number] = replace(message, endpoint=cause)
            if isinstance(message, Final | Endpoint):
                return

    def _conclude(self) -> None:
        """All of the stream is final."""
        if self.is_leaving:
            self.leave_now()
        if self.close_code is not None:
            return
        self._clear_partial()
        self._statistics.speech_s = self._events.speech_s
        self._messages.append(
            Done(
                text="".join(self._text),
                duration=seconds(self._listener.received),
                words=self._words,
                statistics=self._statistics.fields(),
            )
        )
        self.close_code = DONE
