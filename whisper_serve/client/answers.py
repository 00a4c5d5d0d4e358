"""What `POST /transcribe` answers, as values.

What a newer service says besides is ignored.
"""

from __future__ import annotations

from collections import deque

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
    seek: int | None = None
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
        """Cut at the times of words, if they were asked for, else a cue for each segment."""
        return formats.to_srt(self._spoken())

    def to_vtt(self) -> str:
        """The same as WebVTT."""
        return formats.to_vtt(self._spoken())

    def _spoken(self) -> list[transcript.Segment]:
        """The segments with the space that is between them in the whole text."""
        words, position, segments = deque(self.words or ()), 0, []
        for part in self.segments:
            until = self.text.find(part.text, position) + len(part.text)
            segments.append(spoken(self.text[position:until], part.start, part.end, words))
            position = until
        return segments


def spoken(text: str, start: float, end: float, words: deque[Word]) -> transcript.Segment:
    """A segment of `text`, with those of the first `words` that it is made of, which are taken
    away; each has what is written before it, as spaces are."""
    found, position = [], 0
    while words and text[position:].lstrip().startswith(words[0].word):
        word = words.popleft()
        until = text.index(word.word, position) + len(word.word)
        written = text[position:until]
        found.append(transcript.Word(written, word.start, word.end, word.probability))
        position = until
    is_whole = not text[position:].strip()  # or text would be lost with its words
    return transcript.Segment(start, end, text, tuple(found) if is_whole else ())
