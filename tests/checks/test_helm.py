from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from checks import helm
from checks.helm import NotToBeHad, OtherProgram, checked, main, program_in

PROGRAM = b"a program"


def zipped(name: str, content: bytes) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as files:
        files.writestr(name, content)
    return held.getvalue()


def wheel(program: bytes = PROGRAM) -> bytes:
    layer = zipped("helm/helm", program)
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w:gz") as files:
        entry = tarfile.TarInfo("package/lib/layer.zip")
        entry.size = len(layer)
        files.addfile(entry, io.BytesIO(layer))
    return zipped("aws_cdk/_jsii/layer.jsii.tgz", held.getvalue())


def test_the_program_is_found_in_the_package() -> None:
    assert program_in(wheel()) == PROGRAM


def test_another_program_than_the_one_meant_is_refused() -> None:
    with pytest.raises(OtherProgram, match=helm.SHA256):
        checked(PROGRAM)


def test_another_program_is_never_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(helm, "downloaded", wheel)
    assert main(tmp_path) == 1
    assert list(tmp_path.iterdir()) == []
    assert "was meant" in capsys.readouterr().err


def test_where_it_cannot_be_had_that_is_said_and_nothing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def nowhere() -> bytes:
        raise NotToBeHad("there is no index")

    monkeypatch.setattr(helm, "downloaded", nowhere)
    assert main(tmp_path) == 0
    assert "there is no index: the tests of the chart will be skipped" in capsys.readouterr().out


def test_another_system_is_told_to_bring_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    with pytest.raises(NotToBeHad, match="put helm on your PATH"):
        helm.downloaded()


def test_what_is_there_is_not_fetched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never() -> bytes:
        raise AssertionError

    (tmp_path / "helm").write_bytes(PROGRAM)
    monkeypatch.setattr(helm, "SHA256", hashlib.sha256(PROGRAM).hexdigest())
    monkeypatch.setattr(helm, "downloaded", never)
    assert main(tmp_path) == 0
