"""The commands through `main`, and in a process of their own where a terminal matters."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

from tests.client.answering import Answer, Upload, answering, refusal, transcript
from tests.client.scripted import (
    BLOCK_S,
    RATE,
    Fault,
    ScriptedServer,
    running,
    spoken,
    text_of,
)
from whisper_serve.cli import main

PROJECT = Path(__file__).parent.parent.parent
VALUES = list(range(1, 50))
WAIT_S = 20.0
RAW = ["--sample-rate", str(RATE), "--chunk-duration", "1", "--overlap", "0.25"]


@pytest.fixture
def talk(tmp_path: Path) -> Path:
    """A recording that says `VALUES`."""
    path = tmp_path / "talk.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(spoken(VALUES, 16_000))
    return path


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    paths = [tmp_path / "a.mp3", tmp_path / "b.wav"]
    for path in paths:
        path.write_bytes(path.stem.encode())
    return [str(path) for path in paths]


@contextlib.contextmanager
def started(*arguments: str, **options: object) -> Iterator[subprocess.Popen[bytes]]:
    """The command in a process of its own."""
    program = "import sys; from whisper_serve.cli import main; sys.exit(main())"
    with subprocess.Popen(  # type: ignore[call-overload]
        [sys.executable, "-c", program, *arguments], cwd=PROJECT, **options
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def open_terminal() -> tuple[int, int]:
    """Our end and the command's end of a terminal of 80 columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    return ours, theirs


def read_terminal(number: int) -> str:
    """All that is written to a terminal until nobody has it open any more."""
    parts = []
    with contextlib.suppress(OSError):  # how Linux says so
        while part := os.read(number, 65_536):
            parts.append(part)
    os.close(number)
    return b"".join(parts).decode()


# transcribe


