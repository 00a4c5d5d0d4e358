"""When somebody starts and stops speaking, told as soon as audio arrives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from whisper_serve.audio.pcm import seconds, to_samples
from whisper_serve.audio.vad import SpeechDetector, VadOptions
from whisper_serve.streaming.listener import Mark, Probabilities
from whisper_serve.streaming.messages import SpeechStarted, SpeechStopped

# Silence after which a person would say that somebody has stopped speaking.
SPEECH_STOPPED_S = 0.5


@dataclass(frozen=True, slots=True)
class Silences:
    """How long silence lasts, in seconds, until what was said is to be settled: at the end of
    speech (`endpointing`) and at that of an utterance. None: never."""

    endpointing: float | None = None
    utterance_end: float | None = None


# A message for the client, or a place before which everything is to become final.
Event = SpeechStarted | SpeechStopped | Mark


class SpeechEvents:
    """Makes events of speech probabilities, one a frame, from sample `origin` on."""

    def __init__(self, origin: int, options: VadOptions, silences: Silences) -> None:
        stopped_s = silences.endpointing or SPEECH_STOPPED_S
        self._detector = SpeechDetector(
            VadOptions(
                options.threshold,
                options.hysteresis,
                options.min_speech_s,
                max(options.min_silence_s, stopped_s),
            )
        )
        self._silences = silences
        self._origin = origin
        self._speaking = False
        # Where the latest speech ended, and up to where the end of an utterance was told.
        self._spoken_until = self._told_until = 0
        self.speech_s = 0.0

    def push(self, probabilities: Probabilities) -> list[Event]:
        return [event for p in probabilities.tolist() for event in self._frame(p)]

    def finish(self) -> list[Event]:
        """The speech that the end of the stream cut off has stopped."""
        events: list[Event] = []
        for region in self._detector.finish():
            self.speech_s += region.duration_s
            self._spoken_until = region.end
            events += self._stopped() if self._speaking else []
        return events + self._utterance_end(ended=True)

    def _frame(self, probability: float) -> list[Event]:
        ended = self._detector.push([probability])
        events: list[Event] = []
        if (open_region := self._detector.open) is not None:
            self._spoken_until = open_region.end
            if not self._speaking:
                self._speaking = True
                events.append(SpeechStarted(self._time(open_region.start)))
        for region in ended:
            self.speech_s += region.duration_s
            self._spoken_until = region.end
            events += self._stopped()
        return events + self._utterance_end()

    def _stopped(self) -> list[Event]:
        self._speaking = False
        stopped = SpeechStopped(self._time(self._spoken_until))
        if self._silences.endpointing is None:
            return [stopped]
        return [stopped, self._mark("silence")]

    def _utterance_end(self, *, ended: bool = False) -> list[Event]:
        lasts = self._silences.utterance_end
        if lasts is None or self._spoken_until <= self._told_until:
            return []
        # A sound may be the next speech.
        sound = self._detector.sound
        silent_from = sound.end if sound else self._spoken_until
        if not ended and self._detector.position - silent_from < to_samples(lasts):
            return []
        self._told_until = self._spoken_until
        return [self._mark("utterance_end")]

    def _mark(self, reason: Literal["silence", "utterance_end"]) -> Mark:
        return Mark(self._origin + self._detector.position, reason)

    def _time(self, position: int) -> float:
        return seconds(self._origin + position)
