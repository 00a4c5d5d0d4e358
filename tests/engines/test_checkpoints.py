"""Both kinds of weights hold the same model, read, written and converted."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

import ctranslate2
import numpy as np
import pytest
import torch
from faster_whisper import decode_audio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from whisper.model import ModelDimensions, Whisper
from whisper.tokenizer import get_tokenizer

from whisper_serve.engines.base import DecodeTask, Samples
from whisper_serve.engines.batch_worker import decode_alone
from whisper_serve.engines.catalog import known_digests
from whisper_serve.engines.checkpoints import (
    Checkpoint,
    byte_characters,
    read_ctranslate2,
    read_openai_checkpoint,
    upper_half_heads,
    vocabulary_of,
    write_ctranslate2,
)
from whisper_serve.engines.ctranslate2_engine import CTranslate2Backend
from whisper_serve.engines.padding import Padding
from whisper_serve.errors import WeightsError

SMALL = ModelDimensions(
    n_mels=80,
    n_audio_ctx=12,
    n_audio_state=16,
    n_audio_head=2,
    n_audio_layer=2,
    n_vocab=51_864,
    n_text_ctx=10,
    n_text_state=16,
    n_text_head=4,
    n_text_layer=3,
)


def small_state() -> dict[str, torch.Tensor]:
    """Random weights in float16, as OpenAI's are."""
    generator = torch.Generator().manual_seed(7)
    state = Whisper(SMALL).state_dict()
    return {
        name: torch.randn(tensor.shape, generator=generator).half()
        for name, tensor in state.items()
    }


def save(path: Path, state: dict[str, torch.Tensor], **options: bool) -> Path:
    torch.save({"dims": vars(SMALL), "model_state_dict": state}, path, **options)
    return path


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a model that nobody knows."""
    return save(tmp_path_factory.mktemp("small") / "small-one.pt", small_state())


@pytest.fixture(scope="module")
def small_folder(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model, converted for CTranslate2."""
    folder = tmp_path_factory.mktemp("small-folder")
    write_ctranslate2(read_openai_checkpoint(small), folder)
    return folder


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor.half(), other[name].half()), name


# OpenAI's checkpoints


def test_a_checkpoint_is_read_as_it_was_saved(small: Path) -> None:
    checkpoint = read_openai_checkpoint(small)

    assert checkpoint.dims == SMALL
    assert_same(checkpoint.tensors, small_state())


def test_a_checkpoint_of_the_old_format_is_read_too(tmp_path: Path) -> None:
    path = save(tmp_path / "old.pt", small_state(), _use_new_zipfile_serialization=False)

    assert not zipfile.is_zipfile(path)
    assert_same(read_openai_checkpoint(path).tensors, small_state())


def test_an_unknown_model_is_aligned_by_the_upper_half_of_its_decoder(small: Path) -> None:
    checkpoint = read_openai_checkpoint(small)

    stock = Whisper(SMALL).alignment_heads.to_dense()
    assert torch.equal(checkpoint.alignment_mask(), stock)


def test_a_known_name_on_a_model_of_another_shape_gives_no_known_heads(small: Path) -> None:
    checkpoint = read_openai_checkpoint(small, name="tiny.en")

    assert checkpoint.alignment_heads == upper_half_heads(SMALL)


def test_a_checkpoint_that_lacks_a_tensor_is_refused_by_its_name(tmp_path: Path) -> None:
    state = small_state()
    del state["decoder.blocks.1.cross_attn.out.bias"]

    with pytest.raises(WeightsError, match=r"decoder\.blocks\.1\.cross_attn\.out\.bias"):
        read_openai_checkpoint(save(tmp_path / "lacking.pt", state))


@pytest.mark.parametrize(
    "content", [{"weights": 1}, {"dims": {"n_mels": 80}, "model_state_dict": {}}, [1, 2], "text"]
)
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "else.pt")

    with pytest.raises(WeightsError, match="is no Whisper checkpoint"):
        read_openai_checkpoint(tmp_path / "else.pt")