def test_a_file_is_transcribed(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with answering() as server:
        options = ["--url", server.url, "--language", "en", "--model", "tiny.en"]
        assert main(["transcribe", files[0], *options]) == 0
        fields = server.uploads[0].fields
        assert (fields["language"], fields["model"]) == ("en", "tiny.en")
    captured = capsys.readouterr()
    assert captured.out == "Hello a.\n"
    assert captured.err == ""


def test_several_files_are_told_apart(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with answering() as server:
        assert main(["transcribe", *files, "--url", server.url]) == 0
    assert capsys.readouterr().out == (
        f"==> {files[0]} <==\nHello a.\n\n==> {files[1]} <==\nHello b.\n\n"
    )


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("srt", "1\n00:00:00,500 --> 00:00:01,500\nHello a.\n"),
        ("vtt", "WEBVTT\n\n00:00:00.500 --> 00:00:01.500\nHello a.\n"),
    ],
)
def test_subtitles_can_be_had(
    form: str, text: str, files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with answering() as server:
        assert main(["transcribe", files[0], "--url", server.url, "--format", form]) == 0
    assert capsys.readouterr().out == text


def test_json_is_one_line_a_file(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    form = ["--format", "json", "--word-timestamps"]
    with answering() as server:
        assert main(["transcribe", *files, "--url", server.url, *form]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["file"] for line in lines] == files
    assert lines[1]["text"] == "Hello b."
    assert lines[1]["words"][0]["word"] == "Hello"


def test_files_are_written_where_they_are_wanted(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "out" / "here"
    options = ["--output-dir", str(folder), "--format", "srt"]
    with answering() as server:
        assert main(["transcribe", *files, "--url", server.url, *options]) == 0
    assert capsys.readouterr().out == f"{folder / 'a.srt'}\n{folder / 'b.srt'}\n"
    assert (folder / "b.srt").read_text().endswith("Hello b.\n")


def test_files_that_would_overwrite_each_other_are_refused(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "a.wav"
    assert main(["transcribe", files[0], str(other), "--output-dir", str(tmp_path)]) == 2
    assert "a.txt" in capsys.readouterr().err


def test_one_failure_is_one_line_and_the_others_go_on(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def answers(upload: Upload) -> Answer:
        no = refusal(400, "unreadable_audio", "it is no audio")
        return no if upload.filename == "a.mp3" else transcript(upload)

    missing = str(tmp_path / "missing.mp3")
    with answering(answers) as server:
        command = ["transcribe", files[0], missing, files[1], "--url", server.url]
        assert main([*command, "--format", "json"]) == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out)["text"] == "Hello b."
    assert captured.err.splitlines() == [
        f"whisper-serve: error: {files[0]}: it is no audio (400 unreadable_audio)",
        f"whisper-serve: error: {missing}: missing.mp3 cannot be read: No such file or directory",
    ]


def test_in_a_terminal_the_upload_is_watched(files: list[str]) -> None:
    ours, theirs = open_terminal()
    with answering() as server:
        command = ["transcribe", files[0], "--url", server.url]
        with started(*command, stdout=subprocess.PIPE, stderr=theirs) as process:
            os.close(theirs)
            shown = read_terminal(ours)
            out, _ = process.communicate(timeout=WAIT_S)
    assert (process.returncode, out) == (0, b"Hello a.\n")
    assert "a.mp3: transcribing" in shown


# stream


def test_a_recording_is_streamed(talk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running() as server:
        options = ["--url", server.url, "--policy", "chunk", "--language", "en"]
        assert main(["stream", str(talk), *options, "--model", "tiny.en"]) == 0
        config = server.hearers[0].config
    assert (config["policy"], config["language"], config["sample_rate"]) == ("chunk", "en", 16_000)
    assert config["model"] == "tiny.en"
    captured = capsys.readouterr()
    assert captured.out.replace("\n", " ").rstrip() == text_of(VALUES)
    assert len(captured.out.splitlines()) > 1
    assert captured.err == ""


def test_a_stream_can_be_subtitles(talk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running() as server:
        assert main(["stream", str(talk), "--url", server.url, "--format", "srt"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("1\n00:00:00,000 --> 00:00:")
    assert "\n\n2\n" in out


def test_raw_audio_comes_through_a_pipe(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    read_end, write_end = os.pipe()
    os.write(write_end, spoken([1, 2, 3]))
    os.close(write_end)
    with os.fdopen(read_end) as stdin, running() as server:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert main(["stream", "-", "--url", server.url, *RAW]) == 0
    assert capsys.readouterr().out == "w1 w2 w3\n"


def test_a_lost_connection_is_told_and_resumed(
    talk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with running(Fault(5)) as server:
        assert main(["stream", str(talk), "--url", server.url]) == 0
    captured = capsys.readouterr()
    assert captured.out.replace("\n", " ").rstrip() == text_of(VALUES)
    [line] = captured.err.splitlines()
    assert line.startswith("whisper-serve: no connection: the connection broke off (1006); try")


def test_warnings_are_told(talk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    warning = {"type": "warning", "code": "falling_behind", "message": "it is late"}
    with running(Fault(10**9, messages=(warning,))) as server:
        assert main(["stream", str(talk), "--url", server.url]) == 0
    assert capsys.readouterr().err == "whisper-serve: it is late\n"


def test_a_stream_that_fails_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with running() as server:
        assert main(["stream", str(tmp_path / "missing.wav"), "--url", server.url]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.endswith("missing.wav cannot be read: No such file or directory")


def test_a_service_that_is_not_there_is_told(
    talk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        assert main(["stream", str(talk), "--url", url, "--give-up-after", "0.2"]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("whisper-serve: error: the service cannot be reached: ")


def test_a_microphone_that_is_not_there_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with running() as server:
        assert main(["stream", "--mic", "--url", server.url]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == ("whisper-serve: error: the microphone needs a package: pip install sounddevice")


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (["--url", "nowhere"], "base_url"),
        (["--chunk-duration", "90"], "chunk_duration"),
        (["--encoding", "mulaw"], "encoding"),
    ],
)
def test_a_wrong_option_is_one_line(
    wrong: list[str], named: str, talk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["stream", str(talk), *wrong]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"whisper-serve: error: {named}: ")


def test_in_a_terminal_partials_are_dimmed_and_replaced(talk: Path) -> None:
    ours, theirs = open_terminal()
    with running() as server:
        command = ["stream", str(talk), "--url", server.url]
        with started(*command, stdout=theirs, stderr=theirs) as process:
            os.close(theirs)
            shown = read_terminal(ours)
            assert process.wait(WAIT_S) == 0
    assert "\x1b[2mmaybe\x1b[0m\r\x1b[2Kw1 w2 " in shown
    left = "".join(line.rpartition("\x1b[2K")[2] + " " for line in shown.split("\r\n"))
    assert left.split() == text_of(VALUES).split()


def write_package(folder: Path) -> None:
    """A `sounddevice` that says one word and listens on."""
    (folder / "sounddevice.py").write_text(
        "class PortAudioError(Exception): pass\n"
        "class RawInputStream:\n"
        "    def __init__(self, callback, **options): self.callback = callback\n"
        "    def start(self): self.callback(b'\\5\\0' * 4_000, 4_000, None, None)\n"
        "    def close(self): pass\n"
    )


def wait_for_line(file: IO[bytes] | None, text: bytes) -> None:
    assert file is not None
    for line in file:
        if text in line:
            return
    raise AssertionError(f"{text!r} did not come")


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextlib.contextmanager
def recording(server: ScriptedServer, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The command with a microphone, once it was heard."""
    write_package(folder)
    paths = [str(folder), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = ["stream", "--mic", "--url", server.url]
    with started(*command, env=environment, **pipes) as process:
        wait_for_line(process.stderr, b"listening")
        wait_until(lambda: any(isinstance(frame, bytes) for frame in server.frames), process)
        yield process


def test_ctrl_c_ends_a_recording_with_all_that_was_spoken(tmp_path: Path) -> None:
    with running() as server, recording(server, tmp_path) as process:
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=WAIT_S)
    assert (process.returncode, out, errors) == (0, b"w5\n", b"")


def test_ctrl_c_ends_a_pipe_with_all_that_came_through() -> None:
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with running() as server:
        command = ["stream", "-", *RAW, "--url", server.url]
        with started(*command, **pipes) as process:
            assert process.stdin is not None
            process.stdin.write(spoken(VALUES))
            process.stdin.flush()
            wait_for_line(process.stdout, b"w1 ")
            [hearer] = server.hearers
            wait_until(lambda: hearer.received_s == len(VALUES) * BLOCK_S, process)
            process.send_signal(signal.SIGINT)
            out, errors = process.communicate(timeout=WAIT_S)
    assert (process.returncode, errors) == (0, b"")
    assert out.split()[-1] == b"w49"


def test_a_second_ctrl_c_breaks_off(tmp_path: Path) -> None:
    with running(Fault(1, silent=True)) as server, recording(server, tmp_path) as process:
        process.send_signal(signal.SIGINT)
        wait_until(lambda: '{"type": "end"}' in server.frames, process)
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=WAIT_S)
    assert (process.returncode, out) == (130, b"")
    assert b"Traceback" not in errors
