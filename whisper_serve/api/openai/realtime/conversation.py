"""The items of a conversation, from the first sound of a turn to its transcript.

A turn is *open* while somebody speaks, at most one at a time; then it is committed and waits
for its text. Voice activity runs ahead of text, so several may wait. For each that waits, the
stream tells one `Endpoint`, in the same order, and all text before it belongs to the oldest.
So text may come for a turn that is open still, and is told at once.

Each method gives the events that are to be told. Times are seconds from the start of the
stream.
"""

from __future__ import annotations

import uuid
from collections import deque
from dataclasses import dataclass, field

from whisper_serve.api.openai.realtime.server_events import (
    Event,
    cleared,
    committed,
    completed,
    delta,
    logprobs_of,
    refusal,
    speech_started,
    speech_stopped,
    transcription_failed,
)
from whisper_serve.errors import EmptyAudio
from whisper_serve.streaming.messages import Failed, Final

# The API commits no less.
MIN_COMMIT_S = 0.1


@dataclass(slots=True)
class Item:
    """A turn. What is said in one that `is_dropped` is not told."""

    start_s: float
    end_s: float = 0.0
    is_dropped: bool = False
    text: str = ""
    logprobs: list[Event] = field(default_factory=list)
    item_id: str = field(default_factory=lambda: f"item_{uuid.uuid4().hex[:24]}")


class Conversation:
    """`is_beta` and `with_logprobs` may be set at any time, and hold from then on."""

    def __init__(self, *, is_beta: bool = False, with_logprobs: bool = False) -> None:
        self.is_beta, self.with_logprobs = is_beta, with_logprobs
        self._open: Item | None = None
        # None stands for a place in the stream that ends no turn.
        self._waiting: deque[Item | None] = deque()
        self._until_s = 0.0
        self._previous_id: str | None = None
        # All audio before it has been heard.
        self.settled_s = 0.0

    def speech_started(self, at_s: float) -> list[Event]:
        """`at_s`: where the turn's audio begins, unless an earlier turn holds it."""
        item = self._opened(at_s)
        return [speech_started(item.item_id, item.start_s)]

    def speech_stopped(self, at_s: float) -> list[Event]:
        item = self._opened(self._until_s)
        return [speech_stopped(item.item_id, at_s), *self._commit(at_s)]

    def commit(self, until_s: float, event_id: str | None = None) -> list[Event]:
        """A turn of all that came behind the last; of too little there is none."""
        if self._open is None and until_s - self._until_s < MIN_COMMIT_S:
            self._waiting.append(None)
            return [refusal(nothing_to_commit(until_s - self._until_s), None, event_id)]
        self._opened(self._until_s)
        return self._commit(until_s)

    def clear(self, until_s: float) -> list[Event]:
        """What came behind the last turn is not to be told. Nor is it taken from the stream,
        which may still hear turns before it."""
        item = self._opened(self._until_s)
        item.is_dropped = True
        self._wait_for(item, until_s)
        return [cleared()]

    def said(self, final: Final) -> list[Event]:
        oldest = next((item for item in self._waiting if item), None)
        item = oldest or self._opened(self._until_s)
        text = final.text if item.text else final.text.lstrip()
        item.text += text
        logprobs = logprobs_of(final.words, text)
        item.logprobs += logprobs
        if item.is_dropped or not text:
            return []
        return [delta(item.item_id, text, logprobs if self.with_logprobs else None)]

    def endpoint(self) -> list[Event]:
        """All text of the oldest turn that waits was said."""
        item = self._waiting.popleft() if self._waiting else None
        if item is not None:
            self.settled_s = item.end_s
        if item is None or item.is_dropped:
            return []
        logprobs = item.logprobs if self.with_logprobs else None
        return [completed(item.item_id, item.text, item.end_s - item.start_s, logprobs)]

    def failed(self, error: Failed) -> list[Event]:
        """No text will come any more."""
        items = [*self._waiting, self._open]
        self._waiting.clear()
        self._open = None
        return [
            transcription_failed(item.item_id, error)
            for item in items
            if item and not item.is_dropped
        ]

    def _opened(self, at_s: float) -> Item:
        """The turn that is open, or a new one."""
        if self._open is None:
            self._open = Item(max(at_s, self._until_s))
        return self._open

    def _commit(self, until_s: float) -> list[Event]:
        item = self._opened(self._until_s)
        previous_id, self._previous_id = self._previous_id, item.item_id
        self._wait_for(item, until_s)
        return committed(item.item_id, previous_id, is_beta=self.is_beta)

    def _wait_for(self, item: Item, until_s: float) -> None:
        item.end_s = self._until_s = max(until_s, item.start_s)
        self._waiting.append(item)
        self._open = None


def nothing_to_commit(found_s: float) -> EmptyAudio:
    return EmptyAudio(
        f"a turn has at least {MIN_COMMIT_S * 1000:.0f} ms of audio, "
        f"and the buffer has {max(found_s, 0.0) * 1000:.0f} ms"
    )
