"""The sha256 of weight files, and the record of them that is kept beside the files.

A record spares hashing gigabytes at every start: a file whose size and modification time are
those of the record is taken for unchanged.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from whisper_serve.errors import WeightsCorrupt

log = logging.getLogger(__name__)

FOLDER_FILES = (
    "model.bin",
    "config.json",
    "tokenizer.json",
    "vocabulary.*",
    "preprocessor_config.json",
)
RECORD_NAME = "sha256.json"
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class FileRecord:
    sha256: str
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class VerifyResult:
    """What hashing one file of a model gave. `expected` holds every digest that is right; it
    is empty when nothing is known of the file."""

    model: str
    path: Path
    expected: tuple[str, ...]
    actual: str

    @property
    def ok(self) -> bool:
        return not self.expected or self.actual in self.expected


Record = dict[str, FileRecord]
Known = Callable[[], Mapping[str, str]]  # file name -> sha256; called only when it is needed

MISSING = "none, the file is missing"


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def is_folder_file(name: str) -> bool:
    """Whether a file of this name belongs to a CTranslate2 folder; one in a subfolder does not."""
    return Path(name).name == name and any(fnmatch(name, pattern) for pattern in FOLDER_FILES)


def weight_files(path: Path) -> list[Path]:
    """The files that make up the checkpoint or the folder at `path`."""
    if path.is_file():
        return [path]
    return sorted(file for file in path.iterdir() if file.is_file() and is_folder_file(file.name))


def record_path(path: Path) -> Path:
    return path / RECORD_NAME if path.is_dir() else path.with_name(f"{path.name}.{RECORD_NAME}")


def read_record(path: Path) -> Record:
    """The record of the checkpoint or folder at `path`, empty when there is none."""
    try:
        record = TypeAdapter(Record).validate_json(record_path(path).read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValidationError) as exc:
        log.warning("the record %s cannot be read: %s", record_path(path), exc)
        return {}
    # A checkpoint may have been renamed together with its record.
    return record if path.is_dir() else {n: r for n, r in record.items() if n == path.name}


def write_record(path: Path, record: Record) -> None:
    """Keep `record`; a folder that cannot be written goes without, and is hashed every time."""
    target = record_path(path)
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        temporary.write_bytes(TypeAdapter(Record).dump_json(record, indent=2))
        temporary.replace(target)
    except OSError as exc:
        log.info("the record %s cannot be written: %s", target, exc)


def record_digests(path: Path, digests: Mapping[str, str]) -> None:
    """Write the record of files that were just verified; `digests` is file name -> sha256."""
    write_record(path, {file.name: _stamp(file, digests[file.name]) for file in weight_files(path)})


def check(path: Path, known: Known) -> Record:
    """Make sure that the checkpoint or folder at `path` is what it was and what it should be.

    A file that its record calls unchanged is trusted. Any other is hashed, and its digest
    must be the known or the recorded one. Without either, the digest is recorded and logged:
    nothing else can be said of a file that somebody put there.

    Returns the record as it now is. Raises `WeightsCorrupt`, also for a recorded file that is
    gone.
    """
    recorded = read_record(path)
    current = {file.name: _checked(file, recorded, known) for file in weight_files(path)}
    for name in recorded.keys() - current.keys():
        raise WeightsCorrupt(str(path / name), recorded[name].sha256, MISSING)
    if current != recorded:
        write_record(path, current)
    return current


def verify(model: str, path: Path, known: Known) -> list[VerifyResult]:
    """Hash every file of the checkpoint or folder at `path`, whatever its record says."""
    recorded = read_record(path)
    actual = {file.name: sha256_of(file) for file in weight_files(path)}
    folder = path if path.is_dir() else path.parent
    return [
        VerifyResult(
            model, folder / name, _expected(name, recorded, known), actual.get(name, MISSING)
        )
        for name in sorted(recorded.keys() | actual.keys())
    ]


def _checked(file: Path, recorded: Record, known: Known) -> FileRecord:
    before = recorded.get(file.name)
    if before is not None and before == _stamp(file, before.sha256):
        return before
    # Stamped before hashing: a write in between then shows at the next check.
    stamp = _stamp(file, "")
    actual = sha256_of(file)
    expected = _expected(file.name, recorded, known)
    if expected and actual not in expected:
        raise WeightsCorrupt(str(file), " or ".join(expected), actual)
    if not expected:
        log.warning("%s is seen for the first time; its sha256 is %s", file, actual)
    return FileRecord(actual, stamp.size, stamp.mtime_ns)


def _expected(name: str, recorded: Record, known: Known) -> tuple[str, ...]:
    """The known digest first. The recorded one is right too: the same model may have come
    from another source, or was converted here."""
    digests = [known().get(name), recorded[name].sha256 if name in recorded else None]
    return tuple(dict.fromkeys(digest for digest in digests if digest))


def _stamp(file: Path, sha256: str) -> FileRecord:
    stat = file.stat()
    return FileRecord(sha256, stat.st_size, stat.st_mtime_ns)
