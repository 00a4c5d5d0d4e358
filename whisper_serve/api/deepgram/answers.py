"""What Deepgram's API answers with, as far as files and live streams have it in common."""

from __future__ import annotations

import unicodedata
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from statistics import fmean

from pydantic import BaseModel, Field

from whisper_serve import __version__
from whisper_serve.text.transcript import Word


class WordOut(BaseModel):
    """A word, its times in seconds from the start of the audio."""

    word: str = Field(description="In lower case, without punctuation.")
    start: float
    end: float
    confidence: float
    punctuated_word: str | None = Field(None, description="As it stands in the transcript.")


class AlternativeOut(BaseModel):
    """What was said. There is always just one alternative."""

    transcript: str
    confidence: float = Field(description="The mean of the words'; 0 without words.")
    languages: list[str] | None = None
    words: list[WordOut]


class ModelInfoOut(BaseModel):
    """What a model is called and what it is."""

    name: str
    version: str
    arch: str


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model as clients are told of it. The same name has the same id everywhere."""

    name: str

    @property
    def uuid(self) -> str:
        return str(uuid.uuid5(uuid.NAMESPACE_OID, f"whisper-{self.name}"))

    @property
    def info(self) -> ModelInfoOut:
        return ModelInfoOut(name=self.name, version=__version__, arch="whisper")


@dataclass(frozen=True, slots=True)
class Writing:
    """How text is written: with punctuation and capitals when it is `formatted`, as words in
    lower case otherwise. `multilingual` results tell their language."""

    formatted: bool
    multilingual: bool

    def alternative(
        self, text: str, words: Sequence[Word], language: str | None = None
    ) -> AlternativeOut:
        """`text` is that of `words`."""
        shown = [out for word in words if (out := self._word(word)).word]
        return AlternativeOut(
            transcript=text.strip() if self.formatted else " ".join(out.word for out in shown),
            confidence=round(fmean(out.confidence for out in shown), 4) if shown else 0.0,
            languages=[language] if self.multilingual and language and shown else None,
            words=shown,
        )

    def _word(self, word: Word) -> WordOut:
        return WordOut(
            word=bare_word(word.text),
            start=round(word.start, 3),
            end=round(word.end, 3),
            confidence=round(word.probability, 4),
            punctuated_word=word.text.strip() if self.formatted else None,
        )


def bare_word(text: str) -> str:
    """`text` in lower case, without the punctuation around it; that within it (`don't`, `3.5`)
    is spelling. Empty when there is nothing else."""
    kept = [at for at, char in enumerate(text) if unicodedata.category(char)[0] in "LMN"]
    return text[kept[0] : kept[-1] + 1].lower() if kept else ""


def created_now() -> str:
    """The time in UTC to the millisecond, as `2026-01-31T12:00:00.000Z`."""
    now = datetime.now(timezone.utc)
    return now.isoformat(timespec="milliseconds").replace("+00:00", "Z")
