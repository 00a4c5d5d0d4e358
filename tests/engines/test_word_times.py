from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from whisper.timing import WordTiming
from whisper.tokenizer import Tokenizer, get_tokenizer

from whisper_serve.engines.word_times import (
    MAX_MEDIAN_WORD_S,
    SECONDS_PER_FRAME,
    Alignment,
    split_words,
    to_words,
    words_from_alignment,
)
from whisper_serve.text.transcript import Word


def tokenizer(language: str = "en") -> Tokenizer:
    return get_tokenizer(True, num_languages=100, language=language, task="transcribe")


def encoded(text: str) -> list[int]:
    return list(tokenizer().encode(text))


def path_of(frames: list[int]) -> Alignment:
    """A path that stays `frames[i]` frames on token i; the last is the end of the text."""
    tokens = np.repeat(np.arange(len(frames)), frames)
    probabilities = np.linspace(0.1, 0.9, len(frames) - 1, dtype=np.float32)
    return Alignment(tokens, np.arange(len(tokens)), probabilities)


def timed(text: str, frames: list[int], language: str = "en") -> list[WordTiming]:
    return words_from_alignment(path_of(frames), encoded(text), tokenizer(language))


def heard(words: list[WordTiming]) -> list[tuple[str, float, float]]:
    return [(word.word, round(word.start, 2), round(word.end, 2)) for word in words]


# Words


def test_a_word_goes_from_its_first_token_to_the_next_word() -> None:
    assert len(encoded(" Ask not")) == 2
    assert heard(timed(" Ask not", [10, 20, 5])) == [(" Ask", 0.0, 0.2), (" not", 0.2, 0.6)]


def test_a_word_of_several_tokens_is_one_word() -> None:
    text = " flibbertigibbets"
    assert len(encoded(text)) == 7
    assert heard(timed(text, [5] * 8)) == [(text, 0.0, 0.7)]


def test_a_word_is_as_likely_as_its_tokens_in_the_mean() -> None:
    [word] = timed(" flibbertigibbets", [5] * 8)
    assert word.probability == pytest.approx(0.5)


def test_text_that_is_skipped_by_the_path_takes_no_time() -> None:
    alignment = Alignment(
        token_indices=np.array([0, 0, 1, 2, 2]),
        frame_indices=np.array([0, 1, 1, 1, 2]),
        probabilities=np.ones(2, np.float32),
    )
    words = words_from_alignment(alignment, encoded(" Ask not"), tokenizer())
    assert heard(words) == [(" Ask", 0.0, 0.02), (" not", 0.02, 0.02)]


def test_no_time_lies_before_the_window() -> None:
    alignment = Alignment(np.array([0, 1]), np.array([-1, 0]), np.ones(1, np.float32))
    assert heard(words_from_alignment(alignment, encoded(" Ask"), tokenizer())) == [
        (" Ask", 0.0, 0.0)
    ]


def test_no_text_has_no_words() -> None:
    assert words_from_alignment(path_of([5]), [], tokenizer()) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (' "Ask not," he said.', [' "Ask', ' not,"', " he", " said."]),
        (" (Ask) not...", [" (Ask)", " not..."]),
        (" well-known", [" well", "-known"]),
        (" don't", [" don't"]),
        (" ¿Qué? ¡No!", [" ¿Qué?", " ¡No!"]),
    ],
)
def test_punctuation_belongs_to_a_word(text: str, words: list[str]) -> None:
    frames = [5] * (len(encoded(text)) + 1)
    assert [word.word for word in timed(text, frames, "es")] == words


def test_a_language_without_spaces_has_a_word_for_each_character() -> None:
    text = "日本語です。"
    words = [word.word for word in timed(text, [5] * (len(encoded(text)) + 1), "ja")]
    assert "".join(words) == text
    assert len(words) > 2


