"""Engines of one machine share the pages of their weights, and always have the right ones."""

from __future__ import annotations

import logging
import os
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from select import select
from subprocess import PIPE, Popen

import pytest
import torch
from whisper.model import Whisper

import whisper_serve
from tests.engines.torch_whisper.networks import SMALL, noise_of, one_thread, sound
from whisper_serve.engines.checkpoints import Checkpoint, read_openai_checkpoint, write_ctranslate2
from whisper_serve.engines.digests import sha256_of
from whisper_serve.engines.torch_whisper.mapped_weights import copy_path, load_weights
from whisper_serve.engines.torch_whisper.model import load_model
from whisper_serve.engines.torch_whisper.model_runner import ModelRunner, Prefill
from whisper_serve.engines.weights import Weights, list_models
from whisper_serve.errors import WeightsError

ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="maps are read from /proc")


def put_weights(path: Path, factor: float = 1.0) -> Weights:
    """A checkpoint as OpenAI's are: in float16, and matrices lie transposed."""
    tensors = {name: (factor * each).half() for name, each in noise_of(SMALL).tensors.items()}
    tensors |= {name: each.T.contiguous().T for name, each in tensors.items() if each.dim() == 2}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"dims": vars(SMALL), "model_state_dict": tensors}, path)
    return Weights(path.stem, "openai", path)


@pytest.fixture
def noise(tmp_path: Path) -> Weights:
    return put_weights(tmp_path / "weights" / "noise.pt")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of the copies; it is not there yet."""
    return tmp_path / "copies"


def load(weights: Weights, folder: Path) -> Whisper:
    return load_weights(weights, folder, "cpu", "float32")


def read(weights: Weights) -> Checkpoint:
    return read_openai_checkpoint(weights.path)


def private(weights: Weights) -> Whisper:
    return load_model(read(weights), "cpu", "float32")


def same(one: Whisper, other: Whisper) -> bool:
    first, second = one.state_dict(), other.state_dict()
    assert first.keys() == second.keys()
    heads = one.alignment_heads.to_dense(), other.alignment_heads.to_dense()
    return torch.equal(*heads) and all(torch.equal(first[name], second[name]) for name in first)


def visible(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name[0] != "."]


def pages_of(path: Path, pid: int | str = "self") -> Counter[str]:
    """KiB of the file's pages in a process, such as Rss, Pss and Private_Dirty."""
    pages: Counter[str] = Counter()
    counted = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        field, _, value = line.partition(":")
        if not field.isidentifier():
            counted = line.endswith(str(path))
        elif counted and value.endswith(" kB"):
            pages[field] += int(value.removesuffix(" kB"))
    return pages


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


# The copy


def test_the_copy_holds_the_numbers_of_a_checkpoint(noise: Weights, folder: Path) -> None:
    assert same(load(noise, folder), private(noise))
    assert visible(folder) == [copy_path(noise, folder)]


def test_the_parameters_lie_in_memory_as_torch_likes_them(noise: Weights, folder: Path) -> None:
    assert not all(each.is_contiguous() for each in read(noise).tensors.values())
    assert all(each.is_contiguous() for each in load(noise, folder).parameters())


def test_the_copy_holds_the_numbers_of_a_folder_of_ctranslate2(
    noise: Weights, tmp_path: Path, folder: Path
) -> None:
    converted = tmp_path / "converted"
    converted.mkdir()
    write_ctranslate2(read(noise), converted)

    assert same(load(Weights("converted", "ctranslate2", converted), folder), private(noise))


@ON_LINUX
def test_the_parameters_are_views_of_the_copy(noise: Weights, folder: Path) -> None:
    model = load(noise, folder)
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.sum()

    used = sum(4 * tensor.numel() for tensor in model.state_dict().values())
    pages = pages_of(copy_path(noise, folder))
    assert pages["Rss"] >= used // 1024
    assert pages["Private_Dirty"] == 0


def test_what_is_written_to_a_parameter_does_not_reach_the_copy(
    noise: Weights, folder: Path
) -> None:
    with torch.no_grad():
        load(noise, folder).decoder.ln.weight.zero_()

    assert same(load(noise, folder), private(noise))


def test_the_copy_is_written_once(noise: Weights, folder: Path) -> None:
    load(noise, folder)
    written = copy_path(noise, folder).stat()

    load(noise, folder)

    assert copy_path(noise, folder).stat() == written


