"""What of a stream is final, and what of that the next window needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from whisper_serve.audio.pcm import SAMPLE_RATE, seconds, to_samples
from whisper_serve.streaming.speech import SpeechMap
from whisper_serve.text.normalize import normalize_word
from whisper_serve.text.transcript import Word

# As much text before a window as leaves room for the client's prompt.
CONTEXT_CHARS = 700
# Of text that is forced, in UTF-8: the engine takes 111 tokens, which may be one for 2.5 bytes.
MAX_PREFIX_BYTES = 400
MAX_REPEATED = 5


@dataclass(slots=True)
class Settled:
    """Text that is final up to the sample `until`.

    The next window starts at the sample `window_start`; `words` are the final ones from there
    on, which its decode has to begin with, and `context` is text before them.
    """

    until: int = 0
    window_start: int = 0
    context: str = ""
    words: tuple[Word, ...] = ()

    @property
    def text(self) -> str:
        return "".join(word.text for word in self.words)

    @property
    def whole_context(self) -> str:
        """All of the text, for a window that begins behind it."""
        return last_words(self.context + self.text, CONTEXT_CHARS)

    def add(self, words: Sequence[Word]) -> tuple[Word, ...]:
        """Make `words` final; returns them with times, in whole samples, that never go back."""
        added: list[Word] = []
        for word in words:
            start = max(to_samples(word.start), self.until)
            self.until = max(to_samples(word.end), start)
            added.append(replace(word, start=seconds(start), end=seconds(self.until)))
        self.words += tuple(added)
        return tuple(added)

    def repeated(self, words: Sequence[Word]) -> int:
        """How many of the first `words` are the last final ones once more: a decode that had to
        begin with a word now and then writes it again, where it was spoken."""
        for count in range(min(len(words), len(self.words), MAX_REPEATED), 0, -1):
            last = words[count - 1]
            same = [normalize_word(word.text) for word in self.words[-count:]]
            if (
                to_samples((last.start + last.end) / 2) <= self.until
                and [normalize_word(word.text) for word in words[:count]] == same
            ):
                return count
        return 0

    def start_window_at(self, position: int) -> None:
        """Let the next window begin at `position`; words before it become context."""
        kept = [w for w in self.words if (w.start + w.end) / 2 * SAMPLE_RATE >= position]
        passed = self.words[: len(self.words) - len(kept)]
        text = self.context + "".join(word.text for word in passed)
        self.context = last_words(text, CONTEXT_CHARS)
        self.words = tuple(kept)
        self.window_start = position

    def move_window(self, speech: SpeechMap, reach: int) -> None:
        """Keep the window's start within `reach` samples of the final text's end: at the
        earliest pause there, or else at the start of a word."""
        too_long = len(self.text.encode()) > MAX_PREFIX_BYTES
        if self.until - self.window_start <= reach and not too_long:
            return
        earliest = max(self.until - reach, self.window_start + 1)
        pauses = speech.pauses_between(earliest, self.until)
        starts = [to_samples(word.start) for word in self.words]
        for start in [*pauses, *(s for s in starts if s >= earliest), self.until]:
            if self._bytes_from(start) <= MAX_PREFIX_BYTES:
                self.start_window_at(start)
                return

    def forget_text(self) -> None:
        self.context, self.words = "", ()
        self.window_start = self.until

    def _bytes_from(self, position: int) -> int:
        words = (w for w in self.words if (w.start + w.end) / 2 * SAMPLE_RATE >= position)
        return sum(len(word.text.encode()) for word in words)


def last_words(text: str, max_chars: int) -> str:
    """The end of `text`, in whole words as far as there are any."""
    if len(text) <= max_chars:
        return text
    _, _, whole_words = text[-max_chars:].partition(" ")
    return f" {whole_words}" if whole_words else text[-max_chars:]