class Trap:
    """Would run code when it is loaded without care."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("false",)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path) -> None:
    torch.save({"dims": vars(SMALL), "model_state_dict": Trap()}, tmp_path / "trap.pt")

    with pytest.raises(WeightsError, match="is no Whisper checkpoint"):
        read_openai_checkpoint(tmp_path / "trap.pt")


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 0.999))
def test_half_a_checkpoint_is_refused(small: Path, tmp_path: Path, share: float) -> None:
    whole = small.read_bytes()
    (tmp_path / "half.pt").write_bytes(whole[: int(share * len(whole))])

    with pytest.raises(WeightsError, match="is no Whisper checkpoint"):
        read_openai_checkpoint(tmp_path / "half.pt")


def test_a_missing_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError):
        read_openai_checkpoint(tmp_path / "none.pt")


# CTranslate2's folders


def test_a_converted_model_reads_back_the_same(small: Path, small_folder: Path) -> None:
    original, converted = read_openai_checkpoint(small), read_ctranslate2(small_folder)

    assert converted.dims == original.dims
    assert converted.alignment_heads == original.alignment_heads
    assert_same(original.tensors, converted.tensors)


def test_a_read_folder_is_a_whole_model_for_torch(small_folder: Path) -> None:
    checkpoint = read_ctranslate2(small_folder)
    model = Whisper(checkpoint.dims)

    model.load_state_dict(checkpoint.tensors)

    assert torch.equal(
        model.decoder.blocks[2].cross_attn.key.weight.half(),
        small_state()["decoder.blocks.2.cross_attn.key.weight"],
    )


def test_a_quantised_folder_reads_back_nearly_the_same(small: Path, tmp_path: Path) -> None:
    original = read_openai_checkpoint(small)
    write_ctranslate2(original, tmp_path, quantization="int8")

    quantised = read_ctranslate2(tmp_path)

    for name, tensor in original.tensors.items():
        step = tensor.float().abs().max() / 127
        assert (quantised.tensors[name].float() - tensor.float()).abs().max() <= step, name


def test_ctranslate2_loads_a_converted_model(small_folder: Path) -> None:
    model = ctranslate2.models.Whisper(str(small_folder), device="cpu")

    assert (model.n_mels, model.is_multilingual, model.num_languages) == (80, False, 99)


def test_a_folder_without_alignment_heads_takes_the_upper_half(
    small_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "model.bin").symlink_to(small_folder / "model.bin")
    (tmp_path / "config.json").write_text('{"alignment_heads": null}')

    assert read_ctranslate2(tmp_path).alignment_heads == upper_half_heads(SMALL)


@pytest.mark.parametrize(
    "config", ["", "[]", '{"alignment_heads": [[9, 9]]}', '{"alignment_heads": 7}']
)
def test_a_broken_configuration_is_refused(small_folder: Path, tmp_path: Path, config: str) -> None:
    (tmp_path / "model.bin").symlink_to(small_folder / "model.bin")
    (tmp_path / "config.json").write_text(config)

    with pytest.raises(WeightsError, match="is no Whisper model"):
        read_ctranslate2(tmp_path)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 0.999))
def test_half_a_folder_is_refused(small_folder: Path, tmp_path: Path, share: float) -> None:
    whole = (small_folder / "model.bin").read_bytes()
    (tmp_path / "model.bin").write_bytes(whole[: int(share * len(whole))])
    (tmp_path / "config.json").write_text("{}")

    with pytest.raises(WeightsError, match="is no Whisper model"):
        read_ctranslate2(tmp_path)


def test_a_model_with_a_vocabulary_of_its_own_is_not_converted(small: Path, tmp_path: Path) -> None:
    checkpoint = read_openai_checkpoint(small)
    strange = ModelDimensions(**{**vars(SMALL), "n_vocab": 51_000})

    with pytest.raises(WeightsError, match="51000"):
        write_ctranslate2(Checkpoint(strange, checkpoint.tensors, ()), tmp_path)


# The vocabulary


def test_every_byte_has_a_visible_character_of_its_own() -> None:
    characters = byte_characters()

    assert len(set(characters)) == 256
    assert all(character.isprintable() and not character.isspace() for character in characters)
    assert characters[ord(" ")] == "Ġ"
    assert characters[ord("a")] == "a"


@pytest.mark.parametrize(("multilingual", "languages"), [(False, 99), (True, 99), (True, 100)])
def test_the_vocabulary_has_every_token_once(multilingual: bool, languages: int) -> None:
    tokenizer = get_tokenizer(multilingual, num_languages=languages)
    vocabulary = vocabulary_of(tokenizer)

    assert len(set(vocabulary)) == len(vocabulary) == tokenizer.encoding.n_vocab
    assert vocabulary[tokenizer.sot] == "<|startoftranscript|>"
    assert vocabulary[tokenizer.encode(" hello")[0]] == "Ġhello"


# Real weights


@pytest.fixture(scope="module")
def converted(tiny_openai: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("converted")
    write_ctranslate2(read_openai_checkpoint(tiny_openai), folder)
    return folder


@pytest.fixture(scope="module")
def clip(sample: Path) -> Samples:
    """Ten seconds of speech: int16, shape (n,), 16 kHz."""
    samples: Samples = (decode_audio(str(sample)) * 32767).astype(np.int16)
    return samples


@pytest.mark.weights
def test_openai_and_the_hub_hold_the_same_tensors(
    tiny_openai: Path, tiny_ctranslate2: Path
) -> None:
    openai, hub = read_openai_checkpoint(tiny_openai), read_ctranslate2(tiny_ctranslate2)

    assert openai.dims == hub.dims
    assert openai.alignment_heads == hub.alignment_heads
    assert_same(openai.tensors, hub.tensors)


@pytest.mark.weights
def test_the_fetched_files_are_the_published_ones(tiny_ctranslate2: Path) -> None:
    recorded = json.loads((tiny_ctranslate2 / "sha256.json").read_text())

    assert {name: entry["sha256"] for name, entry in recorded.items()} == known_digests(
        "tiny.en", "ctranslate2"
    )


@pytest.mark.weights
def test_a_converted_folder_is_set_up_like_the_published_one(
    converted: Path, tiny_ctranslate2: Path
) -> None:
    ours = json.loads((converted / "config.json").read_text())
    theirs = json.loads((tiny_ctranslate2 / "config.json").read_text())
    vocabulary = json.loads((converted / "vocabulary.json").read_text())
    published = (tiny_ctranslate2 / "vocabulary.txt").read_text().split("\n")[:-1]

    for key in ("alignment_heads", "suppress_ids", "suppress_ids_begin"):
        assert ours[key] == theirs[key]
    # Hebrew had another code when the folder was published.
    differing = {pair for pair in zip(vocabulary, published, strict=True) if pair[0] != pair[1]}
    assert differing == {("<|he|>", "<|iw|>")}


@pytest.mark.weights
def test_a_converted_folder_transcribes_like_the_published_one(
    converted: Path, tiny_ctranslate2: Path, clip: Samples
) -> None:
    heard = [
        decode_alone(
            CTranslate2Backend(
                folder,
                name="tiny.en",
                device="cpu",
                compute_type="int8",
                workers=1,
                threads_per_worker=2,
            ),
            Padding(),
            DecodeTask(clip),
        )
        for folder in (converted, tiny_ctranslate2)
    ]

    assert "Try again. Fail again. Fail better." in heard[0].text
    assert heard[0].words == heard[1].words
    assert heard[0].segments == heard[1].segments
