"""Finding a model's weights: in the model directory, or else fetched into it.

    model_dir/tiny.en.pt                an OpenAI checkpoint, its record is tiny.en.pt.sha256.json
    model_dir/tiny.en/                  a CTranslate2 folder, its record is sha256.json inside
    model_dir/tiny.en.float32-1f0c...   a copy for torch on CPUs, see `mapped_weights.py`
    model_dir/.tiny.en.lock             held by the process that is at work on the model
    model_dir/.tiny.en~k2j3h4.tmp/      what that process has not finished

Either engine can use either kind: torch reads a CTranslate2 folder as it is, for CTranslate2 a
checkpoint is converted once and the folder kept. Another version of a known model, quantised or
tuned, needs a name of its own or is given by its path.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

from whisper_serve.engines.catalog import (
    KINDS,
    KNOWN_MODELS,
    Kind,
    KnownModel,
    Source,
    known_digests,
    known_model,
    known_names,
)
from whisper_serve.engines.digests import (
    Known,
    VerifyResult,
    check,
    record_digests,
    sha256_of,
    verify,
    weight_files,
)
from whisper_serve.engines.locks import locked
from whisper_serve.engines.sources import Digests, Fetcher, Fetchers, default_fetchers
from whisper_serve.errors import UnknownModel, WeightsCorrupt, WeightsError, WeightsUnavailable

__all__ = [
    "Kind",
    "ModelEntry",
    "Source",
    "VerifyResult",
    "Weights",
    "ensure_weights",
    "list_models",
    "verify_models",
]

log = logging.getLogger(__name__)

OTHER_KIND: dict[Kind, Kind] = {"openai": "ctranslate2", "ctranslate2": "openai"}


@dataclass(frozen=True, slots=True)
class Weights:
    """Verified weights: a `.pt` file or a CTranslate2 folder at `path`."""

    name: str
    kind: Kind
    path: Path


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A model and the kinds of it that are in the model directory, `size_bytes` together."""

    name: str
    aliases: tuple[str, ...]
    kinds: tuple[Kind, ...]
    size_bytes: int


def ensure_weights(
    name_or_path: str | Path,
    wanted: Kind,
    *,
    model_dir: Path,
    sources: Sequence[Source],
    progress: bool = True,
    fetchers: Fetchers | None = None,
) -> Weights:
    """Weights of the model, verified and ready to load.

    `name_or_path`: a known name, a `.pt` file, a CTranslate2 folder, or the name of something
    else in `model_dir`. The sources are tried in their order, each for the `wanted` kind and
    then for the other one; the answer may be of the other kind only when torch is to load it.
    What is in `model_dir` is never fetched again or overwritten. `fetchers` replaces the
    sources outside.

    Raises `UnknownModel`, `WeightsUnavailable` with what was tried, `WeightsCorrupt` when a
    file that is already there is not what it should be, `WeightsError` when it cannot be read.
    """
    with _readable():
        known = known_model(str(name_or_path))
        if known is None and (local := _local(Path(name_or_path).expanduser())) is not None:
            return _ensure_local(local, wanted, model_dir)
        name = known.name if known else str(name_or_path)
        shelf = _Shelf(model_dir, name)
        if Path(name).name != name or not (known or shelf.kinds()):
            raise UnknownModel(name, tuple(known_names()))
        with shelf.locked():
            return _first(shelf, wanted, sources, fetchers or default_fetchers(), progress)


def list_models(model_dir: Path) -> list[ModelEntry]:
    """The known models, there or not, and whatever else is in `model_dir`."""
    with _readable():
        return [
            ModelEntry(model.name, model.aliases, shelf.kinds(), shelf.size_bytes())
            for model, shelf in _shelves(model_dir)
        ]


def verify_models(model_dir: Path) -> list[VerifyResult]:
    """Hash every file of every model in `model_dir`; reads all of it."""
    with _readable():
        return [
            result
            for model, shelf in _shelves(model_dir)
            for kind in shelf.kinds()
            for result in verify(model.name, shelf.path(kind), shelf.known(kind))
        ]


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise WeightsError(f"the weights cannot be read: {exc}") from exc


def _first(
    shelf: _Shelf, wanted: Kind, sources: Sequence[Source], fetchers: Fetchers, progress: bool
) -> Weights:
    """The weights from the first source that gives them."""
    attempts: list[tuple[str, str]] = []
    for source, kind in product(sources, (wanted, OTHER_KIND[wanted])):
        found = _from(fetchers.get((source, kind)), shelf, kind, wanted, progress)
        if isinstance(found, Weights):
            return found
        log.info("no weights of %s from %s (%s): %s", shelf.name, source, kind, found)
        attempts.append((f"{source} ({kind})", found))
    raise WeightsUnavailable(shelf.name, attempts)


def _from(
    fetcher: Fetcher | None, shelf: _Shelf, kind: Kind, wanted: Kind, progress: bool
) -> Weights | str:
    """The weights, or why this fetcher does not give them; None is the model directory."""
    try:
        # Here already: put by hand, or fetched earlier.
        if not shelf.has(kind):
            shelf.fetch(kind, fetcher, progress)
        shelf.check(kind)
        return _usable(shelf, kind, wanted)
    except WeightsCorrupt:
        raise
    except WeightsError as exc:
        return str(exc)


