"""Weights that are in memory once, however many engines a machine has.

Checkpoints hold float16 and a CPU computes in float32, so each process would make a private copy.
Instead the first one writes its copy down, and all of them map that file: their parameters are
views of it. The kernel keeps its pages once, reads them as they are used, and may drop them when
memory is short. They stay shared as long as nobody writes to a parameter; who does gets a page of
his own, and the file does not change.

    folder/tiny.en.float32-5f0c1d2e3b4a6978   the copy; its name tells the weights' content
    folder/.tiny.en.float32.lock              held by the process that writes or opens it
    folder/.tiny.en.float32~k2j3h4.tmp/       what that process has not finished

For torch only. CTranslate2 4.8.5 reads its file as a stream into memory of its own, and converts
and packs it there (`Model::load` in its `src/models/model.cc`): workers of one process share that,
processes cannot.
"""

from __future__ import annotations

import hashlib
import logging
import os
from contextlib import suppress
from glob import escape
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from whisper.model import ModelDimensions, Whisper

from whisper_serve.engines.checkpoints import (
    BROKEN,
    Checkpoint,
    read_ctranslate2,
    read_openai_checkpoint,
)
from whisper_serve.engines.digests import check
from whisper_serve.engines.locks import locked
from whisper_serve.engines.torch_whisper.model import compute_dtype, load_model, usable_device
from whisper_serve.engines.weights import Weights
from whisper_serve.errors import WeightsError

log = logging.getLogger(__name__)

# Of what a copy holds; another one makes the copies of before unknown.
FORMAT = "1"


def load_weights(weights: Weights, folder: Path, device: str, compute_type: str) -> Whisper:
    """The network on `device`, ready to decode; see `load_model`.

    On a CPU in float32 its parameters are views of a copy in `folder`, which is written when it
    is not there yet: 4 bytes for each number, twice the size of a checkpoint. Where none can be
    kept the parameters are in private memory, and the log says why.

    Raises `WeightsError` when the weights are broken, `ConfigError` when this machine cannot
    compute as chosen.
    """
    if _is_mappable(device, compute_type):
        try:
            return _map_copy(weights, folder)
        except (OSError, RuntimeError) as exc:
            log.warning("%s is not shared with other engines: %s", weights.name, _first_line(exc))
    return load_model(_read(weights), device, compute_type)


def copy_path(weights: Weights, folder: Path) -> Path:
    """Where the copy of these weights is. Raises `WeightsCorrupt` when they are not what their
    record says; without a record, they are hashed."""
    content = hashlib.sha256(FORMAT.encode())
    for name, record in sorted(check(weights.path, known=dict).items()):
        content.update(f"{name} {record.sha256}\n".encode())
    return folder / f"{weights.name}.float32-{content.hexdigest()[:16]}"


def _is_mappable(device: str, compute_type: str) -> bool:
    target = usable_device(device)
    return target.type == "cpu" and compute_dtype(compute_type, target) == torch.float32


def _map_copy(weights: Weights, folder: Path) -> Whisper:
    """Raises `OSError` or `RuntimeError` when there is no copy and none can be written."""
    path = copy_path(weights, folder)
    # Others wait for the one that writes: they would need the memory and the disk for it too.
    with locked(folder, f"{weights.name}.float32"):
        if path.exists():
            try:
                return _open(path)
            except (*BROKEN, WeightsError) as exc:
                log.warning("%s is broken, it is written again: %s", path, _first_line(exc))
        _write(path, weights)
        return _open(path)


def _open(path: Path) -> Whisper:
    content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    checkpoint = Checkpoint(
        ModelDimensions(**content["dims"]), content["tensors"], content["alignment_heads"]
    )
    return load_model(checkpoint, "cpu", "float32", keep_tensors=True)


def _write(path: Path, weights: Weights) -> None:
    """Put the copy to where it is looked for in one step, instead of one of other content."""
    log.info("writing %s, which engines on this machine share", path)
    with TemporaryDirectory(
        prefix=f".{weights.name}.float32~",
        suffix=".tmp",
        dir=path.parent,
        ignore_cleanup_errors=True,
    ) as staged:
        # A file of its own in there: temporary ones are closed to other users.
        whole = Path(staged, path.name)
        _save(whole, _read(weights))
        whole.replace(path)
    for other in path.parent.glob(f"{escape(weights.name)}.float32-*"):
        if other != path:
            with suppress(OSError):
                other.unlink()


def _save(path: Path, checkpoint: Checkpoint) -> None:
    # Some of OpenAI's matrices lie transposed in their files.
    tensors = {name: each.float().contiguous() for name, each in checkpoint.tensors.items()}
    content = {
        "dims": vars(checkpoint.dims),
        "alignment_heads": checkpoint.alignment_heads,
        "tensors": tensors,
    }
    with path.open("wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as exc:
            # With a full disk torch says nothing of it.
            if isinstance(exc.__context__, OSError):
                raise exc.__context__ from exc
            raise
        # When the machine goes down, a file can have its name before its content.
        file.flush()
        os.fsync(file.fileno())


def _read(weights: Weights) -> Checkpoint:
    reads = read_openai_checkpoint if weights.kind == "openai" else read_ctranslate2
    return reads(weights.path)


def _first_line(exc: BaseException) -> str:
    return str(exc).strip().partition("\n")[0] or type(exc).__name__
