"""What the decoding steps need to know of a loaded model."""

from __future__ import annotations

from dataclasses import dataclass

from whisper.tokenizer import LANGUAGES, Tokenizer, get_tokenizer

from whisper_serve.engines.base import DecodeTask
from whisper_serve.errors import InvalidParameter


@dataclass(frozen=True, slots=True)
class ModelShape:
    """`name` is for people."""

    n_mels: int
    multilingual: bool
    num_languages: int
    name: str = ""

    @property
    def languages(self) -> tuple[str, ...]:
        return tuple(LANGUAGES)[: self.num_languages]

    def tokenizer(self, language: str | None, task: str) -> Tokenizer:
        return get_tokenizer(
            self.multilingual, num_languages=self.num_languages, language=language, task=task
        )

    def check(self, task: DecodeTask) -> None:
        """Raises `InvalidParameter` when the model cannot do what is asked."""
        if self.multilingual:
            if task.language not in {None, *self.languages}:
                raise InvalidParameter("language", f"the model {self.name!r} does not know it")
            return
        if task.language not in {None, "en"}:
            raise InvalidParameter("language", f"the model {self.name!r} knows English only")
        if task.task == "translate":
            raise InvalidParameter("task", f"the model {self.name!r} cannot translate")
