"""A live stream's messages in Deepgram's words.

Every `Results` covers the time from the end of the final one before it; so the final ones lie
side by side, and an interim one is replaced by whatever comes next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from whisper_serve.api.deepgram.answers import ServedModel, Writing
from whisper_serve.errors import InvalidMessage
from whisper_serve.streaming.messages import (
    Done,
    Endpoint,
    Failed,
    Final,
    Partial,
    Ready,
    ServerMessage,
    SpeechStarted,
    UtteranceEnd,
)
from whisper_serve.text.transcript import Word

# The first of one.
CHANNEL = [0, 1]

Fields = dict[str, Any]


class LiveResults:
    """What a client is told of one stream of `model`. `labels` are its own, and come back."""

    def __init__(
        self,
        model: ServedModel,
        writing: Writing,
        *,
        tells_speech: bool = False,
        labels: Mapping[str, Any] | None = None,
    ) -> None:
        self._model = model
        self._writing = writing
        self._tells_speech = tells_speech
        self._labels = labels or {}
        self._request_id = ""
        # Where the last final one ended: in milliseconds, so that the next begins just there.
        self._until = 0.0
        self._interim_shown = False
        # Text was told, and not yet that its speaker paused.
        self._is_open = False
        self._flush_told = False

    def tell(self, message: ServerMessage) -> Fields | None:
        """None for what that API has no word for. `Done` is for `metadata`."""
        told: Fields | None = None
        match message:
            case Ready(session_id):
                self._request_id = session_id
            case Partial():
                told = self._interim(message)
            case Final():
                told = self._final(message)
            case Endpoint():
                told = self._endpoint(message)
            case UtteranceEnd(at):
                told = {"type": "UtteranceEnd", "channel": CHANNEL, "last_word_end": _ms(at)}
            case SpeechStarted(at) if self._tells_speech:
                told = {"type": "SpeechStarted", "channel": [0], "timestamp": _ms(at)}
            case Failed():
                told = _error(message)
        return told

    def metadata(self, done: Done, *, sha256: str, created: str) -> Fields:
        """The last message of a stream; `sha256` of the audio as it came."""
        return {
            "type": "Metadata",
            "transaction_key": "deprecated",
            "request_id": self._request_id,
            "sha256": sha256,
            "created": created,
            "duration": _ms(done.duration),
            "channels": 1,
            "models": [self._model.uuid],
            "model_info": {self._model.uuid: self._model.info.model_dump()},
            **self._labels,
        }

    def _interim(self, partial: Partial) -> Fields | None:
        """An empty one only takes back what is shown."""
        if not (partial.words or self._interim_shown):
            return None
        self._interim_shown = bool(partial.words)
        self._is_open = self._is_open or self._interim_shown
        return self._results(partial.text, partial.words, partial.end)

    def _final(self, final: Final) -> Fields:
        self._flush_told = final.endpoint == "flush"
        return self._results(
            final.text,
            final.words,
            final.resume.committed_until,
            language=final.language,
            is_final=True,
            speech_final=final.endpoint == "silence",
            from_finalize=self._flush_told,
        )

    def _endpoint(self, endpoint: Endpoint) -> Fields | None:
        """Nothing, when the final text before it has told it."""
        if endpoint.cause == "silence":
            if not self._is_open:
                return None
            return self._results("", (), endpoint.at, is_final=True, speech_final=True)
        was_told, self._flush_told = self._flush_told, False
        if was_told:
            return None
        return self._results("", (), endpoint.at, is_final=True, from_finalize=True)

    def _results(
        self,
        text: str,
        words: Sequence[Word],
        until: float,
        *,
        language: str | None = None,
        is_final: bool = False,
        speech_final: bool = False,
        from_finalize: bool = False,
    ) -> Fields:
        start, until = self._until, max(self._until, _ms(until))
        alternative = self._writing.alternative(text, words, language)
        if is_final:
            self._until, self._interim_shown = until, False
            self._is_open = not speech_final and (self._is_open or bool(words))
        return {
            "type": "Results",
            "channel_index": CHANNEL,
            "duration": _ms(until - start),
            "start": start,
            "is_final": is_final,
            "speech_final": speech_final,
            "from_finalize": from_finalize,
            "channel": {"alternatives": [alternative.model_dump(exclude_none=True)]},
            "metadata": self._about(),
        }

    def _about(self) -> Fields:
        return {
            "request_id": self._request_id,
            "model_info": self._model.info.model_dump(),
            "model_uuid": self._model.uuid,
            **self._labels,
        }


def _error(failed: Failed) -> Fields:
    """A text frame that cannot be read is a `SchemaError` to that API."""
    if failed.code == InvalidMessage.code:
        description = f"Could not deserialize last text message: {failed.message}"
        return {"type": "Error", "variant": "SchemaError", "description": description}
    return {"type": "Error", "variant": failed.code, "description": failed.message}


def _ms(time_s: float) -> float:
    return round(time_s, 3)
