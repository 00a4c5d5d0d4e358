from __future__ import annotations

import numpy as np
import pytest

from whisper_serve.engines.base import DecodeTask
from whisper_serve.engines.shape import ModelShape
from whisper_serve.errors import InvalidParameter

SAMPLES = np.zeros(16_000, np.int16)
MULTILINGUAL = ModelShape(n_mels=80, multilingual=True, num_languages=99, name="base")
LARGE_V3 = ModelShape(n_mels=128, multilingual=True, num_languages=100, name="large-v3")
ENGLISH = ModelShape(n_mels=80, multilingual=False, num_languages=99, name="tiny.en")


def test_a_model_knows_its_languages() -> None:
    assert {"en", "de", "zh"} <= set(MULTILINGUAL.languages)
    assert len(MULTILINGUAL.languages) == 99
    assert set(LARGE_V3.languages) - set(MULTILINGUAL.languages) == {"yue"}


@pytest.mark.parametrize(
    ("shape", "task"),
    [
        (MULTILINGUAL, DecodeTask(SAMPLES)),
        (MULTILINGUAL, DecodeTask(SAMPLES, language="de", task="translate")),
        (LARGE_V3, DecodeTask(SAMPLES, language="yue")),
        (ENGLISH, DecodeTask(SAMPLES)),
        (ENGLISH, DecodeTask(SAMPLES, language="en")),
    ],
)
def test_what_a_model_can_do_is_let_through(shape: ModelShape, task: DecodeTask) -> None:
    shape.check(task)


@pytest.mark.parametrize(
    ("shape", "task", "sentence"),
    [
        (
            MULTILINGUAL,
            DecodeTask(SAMPLES, language="yue"),
            "language: the model 'base' does not know it",
        ),
        (
            ENGLISH,
            DecodeTask(SAMPLES, language="de"),
            "language: the model 'tiny.en' knows English only",
        ),
        (
            ENGLISH,
            DecodeTask(SAMPLES, task="translate"),
            "task: the model 'tiny.en' cannot translate",
        ),
    ],
)
def test_what_it_cannot_do_is_the_client_s_fault(
    shape: ModelShape, task: DecodeTask, sentence: str
) -> None:
    with pytest.raises(InvalidParameter) as refused:
        shape.check(task)
    assert str(refused.value) == sentence


def test_its_tokenizer_speaks_the_language_and_the_task() -> None:
    tokenizer = MULTILINGUAL.tokenizer("de", "translate")
    names = {number: name for name, number in tokenizer.special_tokens.items()}
    start = [names[token] for token in tokenizer.sot_sequence]
    assert start == ["<|startoftranscript|>", "<|de|>", "<|translate|>"]


def test_the_tokenizer_of_an_english_only_model_is_told_no_language() -> None:
    tokenizer = ENGLISH.tokenizer("en", "transcribe")
    assert list(tokenizer.sot_sequence) == [tokenizer.sot]


def test_one_more_language_moves_the_tokens_behind_it() -> None:
    known, moved = (shape.tokenizer("en", "transcribe") for shape in (MULTILINGUAL, LARGE_V3))
    assert moved.timestamp_begin == known.timestamp_begin + 1
    assert moved.encode(" Hello") == known.encode(" Hello")
