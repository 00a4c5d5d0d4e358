"""What `POST /transcribe` answers, as values.

What a newer service says besides is ignored.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from whisper_serve.text import formats, transcript


class Word(BaseModel):
    """A word without the space before it; times are seconds from the start of the audio."""

    model_config = ConfigDict(frozen=True)

    word: str
    start: float
    end: float
    probability: float


class Segment(BaseModel):
    """A stretch of speech. What stands behind `text` comes with `verbose` only, and means
    what it means in Whisper."""

    model_config = ConfigDict(frozen=True)

    id: int
    start: float
    end: float
    text: str
    seek: float | None = None
    tokens: tuple[int, ...] | None = None
    temperature: float | None = None
    avg_logprob: float | None = None
    compression_ratio: float | None = None
    no_speech_prob: float | None = None


class Transcription(BaseModel):
    """The text of a recording of `duration` seconds.

    `latency`: seconds that the service took. `words` is None unless word times were asked
    for.
    """

    model_config = ConfigDict(frozen=True)

    text: str
    language: str | None
    language_probability: float
    duration: float
    latency: float
    word_count: int
    gpu_memory: float
    segments: tuple[Segment, ...]
    words: tuple[Word, ...] | None = None
    request_id: str

    def to_srt(self) -> str:
        return formats.to_srt(self._cues())

    def to_vtt(self) -> str:
        return formats.to_vtt(self._cues())

    def _cues(self) -> list[transcript.Segment]:
        return [transcript.Segment(s.start, s.end, s.text) for s in self.segments]