def test_many_that_start_together_write_it_once(
    noise: Weights, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO), ThreadPoolExecutor(4) as pool:
        models = list(pool.map(lambda _: load(noise, folder), range(4)))

    assert sum("writing" in message for message in caplog.messages) == 1
    assert all(same(model, models[0]) for model in models)


def test_other_users_can_read_it(noise: Weights, folder: Path) -> None:
    load(noise, folder)

    (folder / "any").touch()
    assert copy_path(noise, folder).stat().st_mode == (folder / "any").stat().st_mode


def test_it_is_not_taken_for_a_model(noise: Weights, folder: Path) -> None:
    load(noise, folder)

    assert [entry.name for entry in list_models(folder) if entry.kinds] == []


@pytest.mark.parametrize("compute_type", ["bfloat16", "float16"])
def test_other_number_types_are_computed_without_a_copy(
    noise: Weights, folder: Path, compute_type: str
) -> None:
    model = load_weights(noise, folder, "cpu", compute_type)

    assert model.decoder.token_embedding.weight.dtype == getattr(torch, compute_type)
    assert not folder.exists()


# Which weights


def test_other_weights_of_the_same_name_get_another_copy(noise: Weights, folder: Path) -> None:
    before = load(noise, folder)

    noise = put_weights(noise.path.parent / "other" / "noise.pt", factor=2.0)
    after = load(noise, folder)

    assert same(after, private(noise))
    assert not same(after, before)


def test_the_copy_of_weights_that_are_used_no_more_is_removed(noise: Weights, folder: Path) -> None:
    load(noise, folder)
    load(put_weights(noise.path.with_name("noise.en.pt")), folder)

    other = put_weights(noise.path.parent / "other" / "noise.pt", factor=2.0)
    load(other, folder)

    kept = Weights("noise.en", "openai", noise.path.with_name("noise.en.pt"))
    assert set(visible(folder)) == {copy_path(other, folder), copy_path(kept, folder)}


def test_a_model_goes_on_with_a_copy_that_is_removed(noise: Weights, folder: Path) -> None:
    model = load(noise, folder)

    load(put_weights(noise.path.parent / "other" / "noise.pt", factor=2.0), folder)

    assert same(model, private(noise))


def test_weights_with_a_new_date_keep_their_copy(noise: Weights, folder: Path) -> None:
    load(noise, folder)
    written = copy_path(noise, folder).stat()

    os.utime(noise.path, (0, 0))
    load(noise, folder)

    assert copy_path(noise, folder).stat() == written


def test_weights_of_the_same_size_and_date_are_told_apart(tmp_path: Path, folder: Path) -> None:
    both = [
        put_weights(tmp_path / version / "noise.pt", factor)
        for version, factor in (("one", 1.0), ("two", 2.0))
    ]
    for weights in both:
        os.utime(weights.path, (0, 0))

    assert [same(load(weights, folder), private(weights)) for weights in both] == [True, True]


def test_broken_weights_are_told(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "noise.pt").write_bytes(b"noise")

    with pytest.raises(WeightsError, match=r"noise\.pt is no Whisper checkpoint"):
        load(Weights("noise", "openai", tmp_path / "noise.pt"), folder)
    assert visible(folder) == []


# What goes wrong with a copy


STRANGE_COPIES: list[dict[str, object]] = [
    {},
    {"dims": vars(SMALL), "alignment_heads": (), "tensors": {}},
    {"dims": vars(SMALL), "alignment_heads": (), "tensors": 7},
    {"dims": {"n_mels": 80}, "alignment_heads": (), "tensors": {}},
]


