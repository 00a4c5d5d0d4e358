from __future__ import annotations

import logging
import threading
from pathlib import Path

import pytest
from filelock import FileLock

from whisper_serve.engines.locks import locked


def test_one_at_a_time_works_on_a_model(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    order: list[str] = []

    def second() -> None:
        with locked(tmp_path, "base"):
            order.append("second")

    with caplog.at_level(logging.INFO), locked(tmp_path, "base"):
        waiting = threading.Thread(target=second)
        waiting.start()
        waiting.join(0.2)
        order.append("first")
    waiting.join(10)
    assert order == ["first", "second"]
    assert "waiting for it" in caplog.text


def test_models_do_not_wait_for_each_other(tmp_path: Path) -> None:
    with locked(tmp_path, "base"), locked(tmp_path, "tiny"):
        assert (tmp_path / ".base.lock").exists()


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    for name in (".base~x1.tmp", ".tiny~x2.tmp"):
        (tmp_path / name).mkdir()
    with locked(tmp_path, "base"):
        assert not (tmp_path / ".base~x1.tmp").exists()
    assert (tmp_path / ".tiny~x2.tmp").exists()


@pytest.mark.parametrize("refusal", [NotImplementedError("no flock"), PermissionError("read-only")])
def test_where_no_lock_can_be_had_the_work_goes_on(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    refusal: Exception,
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise refusal

    monkeypatch.setattr(FileLock, "acquire", refuse)
    with caplog.at_level(logging.INFO), locked(tmp_path, "base"):
        pass
    assert f"cannot be locked: {refusal}" in caplog.text