def _usable(shelf: _Shelf, kind: Kind, wanted: Kind) -> Weights:
    if wanted == "ctranslate2" and kind == "openai":
        shelf.convert(shelf.path(kind))
        kind = "ctranslate2"
    return Weights(shelf.name, kind, shelf.path(kind))


def _ensure_local(local: Weights, wanted: Kind, model_dir: Path) -> Weights:
    """A path is used where it lies; only a conversion goes into `model_dir`, under a name that
    changes with the content."""
    digests = check(local.path, known=dict)
    if wanted == "openai" or local.kind == "ctranslate2":
        return local
    shelf = _Shelf(model_dir, f"{local.name}-{digests[local.path.name].sha256[:12]}")
    with shelf.locked():
        if not shelf.has("ctranslate2"):
            shelf.convert(local.path)
        shelf.check("ctranslate2")
    return Weights(local.name, "ctranslate2", shelf.path("ctranslate2"))


def _local(path: Path) -> Weights | None:
    kind = _kind_at(path)
    if kind is None:
        return None
    return Weights(path.stem if kind == "openai" else path.resolve().name, kind, path)


def _kind_at(path: Path) -> Kind | None:
    if path.suffix == ".pt" and path.is_file():
        return "openai"
    if (path / "model.bin").is_file() and (path / "config.json").is_file():
        return "ctranslate2"
    return None


def _shelves(model_dir: Path) -> Iterator[tuple[KnownModel, _Shelf]]:
    here = model_dir.iterdir() if model_dir.is_dir() else ()
    found = {weights.name for path in here if (weights := _local(path)) is not None}
    others = sorted(found - {model.name for model in KNOWN_MODELS})
    for model in (*KNOWN_MODELS, *map(KnownModel, others)):
        yield model, _Shelf(model_dir, model.name)


class _Shelf:
    """The place of one model in the model directory."""

    def __init__(self, model_dir: Path, name: str) -> None:
        self.model_dir = model_dir
        self.name = name

    def path(self, kind: Kind) -> Path:
        return self.model_dir / (f"{self.name}.pt" if kind == "openai" else self.name)

    def has(self, kind: Kind) -> bool:
        return _kind_at(self.path(kind)) == kind

    def kinds(self) -> tuple[Kind, ...]:
        return tuple(kind for kind in KINDS if self.has(kind))

    def size_bytes(self) -> int:
        files = [file for kind in self.kinds() for file in weight_files(self.path(kind))]
        return sum(file.stat().st_size for file in files)

    def known(self, kind: Kind) -> Known:
        return partial(known_digests, self.name, kind)

    def check(self, kind: Kind) -> None:
        """Raises `WeightsCorrupt`."""
        check(self.path(kind), self.known(kind))

    def fetch(self, kind: Kind, fetcher: Fetcher | None, progress: bool) -> None:
        """Raises `WeightsError` when the source does not give the right files."""
        if fetcher is None:
            raise WeightsError(f"{self.path(kind)} is not there")
        with self._staging() as staged:
            try:
                digests = fetcher.fetch(self.name, staged, progress=progress)
            except WeightsCorrupt as exc:
                # Thrown away and told as a failed attempt; nothing that is kept is corrupt.
                log.warning("a download of %s is corrupt: %s", self.name, exc)
                raise WeightsError(f"the download is corrupt: {exc}") from exc
            self._place(kind, staged, digests)

    def convert(self, checkpoint: Path) -> None:
        """Write the CTranslate2 folder of `checkpoint`, a `.pt` file."""
        with self._staging() as staged:
            from whisper_serve.engines.checkpoints import (  # noqa: PLC0415 - loads torch
                read_openai_checkpoint,
                write_ctranslate2,
            )

            log.info("converting %s for CTranslate2", checkpoint)
            write_ctranslate2(read_openai_checkpoint(checkpoint), staged)
            digests = {file.name: sha256_of(file) for file in weight_files(staged)}
            self._place("ctranslate2", staged, digests)

    def locked(self) -> AbstractContextManager[None]:
        """Keep other processes off the model."""
        return locked(self.model_dir, self.name)

    @contextmanager
    def _staging(self) -> Iterator[Path]:
        """An empty folder in the model directory that is removed at the end. What cannot be
        written there raises `WeightsError`."""
        try:
            with TemporaryDirectory(
                prefix=f".{self.name}~",
                suffix=".tmp",
                dir=self.model_dir,
                ignore_cleanup_errors=True,
            ) as outer:
                # A folder of its own: the temporary one is closed to other users.
                staged = Path(outer, self.name)
                staged.mkdir()
                yield staged
        except OSError as exc:
            raise WeightsError(f"{self.model_dir} cannot be written: {exc}") from exc

    def _place(self, kind: Kind, staged: Path, digests: Digests) -> None:
        """Move what is complete to where it is looked for, in one step."""
        target = self.path(kind)
        if kind == "openai":
            (staged / target.name).replace(target)
            record_digests(target, digests)
        else:
            record_digests(staged, digests)
            staged.rename(target)