@pytest.mark.parametrize("content", STRANGE_COPIES)
def test_a_copy_of_something_else_is_written_again(
    noise: Weights, folder: Path, content: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    folder.mkdir()
    torch.save(content, copy_path(noise, folder))
    caplog.clear()

    for _ in range(2):
        assert same(load(noise, folder), private(noise))
    [warning] = warnings_of(caplog)
    assert "is broken, it is written again" in warning


@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_a_copy_that_breaks_off_is_written_again(
    noise: Weights, folder: Path, share: float, caplog: pytest.LogCaptureFixture
) -> None:
    load(noise, folder)
    path = copy_path(noise, folder)
    sound = sha256_of(path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    caplog.clear()

    assert same(load(noise, folder), private(noise))
    [warning] = warnings_of(caplog)
    assert "is broken, it is written again" in warning
    assert sha256_of(path) == sound


def test_without_a_folder_the_weights_are_private(
    noise: Weights, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    copy_path(noise, tmp_path)
    caplog.clear()

    assert same(load(noise, tmp_path / "file"), private(noise))
    [warning] = warnings_of(caplog)
    assert warning.startswith("noise is not shared with other engines")


def test_with_a_full_disk_the_weights_are_private(
    noise: Weights, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    resource = pytest.importorskip("resource")
    copy_path(noise, folder)
    caplog.clear()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, limits[1]))
    try:
        model = load(noise, folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert same(model, private(noise))
    [warning] = warnings_of(caplog)
    assert warning.startswith("noise is not shared with other engines")
    assert "File too large" in warning
    assert [path.suffix for path in folder.iterdir()] == [".lock"]


def test_without_a_lock_the_work_goes_on(noise: Weights, folder: Path) -> None:
    (folder / ".noise.float32.lock").mkdir(parents=True)  # cannot be opened as a file

    assert same(load(noise, folder), private(noise))
    assert visible(folder) == [copy_path(noise, folder)]


def test_what_a_killed_process_left_is_removed(noise: Weights, folder: Path) -> None:
    left = folder / ".noise.float32~killed.tmp"
    left.mkdir(parents=True)
    (left / "half").touch()

    load(noise, folder)

    assert not left.exists()


# Real weights


ANOTHER_ENGINE = """
import sys
from pathlib import Path
from whisper_serve.engines.torch_whisper.mapped_weights import load_weights
from whisper_serve.engines.weights import Weights

weights = Weights("tiny.en", "openai", Path(sys.argv[1]))
model = load_weights(weights, Path(sys.argv[2]), "cpu", "float32")
print(sum(float(tensor.sum()) for tensor in model.state_dict().values()), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def tiny(tiny_openai: Path) -> Weights:
    return Weights("tiny.en", "openai", tiny_openai)


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tiny")


@pytest.fixture
def another_engine(tiny: Weights, tiny_folder: Path) -> Iterator[int]:
    """The id of a process that has loaded the weights and used all of them."""
    program = [sys.executable, "-c", ANOTHER_ENGINE, str(tiny.path), str(tiny_folder)]
    project = Path(whisper_serve.__file__).parent.parent
    with Popen(program, stdin=PIPE, stdout=PIPE, cwd=project) as process:
        try:
            assert process.stdout is not None
            told, _, _ = select([process.stdout], [], [], 60)
            assert told
            yield process.pid
        finally:
            process.kill()


@ON_LINUX
@pytest.mark.weights
def test_two_engines_have_the_weights_in_memory_once(
    tiny: Weights, tiny_folder: Path, another_engine: int
) -> None:
    model = load(tiny, tiny_folder)
    for tensor in model.state_dict().values():
        tensor.sum()

    size = sum(4 * tensor.numel() for tensor in model.state_dict().values()) / 1024
    for process in (os.getpid(), another_engine):
        pages = pages_of(copy_path(tiny, tiny_folder), process)
        assert pages["Rss"] == pytest.approx(size, rel=0.02)
        assert pages["Pss"] == pytest.approx(size / 2, rel=0.02)
        assert pages["Private_Dirty"] == 0


def logits_of(model: Whisper) -> list[torch.Tensor]:
    """Of a prompt and of the token behind it, each shape (1, vocab)."""
    runner = ModelRunner(model, slots=1)
    [audio] = runner.encode([sound(1, 48_000)], 300)
    prompt = [50_257, 50_362, 1119]
    first = runner.prefill([Prefill(audio, prompt, 0, [0])]).logits.clone()
    return [first, runner.step([373], [len(prompt)]).clone()]


@ON_LINUX
@pytest.mark.weights
def test_decoding_is_the_same_and_leaves_the_pages_clean(tiny: Weights, tiny_folder: Path) -> None:
    model = load(tiny, tiny_folder)
    with one_thread():
        torch.testing.assert_close(logits_of(model), logits_of(private(tiny)))

    pages = pages_of(copy_path(tiny, tiny_folder))
    assert pages["Rss"] > 0
    assert pages["Private_Dirty"] == 0