def test_a_pause_behind_a_sentence_belongs_to_nobody() -> None:
    tokens = encoded(" Ask not. Why")
    assert len(tokens) == 4
    frames = [10, 10, 100, 10, 5]  # the aligner gives the pause to the full stop
    assert heard(timed(" Ask not. Why", frames)) == [
        (" Ask", 0.0, 0.2),
        (" not.", 0.2, 0.4),
        (" Why", 2.4, 2.6),
    ]


def test_a_pause_before_a_sentence_belongs_to_nobody() -> None:
    frames = [10, 10, 10, 110, 5]  # the aligner gives the pause to the next word
    [*_, why] = timed(" Ask not. Why", frames)
    assert (why.word, why.end) == (" Why", pytest.approx(2.8))
    assert why.end - why.start == pytest.approx(0.4)


def test_a_slow_speaker_s_words_are_not_longer_than_usual_at_most() -> None:
    frames = [100, 100, 100, 200, 5]
    [*_, why] = timed(" Ask not. Why", frames)
    assert why.end - why.start == pytest.approx(2 * MAX_MEDIAN_WORD_S)


def test_words_are_handed_on_as_they_are() -> None:
    timings = [WordTiming(" Ask", [1], 0.0, 0.2, 0.1), WordTiming(" not", [2], 0.2, 0.6, 0.9)]
    assert to_words(timings) == (
        Word(" Ask", 0.0, 0.2, 0.1, (1,)),
        Word(" not", 0.2, 0.6, 0.9, (2,)),
    )


# Splitting, checked against openai-whisper where that is right


@settings(deadline=None)
@given(
    text=st.one_of(st.text(), st.lists(st.text(), min_size=2).map(" ".join)),
    language=st.sampled_from(["en", "ja", "yue"]),
)
def test_words_are_split_as_openai_whisper_splits_them(text: str, language: str) -> None:
    tokens = encoded(text)
    texts, word_tokens = tokenizer(language).split_to_word_tokens([*tokens, tokenizer().eot])
    expected = list(zip(texts[:-1], word_tokens[:-1], strict=True))
    assert split_words(tokens, tokenizer(language)) == expected


def test_a_character_that_breaks_off_is_kept() -> None:
    broken = encoded(" Ask 語 𝄞")[:-1]
    words = split_words(broken, tokenizer())
    assert [token for _, tokens in words for token in tokens] == broken
    assert "".join(text for text, _ in words) == tokenizer().decode(broken)


# Any tokens, any path

EOT = tokenizer().eot
any_tokens = st.lists(st.integers(0, EOT - 1), max_size=40)


@settings(deadline=None)
@given(tokens=any_tokens, language=st.sampled_from(["en", "ja"]))
def test_splitting_loses_nothing(tokens: list[int], language: str) -> None:
    words = split_words(tokens, tokenizer(language))
    assert [token for _, word_tokens in words for token in word_tokens] == tokens
    assert "".join(text for text, _ in words) == tokenizer().decode(tokens)


@settings(deadline=None)
@given(
    tokens=st.one_of(any_tokens, st.text().map(encoded)),
    language=st.sampled_from(["en", "ja"]),
    data=st.data(),
)
def test_every_token_is_in_one_word_and_times_never_go_back(
    tokens: list[int], language: str, data: st.DataObject
) -> None:
    count = len(tokens) + 1
    frames = data.draw(st.lists(st.integers(1, 60), min_size=count, max_size=count))
    words = words_from_alignment(path_of(frames), tokens, tokenizer(language))
    assert [token for word in words for token in word.tokens] == tokens
    assert "".join(word.word for word in words) == tokenizer().decode(tokens)
    assert all(word.tokens for word in words)
    assert all(0.0 <= word.start <= word.end for word in words)
    assert all(a.end <= b.start + 1e-9 for a, b in pairwise(words))
    assert all(word.end <= sum(frames) * SECONDS_PER_FRAME for word in words)
    assert all(0.0 <= word.probability <= 1.0 for word in words)
