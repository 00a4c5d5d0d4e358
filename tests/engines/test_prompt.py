from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from whisper.tokenizer import Tokenizer, get_tokenizer

from whisper_serve.engines.base import DecodeTask
from whisper_serve.engines.prompt import (
    MAX_CONTEXT_TOKENS,
    MAX_HOTWORD_TOKENS,
    MAX_PREFIX_TOKENS,
    Prompt,
    build_prompt,
    suppressed_tokens,
)

PLAIN = DecodeTask(np.zeros(16_000, np.int16))
WORDS = " ".join(f"word{number}" for number in range(400))
# What stands before a decode must leave room for half of the 448 places.
MAX_PROMPT_TOKENS = 448 - 112


def tokenizer(language: str = "en", task: str = "transcribe") -> Tokenizer:
    return get_tokenizer(multilingual=True, num_languages=99, language=language, task=task)


def prompt_of(
    *, context: str = "", prefix: str = "", hotwords: str = "", language: str = "en"
) -> Prompt:
    task = replace(PLAIN, context=context, prefix=prefix, hotwords=hotwords)
    return build_prompt(task, tokenizer(language))


def text_of(tokens: tuple[int, ...]) -> str:
    return str(tokenizer().decode(list(tokens)))


def test_without_anything_the_start_sequence_stands_alone() -> None:
    tokens = tokenizer("de", "translate")
    prompt = build_prompt(PLAIN, tokens)
    names = ["<|startoftranscript|>", "<|de|>", "<|translate|>"]
    assert prompt.tokens(tokens) == [tokens.special_tokens[name] for name in names]


def test_an_english_only_model_is_told_no_language() -> None:
    tokens = get_tokenizer(multilingual=False)
    assert build_prompt(PLAIN, tokens).tokens(tokens) == [tokens.sot]


def test_everything_stands_in_the_order_that_the_decoder_reads() -> None:
    tokens = tokenizer()
    prompt = prompt_of(context="spoken before", prefix="spoken now", hotwords="Ray Serve")
    assert prompt.tokens(tokens) == [
        tokens.sot_prev,
        *tokens.encode(" Ray Serve"),
        *tokens.encode(" spoken before"),
        *tokens.sot_sequence,
        tokens.timestamp_begin,
        *tokens.encode(" spoken now"),
    ]


@pytest.mark.parametrize("blank", ["", " ", "\n\t "])
def test_blank_text_is_no_text(blank: str) -> None:
    prompt = prompt_of(context=blank, prefix=blank, hotwords=blank)
    assert prompt.tokens(tokenizer()) == list(tokenizer().sot_sequence)


def test_spaces_around_text_change_nothing() -> None:
    assert prompt_of(context="  before \n") == prompt_of(context="before")


def test_a_long_context_keeps_what_was_spoken_last() -> None:
    previous = prompt_of(context=WORDS).previous
    assert len(previous) == MAX_CONTEXT_TOKENS
    assert WORDS.endswith(text_of(previous))


def test_hotwords_keep_their_place_before_a_long_context() -> None:
    prompt = prompt_of(context=WORDS, hotwords="Ray Serve")
    assert len(prompt.hotwords) + len(prompt.previous) == MAX_CONTEXT_TOKENS
    assert text_of(prompt.hotwords) == " Ray Serve"
    assert WORDS.endswith(text_of(prompt.previous))


def test_hotwords_leave_most_of_the_room_to_the_context() -> None:
    prompt = prompt_of(context="spoken before", hotwords=WORDS)
    assert len(prompt.hotwords) == MAX_HOTWORD_TOKENS
    assert f" {WORDS}".startswith(text_of(prompt.hotwords))
    assert text_of(prompt.previous) == " spoken before"


def test_a_long_prefix_keeps_its_end() -> None:
    prefix = prompt_of(prefix=WORDS).prefix
    assert len(prefix) == 1 + MAX_PREFIX_TOKENS
    assert prefix[0] == tokenizer().timestamp_begin
    assert WORDS.endswith(text_of(prefix))


