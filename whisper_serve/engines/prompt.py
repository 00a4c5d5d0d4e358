"""The tokens that stand before a decode: context, start sequence and forced prefix."""

from __future__ import annotations

from dataclasses import dataclass

from whisper.tokenizer import Tokenizer

from whisper_serve.engines.base import DecodeTask

# Whisper is trained with at most half its text context before <|startoftranscript|>, one
# place of which is <|startofprev|>.
MAX_CONTEXT_TOKENS = 223
MAX_PREFIX_TOKENS = 111
MAX_HOTWORD_TOKENS = 48


@dataclass(frozen=True, slots=True)
class Prompt:
    """`previous` stands behind <|startofprev|>; `start` says language and task; `prefix` is
    text of the window itself, behind its first timestamp, that the decode must begin with."""

    previous: tuple[int, ...]
    start: tuple[int, ...]
    prefix: tuple[int, ...]

    def tokens(self, tokenizer: Tokenizer) -> list[int]:
        """All of it in the order the decoder reads it."""
        before = [tokenizer.sot_prev, *self.previous] if self.previous else []
        return [*before, *self.start, *self.prefix]

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
        previous=(*hotwords, *context[-room:]),
        start=tuple(tokenizer.sot_sequence),
        prefix=_prefix(task, tokenizer),
    )


def _prefix(task: DecodeTask, tokenizer: Tokenizer) -> tuple[int, ...]:
    """No times stand within it: with those of the words, base made a quarter more errors."""
    text = _encode(task.prefix, tokenizer)[-MAX_PREFIX_TOKENS:]
    return (tokenizer.timestamp_begin, *text) if text else ()


def _encode(text: str, tokenizer: Tokenizer) -> list[int]:
    stripped = text.strip()
    # Text from outside must never become a control token.
    return list(tokenizer.encode(f" {stripped}", disallowed_special=())) if stripped else []


def suppressed_tokens(tokenizer: Tokenizer) -> list[int]:
    """Tokens that no transcript may hold: marks of no speech and control tokens."""
    control = (
        tokenizer.transcribe,
        tokenizer.translate,
        tokenizer.sot,
        tokenizer.sot_prev,
        tokenizer.sot_lm,
        tokenizer.no_speech,
    )
    return sorted({*tokenizer.non_speech_tokens, *control})
