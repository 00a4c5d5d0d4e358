"""How clients of live streams speak, and what they hear in the words of the native protocol."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from whisper_serve.audio.pcm import SAMPLE_RATE

Message = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a client speaks: `kind` is its name, `opening` what it says first, and `ending` what it
    says last. `is_greeted`: a message comes before any audio is sent.

    `reads` tells a message in the words of the native protocol, if it tells of text; `last`:
    the type of the message behind which nothing comes.
    """

    kind: str
    path: str
    opening: str | None
    ending: str
    last: str
    is_greeted: bool
    reads: Callable[[Message], Iterator[dict[str, Any]]]


def native(config: Mapping[str, Any]) -> Dialect:
    """`/stream`."""
    opening, ending = json.dumps({"type": "config", **config}), '{"type": "end"}'
    return Dialect("LiveStream", "/stream", opening, ending, "done", True, _as_it_is)


def _as_it_is(message: Message) -> Iterator[dict[str, Any]]:
    yield dict(message)


def deepgram(query: str) -> Dialect:
    """`/v1/listen`."""
    path = f"/v1/listen?encoding=linear16&sample_rate={SAMPLE_RATE}&punctuate=true&{query}"
    ending = '{"type": "CloseStream"}'
    return Dialect("DeepgramStream", path, None, ending, "Metadata", False, _from_deepgram)


def _from_deepgram(message: Message) -> Iterator[dict[str, Any]]:
    if message["type"] == "Error":
        yield {"type": "error", "code": message["variant"]}
    if message["type"] != "Results":
        return
    heard = message["channel"]["alternatives"][0]
    if not message["is_final"]:
        yield {"type": "partial", "text": heard["transcript"]}
    elif heard["transcript"]:
        position = message["start"] + message["duration"]
        words = [{"word": each["word"], "end": each["end"]} for each in heard["words"]]
        text = f" {heard['transcript']}"
        yield {"type": "final", "text": text, "words": words, "resume": {"position": position}}
