"""When somebody starts and stops speaking, told as soon as audio arrives."""

from __future__ import annotations

from whisper_serve.audio.pcm import seconds
from whisper_serve.audio.vad import SpeechDetector, VadOptions
from whisper_serve.streaming.listener import Probabilities
from whisper_serve.streaming.messages import ServerMessage, SpeechStarted, SpeechStopped

# Silence after which a person would say that somebody has stopped speaking.
SPEECH_STOPPED_S = 0.5


class SpeechEvents:
    """Makes messages of speech probabilities, one a frame, from sample `origin` on."""

    def __init__(self, origin: int, options: VadOptions) -> None:
        stopped = max(options.min_silence_s, SPEECH_STOPPED_S)
        self._detector = SpeechDetector(
            VadOptions(options.threshold, options.hysteresis, options.min_speech_s, stopped)
        )
        self._origin = origin
        self._speaking = False
        self.speech_s = 0.0

    def push(self, probabilities: Probabilities) -> list[ServerMessage]:
        messages: list[ServerMessage] = []
        for probability in probabilities.tolist():
            ended = self._detector.push([probability])
            began = self._detector.open
            if began is not None and not self._speaking:
                self._speaking = True
                messages.append(SpeechStarted(seconds(self._origin + began.start)))
            if ended:
                self._speaking = False
                self.speech_s += ended[0].duration_s
                messages.append(SpeechStopped(seconds(self._origin + ended[0].end)))
        return messages

    def finish(self) -> list[ServerMessage]:
        ended = self._detector.finish()
        self.speech_s += sum(region.duration_s for region in ended)
        if not self._speaking:
            return []
        self._speaking = False
        return [SpeechStopped(seconds(self._origin + region.end)) for region in ended]
