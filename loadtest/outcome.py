"""What one stream or one file came to, as plain values: they travel between processes, and every
percentile is taken of all of them together.

Times are seconds. `since` counts from `due_at`, which is the clock of the wall.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.corpus import Passage

CUT = "cut off"
STREAM_KINDS = ("LiveStream", "DeepgramStream")


@dataclass(frozen=True, slots=True)
class Refusal:
    """An attempt that was not let in. `retry_after_s`: when to come back, if it was told."""

    since: float
    status: int
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Timed:
    """A delay of `s`, known `since`."""

    since: float
    s: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """`kind`: the user class. `fault`: why it failed, empty when it was served; `CUT` when the
    load test ended it. What was said are `passages` and `audio_s` of them; `text` came back.

    Of those that were let in: `waited_s` from `due_at` until then, refusals and the waits that
    they asked for included; `connect_s` of the last attempt alone; `ended_s` since `due_at`.
    `took_s`: a file's answer since it was asked for, or a stream's last word since its first
    sample.

    Of streams: `first_word_s` from the first sample sent until any text was shown; `shown` and
    `word_finals` of each word from its end in the audio; `finals` of each piece of final text
    from when the last sample that it needed was sent; `tail_s` from the last sample of all until
    the service said that it is done; `late_s` how late this program sent each piece; `told` which
    errors and warnings the service told.
    """

    kind: str
    name: str
    due_at: float
    fault: str = ""
    refusals: tuple[Refusal, ...] = ()
    passages: tuple[Passage, ...] = ()
    audio_s: float = 0.0
    text: str = ""
    waited_s: float | None = None
    connect_s: float | None = None
    ended_s: float | None = None
    took_s: float | None = None
    first_word_s: float | None = None
    tail_s: float | None = None
    shown: tuple[Timed, ...] = ()
    word_finals: tuple[Timed, ...] = ()
    finals: tuple[Timed, ...] = ()
    late_s: tuple[float, ...] = ()
    told: tuple[str, ...] = ()

    @property
    def is_stream(self) -> bool:
        return self.kind in STREAM_KINDS

    @property
    def is_served(self) -> bool:
        return not self.fault

    @property
    def is_cut(self) -> bool:
        return self.fault == CUT

    @property
    def span(self) -> tuple[float, float] | None:
        """When a stream was let in and when it was over, by the wall's clock."""
        if not self.is_stream or self.waited_s is None or self.ended_s is None:
            return None
        return self.due_at + self.waited_s, self.due_at + self.ended_s

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def outcome_of(data: Mapping[str, Any]) -> Outcome:
    """From what `as_json` gave, whatever carried it."""
    several = {
        "refusals": tuple(Refusal(**each) for each in data["refusals"]),
        "passages": tuple(Passage(**each) for each in data["passages"]),
        **{
            name: tuple(Timed(**each) for each in data[name])
            for name in ("shown", "word_finals", "finals")
        },
        **{name: tuple(data[name]) for name in ("late_s", "told")},
    }
    return Outcome(**{**data, **several})


def wall_s() -> float:
    """What the wall's clock shows more than the monotonic one."""
    return time.time() - time.monotonic()
