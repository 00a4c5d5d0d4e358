"""What a stream tells its user, and how it is read from the server's messages.

All times are seconds from the start of the stream, across reconnections.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any

from pydantic import BeforeValidator, TypeAdapter, ValidationError

from whisper_serve.client.answers import Word
from whisper_serve.errors import UnexpectedAnswer
from whisper_serve.streaming.messages import Cause

# The wire has null where no word times were asked for.
Words = Annotated[tuple[Word, ...], BeforeValidator(lambda words: words or ())]


@dataclass(frozen=True, slots=True)
class Ready:
    """A connection stands; `config` is in force there. Comes again after a reconnection."""

    session_id: str
    config: Mapping[str, Any]
    limits: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Partial:
    """Text behind everything final that may still change; it replaces the one before."""

    start: float
    end: float
    text: str


@dataclass(frozen=True, slots=True)
class Final:
    """Text that never changes. The transcript is the concatenation of all `text`.

    `words` is empty when no word times were asked for. `processing_time`: seconds that the
    engine worked.
    """

    start: float
    end: float
    text: str
    words: Words
    language: str | None
    language_probability: float
    processing_time: float


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Everything before `at` is final, because of a silence or a flush."""

    at: float
    cause: Cause


@dataclass(frozen=True, slots=True)
class UtteranceEnd:
    """Nobody has spoken for some time since the last final word, which ended at `at`."""

    at: float


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """Somebody began to speak."""

    at: float


@dataclass(frozen=True, slots=True)
class SpeechStopped:
    """Nobody speaks any more."""

    at: float


@dataclass(frozen=True, slots=True)
class Progress:
    """Audio before `committed_until` is settled; `lag` seconds of what the server has wait."""

    received_until: float
    committed_until: float
    lag: float


@dataclass(frozen=True, slots=True)
class Warned:
    """The server warns; the codes are those of `docs/protocol.md`."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Failed:
    """Something went wrong, and the stream goes on."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Reconnecting:
    """The connection was lost because of `reason`; try number `attempt` since the last
    progress follows in `delay_s` seconds. Nothing that was final is lost or comes twice."""

    attempt: int
    reason: str
    delay_s: float


@dataclass(frozen=True, slots=True)
class Done:
    """The end of the stream, which lasted `duration` seconds.

    `text` and the number of `words` are those of the whole stream. `statistics` are those of
    the last connection.
    """

    text: str
    duration: float
    words: int
    statistics: Mapping[str, float]


Event = (
    Ready
    | Partial
    | Final
    | Endpoint
    | UtteranceEnd
    | SpeechStarted
    | SpeechStopped
    | Progress
    | Warned
    | Failed
    | Reconnecting
    | Done
)
FROM_SERVER: dict[str, type[Event]] = {
    "ready": Ready,
    "partial": Partial,
    "final": Final,
    "endpoint": Endpoint,
    "utterance_end": UtteranceEnd,
    "speech_started": SpeechStarted,
    "speech_stopped": SpeechStopped,
    "ack": Progress,
    "warning": Warned,
    "error": Failed,
    "done": Done,
}


def event_of(message: Mapping[str, Any]) -> Event | None:
    """None for a message of a kind that this version does not know.

    Raises `UnexpectedAnswer` for one that is known, but not like this.
    """
    kind = str(message.get("type"))
    if kind not in FROM_SERVER:
        return None
    try:
        return _adapter(kind).validate_python(message)
    except ValidationError as exc:
        error = exc.errors()[0]
        where = ".".join(str(part) for part in error["loc"])
        raise UnexpectedAnswer(f"the server's {kind!r} is wrong: {where}: {error['msg']}") from exc


@cache
def _adapter(kind: str) -> TypeAdapter[Event]:
    return TypeAdapter(FROM_SERVER[kind])
