"""The tokens that stand before a decode: context, start sequence and forced prefix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from whisper.tokenizer import Tokenizer

from whisper_serve.engines.base import DecodeTask

# Whisper is trained with at most half its text context before <|startoftranscript|>, one
# place of which is <|startofprev|>.
MAX_CONTEXT_TOKENS = 223
MAX_PREFIX_TOKENS = 111
MAX_HOTWORD_TOKENS = 48


@dataclass(frozen=True, slots=True)
class Prompt:
    """`hotwords` and then `previous` stand behind <|startofprev|>; `start` says language and
    task; `prefix` is text of the window itself, behind its first timestamp, that the decode
    must begin with."""

    previous: tuple[int, ...]
    start: tuple[int, ...]
    prefix: tuple[int, ...]
    hotwords: tuple[int, ...] = ()

    def tokens(self, tokenizer: Tokenizer) -> list[int]:
        """All of it in the order the decoder reads it."""
        before = [*self.hotwords, *self.previous]
        if before:
            before.insert(0, tokenizer.sot_prev)
        return [*before, *self.start, *self.prefix]

    def lined_up(self, lengths: Sequence[int]) -> Prompt:
        """With so much less of the context that as many tokens as one of `lengths` stand before
        the start; the hotwords stay, and so does a context that is shorter than all."""
        n_before = len(self.hotwords) + len(self.previous)
        fitting = [n - len(self.hotwords) for n in lengths if len(self.hotwords) < n <= n_before]
        return replace(self, previous=self.previous[-max(fitting) :]) if fitting else self

    def known(self, tokenizer: Tokenizer) -> int:
        """How many text tokens the prefix has."""
        return sum(token < tokenizer.eot for token in self.prefix)


def build_prompt(task: DecodeTask, tokenizer: Tokenizer) -> Prompt:
    """Hotwords come first and context last, next to the speech that it precedes; what does
    not fit is cut from the far end of the context."""
    hotwords = _encode(task.hotwords, tokenizer)[:MAX_HOTWORD_TOKENS]
    context = _encode(task.context, tokenizer)
    room = MAX_CONTEXT_TOKENS - len(hotwords)
    return Prompt(
        previous=tuple(context[-room:]),
        start=tuple(tokenizer.sot_sequence),
        prefix=_prefix(task, tokenizer),
        hotwords=tuple(hotwords),
    )


def _prefix(task: DecodeTask, tokenizer: Tokenizer) -> tuple[int, ...]:
    """No times stand within it: with those of the words, base made a quarter more errors."""
    text = _encode(task.prefix, tokenizer)[-MAX_PREFIX_TOKENS:]
    return (tokenizer.timestamp_begin, *text) if text else ()


def _encode(text: str, tokenizer: Tokenizer) -> list[int]:
    stripped = text.strip()
    # Text from outside must never become a control token.
    return list(tokenizer.encode(f" {stripped}", disallowed_special=())) if stripped else []


def suppressed_tokens(tokenizer: Tokenizer, asked: Sequence[int] = (-1,)) -> tuple[int, ...]:
    """Tokens that no transcript may hold: control tokens always, and those that are `asked`
    for, where -1 stands for the marks that nobody speaks."""
    control = (
        tokenizer.transcribe,
        tokenizer.translate,
        tokenizer.sot,
        tokenizer.sot_prev,
        tokenizer.sot_lm,
        tokenizer.no_speech,
    )
    marks = tokenizer.non_speech_tokens if -1 in asked else ()
    # The end of text cannot be forbidden: a decode without it would not end.
    chosen = (token for token in asked if 0 <= token < tokenizer.eot)
    return tuple(sorted({*control, *marks, *chosen}))
