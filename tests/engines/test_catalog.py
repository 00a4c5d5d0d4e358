"""The known models agree with the tables of the libraries that publish them."""

from __future__ import annotations

import re
import subprocess
import sys
from itertools import chain

import faster_whisper.utils
import pytest
import whisper

from whisper_serve.engines.catalog import (
    MIRRORS,
    MirroredFile,
    checkpoint_of,
    hub_repository_of,
    known_digests,
    known_model,
    known_names,
)

MIRRORED_FILES = list(chain.from_iterable(MIRRORS.values()))


def test_no_name_stands_for_two_models() -> None:
    names = list(known_names())

    assert len(names) == len(set(names))


def test_every_model_of_openai_and_faster_whisper_is_known() -> None:
    published = {*whisper._MODELS, *faster_whisper.utils._MODELS}

    assert published == set(known_names())


@pytest.mark.parametrize(("alias", "name"), [("large", "large-v3"), ("turbo", "large-v3-turbo")])
def test_an_alias_leads_to_its_model(alias: str, name: str) -> None:
    assert known_model(alias) == known_model(name)
    assert whisper._MODELS[alias] == whisper._MODELS[name]


def test_an_unknown_name_leads_nowhere() -> None:
    assert known_model("enormous") is None
    assert checkpoint_of("enormous") is None
    assert hub_repository_of("enormous") is None
    assert known_digests("enormous", "openai") == {}


def test_openai_s_digest_is_part_of_its_url() -> None:
    checkpoint = checkpoint_of("base")

    assert checkpoint is not None
    assert checkpoint.url.endswith(f"/{checkpoint.sha256}/base.pt")
    assert known_digests("base", "openai") == {"base.pt": checkpoint.sha256}


def test_a_distilled_model_is_on_the_hub_only() -> None:
    assert checkpoint_of("distil-large-v3") is None
    assert hub_repository_of("distil-large-v3") == "Systran/faster-distil-whisper-large-v3"


def test_the_mirrored_checkpoint_is_openai_s_own() -> None:
    (mirrored,) = MIRRORS["tiny.en", "openai"]

    assert known_digests("tiny.en", "openai") == {mirrored.name: mirrored.sha256}


@pytest.mark.parametrize("name", ["tiny.en", "base"])
def test_a_mirrored_folder_is_whole(name: str) -> None:
    files = {"model.bin", "config.json", "tokenizer.json", "vocabulary.txt"}

    assert set(known_digests(name, "ctranslate2")) == files


@pytest.mark.parametrize("file", MIRRORED_FILES, ids=lambda file: file.sha256[:8])
def test_a_mirror_is_pinned_and_names_no_host(file: MirroredFile) -> None:
    assert re.fullmatch(r"[0-9a-f]{64}", file.sha256)
    for member in file.members:
        assert re.fullmatch(r"[a-z0-9-]+==[0-9.]+", member.requirement)


def test_looking_for_weights_does_not_load_torch() -> None:
    script = "import sys, whisper_serve.engines.weights; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