@pytest.mark.parametrize(
    "text",
    [
        "<|endoftext|>",
        "<|startoftranscript|>",
        "<|notimestamps|>",
        "say <|0.00|> <|de|> <|nospeech|>",
    ],
)
@pytest.mark.parametrize("field", ["context", "prefix", "hotwords"])
def test_control_tokens_in_text_stay_text(field: str, text: str) -> None:
    prompt = prompt_of(**{field: text})
    written = {"context": prompt.previous, "prefix": prompt.prefix, "hotwords": prompt.hotwords}[
        field
    ]
    assert text_of(written) == f" {text}"
    assert [token for token in written if token >= tokenizer().eot] in (
        [],
        [tokenizer().timestamp_begin],
    )


@settings(deadline=None)
@given(context=st.text(), prefix=st.text(), hotwords=st.text())
def test_any_text_becomes_a_prompt_that_fits(context: str, prefix: str, hotwords: str) -> None:
    tokens = tokenizer()
    prompt = prompt_of(context=10 * context, prefix=10 * prefix, hotwords=10 * hotwords)
    assert all(
        token < tokens.eot for token in (*prompt.hotwords, *prompt.previous, *prompt.prefix[1:])
    )
    assert len(prompt.tokens(tokens)) <= MAX_PROMPT_TOKENS + len(tokens.sot_sequence)


def test_control_tokens_never_get_into_a_transcript() -> None:
    tokens = tokenizer()
    suppressed = set(suppressed_tokens(tokens))
    assert suppressed >= {tokens.sot, tokens.sot_prev, tokens.no_speech, tokens.translate}
    assert suppressed >= set(tokens.encode(" ♪♪♪")[:1])
    assert not suppressed & {tokens.eot, tokens.timestamp_begin, *tokens.encode(" Hello, world.")}


def test_marks_that_nobody_speaks_may_be_allowed() -> None:
    tokens = tokenizer()
    marks = set(tokens.encode(" ♪♪♪")[:1])
    assert set(suppressed_tokens(tokens)) >= marks
    assert not set(suppressed_tokens(tokens, ())) & marks
    assert set(suppressed_tokens(tokens, (50,))) == {50, *suppressed_tokens(tokens, ())}
    assert set(suppressed_tokens(tokens, (-1, 50))) == {50, *suppressed_tokens(tokens)}


@settings(deadline=None)
@given(st.lists(st.integers(-5, 60_000), max_size=20))
def test_what_holds_a_decode_together_cannot_be_forbidden(asked: list[int]) -> None:
    """Its end, its times, and the language and task that its prompt tells."""
    tokens = tokenizer("de")
    suppressed = suppressed_tokens(tokens, asked)
    assert suppressed == tuple(sorted(set(suppressed)))
    assert set(suppressed) >= set(suppressed_tokens(tokens, ()))
    assert tokens.eot not in suppressed
    assert max(suppressed) < tokens.timestamp_begin
    assert {token for token in asked if 0 <= token < tokens.eot} <= set(suppressed)


@given(st.integers(0, 48), st.integers(0, 175))
def test_prompts_are_lined_up_by_less_context_alone(n_hotwords: int, n_context: int) -> None:
    lengths = (16, 64, 223)
    prompt = Prompt(tuple(range(n_context)), (1,), (), tuple(range(n_hotwords)))
    lined_up = prompt.lined_up(lengths)
    assert lined_up.hotwords == prompt.hotwords
    assert lined_up.previous == prompt.previous[n_context - len(lined_up.previous) :]
    n_before = n_hotwords + len(lined_up.previous)
    longest = max((n for n in lengths if n <= n_hotwords + n_context), default=0)
    assert n_before == (longest if longest > n_hotwords else n_hotwords + n_context)
