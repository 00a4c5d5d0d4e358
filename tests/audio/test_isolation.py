from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, cast

import numpy as np
import psutil
import pytest

from tests.audio.clips import Recipe, tone, wav
from tests.audio.decoding import Peak, processes
from tests.audio.hostile import HOSTILE, INDEX_ENTRIES, indexed_mp4, tagged_flac
from tests.audio.streams import FLAC, FMP4, MP3, OGG, WEBM, pieces
from whisper_serve.audio import isolation
from whisper_serve.audio.decode import decode
from whisper_serve.audio.isolated import memory_for
from whisper_serve.audio.isolation import (
    KEPT_IDLE,
    DecodingProcess,
    IsolatedContainerDecoder,
    IsolatedDecoder,
)
from whisper_serve.audio.link import AUDIO, Frame
from whisper_serve.audio.live_container import ContainerDecoder
from whisper_serve.audio.pcm import SAMPLE_RATE, Samples
from whisper_serve.errors import (
    AudioTooCostly,
    AudioTooLong,
    EmptyAudio,
    UnreadableAudio,
    UnsupportedFormat,
    WhisperServeError,
)

ACCEPTED = (".wav", ".mp3", ".m4a", ".ogg", ".flac", ".webm", ".aac", ".aiff")
TIMEOUT_S = 1.5
# Until a process that was given up is gone, on a machine that has much to do.
PATIENCE_S = 30.0
WAV = wav(tone(0.5))


@pytest.fixture(scope="module")
def decoder() -> Iterator[IsolatedDecoder]:
    with closing(IsolatedDecoder(timeout_s=TIMEOUT_S)) as isolated:
        yield isolated


@pytest.fixture
def patient() -> Iterator[IsolatedDecoder]:
    with closing(IsolatedDecoder(timeout_s=PATIENCE_S)) as isolated:
        yield isolated


def heard(
    decoder: IsolatedDecoder, data: bytes | BinaryIO, *, max_duration_s: float = 7_200.0
) -> Samples:
    file = io.BytesIO(data) if isinstance(data, bytes) else data
    return decoder(file, accepted=ACCEPTED, max_duration_s=max_duration_s)


def outcome_of(decoder: IsolatedDecoder, data: bytes) -> int:
    """The number of samples, or the status with which the file is refused."""
    try:
        return len(heard(decoder, data))
    except WhisperServeError as exc:
        return exc.http_status


# Files


@pytest.mark.parametrize("recipe", [FLAC, MP3, OGG, WEBM, FMP4], ids=lambda r: r.container)
def test_a_file_gives_what_it_gives_without_a_process(
    decoder: IsolatedDecoder, recipe: Recipe
) -> None:
    data = recipe.tone(0.5)
    expected = decode(data, accepted=ACCEPTED, max_duration_s=60.0)
    assert np.array_equal(heard(decoder, data), expected)


def test_files_of_any_kind_are_read(decoder: IsolatedDecoder, tmp_path: Path) -> None:
    expected = heard(decoder, WAV)
    path = tmp_path / "recording"
    path.write_bytes(WAV)
    with path.open("rb") as file:
        assert np.array_equal(heard(decoder, file), expected)
    with SpooledTemporaryFile(max_size=1 << 20) as spooled:
        spooled.write(WAV)
        assert np.array_equal(heard(decoder, cast("BinaryIO", spooled)), expected)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", EmptyAudio("the file is empty")),
        (b"no sound" * 99, UnreadableAudio("the file is not audio, or it is damaged or cut off")),
        (wav(tone(3.0)), AudioTooLong(1.0)),
    ],
    ids=["empty", "no audio", "too long"],
)
def test_what_is_wrong_with_a_file_is_told_as_it_is(
    decoder: IsolatedDecoder, data: bytes, error: WhisperServeError
) -> None:
    with pytest.raises(type(error)) as raised:
        heard(decoder, data, max_duration_s=1.0)
    assert raised.value.args == error.args


def test_a_format_that_is_not_accepted_is_named(decoder: IsolatedDecoder) -> None:
    with pytest.raises(UnsupportedFormat) as raised:
        decoder(io.BytesIO(WAV), accepted=[".mp3"], max_duration_s=60.0)
    assert (raised.value.found, raised.value.accepted) == (".wav", (".mp3",))


def test_a_process_serves_many_files(patient: IsolatedDecoder) -> None:
    patient.warm_up()
    before = processes()
    for _ in range(3):
        assert len(heard(patient, WAV)) == SAMPLE_RATE / 2
    with pytest.raises(EmptyAudio):
        heard(patient, b"")
    assert processes() == before


def test_files_at_once_have_a_process_each(patient: IsolatedDecoder) -> None:
    clips = [wav(tone(0.1 * n)) for n in range(1, 7)]
    with ThreadPoolExecutor(len(clips)) as pool:
        lengths = list(pool.map(lambda clip: len(heard(patient, clip)), clips))
    assert lengths == [1_600 * n for n in range(1, 7)]
    assert len(processes()) <= KEPT_IDLE + 2  # those of the module among them


def test_no_process_outlives_its_decoder() -> None:
    before = processes()
    with closing(IsolatedDecoder(timeout_s=TIMEOUT_S)) as isolated:
        isolated.warm_up()
        assert len(processes()) == len(before) + 1
    assert processes() == before


STARTER = """
import os, sys
from whisper_serve.audio.isolation import DecodingProcess
from whisper_serve.audio.link import AUDIO, Frame
process = DecodingProcess()
if sys.argv[1:]:
    process._link.send(Frame(AUDIO, open(sys.argv[1], "rb").read()))
print(process.pid, flush=True)
os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("is_busy", [False, True], ids=["idle", "busy"])
def test_a_process_ends_with_whoever_started_it(tmp_path: Path, is_busy: bool) -> None:
    path = tmp_path / "hours of work"
    path.write_bytes(tagged_flac(500_000))
    program = [sys.executable, "-c", STARTER, *([str(path)] if is_busy else [])]
    with psutil.Popen(program, stdout=subprocess.PIPE, text=True) as starter:
        number = int(starter.stdout.readline())
        starter.wait(PATIENCE_S)
    with suppress(psutil.NoSuchProcess):
        psutil.Process(number).wait(PATIENCE_S)


def test_a_process_knows_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHISPER_SERVE__AUTH__SIGNING_KEY", "secret")
    process = DecodingProcess()
    try:
        assert "secret" not in str(psutil.Process(process.pid).environ())
    finally:
        process.end()


# Harm


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_costs_no_more_than_is_allowed(decoder: IsolatedDecoder, name: str) -> None:
    data = HOSTILE[name]()
    began = time.monotonic()
    with Peak() as peak:
        outcome = outcome_of(decoder, data)
    assert outcome in {400, 413, SAMPLE_RATE // 2}
    assert time.monotonic() - began < TIMEOUT_S + PATIENCE_S
    assert peak.bytes < memory_for(7_200.0)
    assert len(heard(decoder, WAV)) == SAMPLE_RATE / 2, "the next file is served"


def test_time_is_bounded_where_nothing_can_be_asked(decoder: IsolatedDecoder) -> None:
    with pytest.raises(AudioTooCostly, match=r"more than 1\.5 seconds to decode"):
        heard(decoder, tagged_flac(200_000))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere memory has no such limit")
def test_memory_is_bounded_whatever_an_index_says(patient: IsolatedDecoder) -> None:
    with Peak() as peak, pytest.raises((AudioTooCostly, UnreadableAudio)):
        heard(patient, indexed_mp4(100, INDEX_ENTRIES), max_duration_s=60.0)
    assert peak.bytes < memory_for(60.0)
    assert len(heard(patient, WAV)) == SAMPLE_RATE / 2


def test_a_crash_is_the_end_of_its_process_only(caplog: pytest.LogCaptureFixture) -> None:
    """As a fault in a decoder would be."""
    process = DecodingProcess()
    try:
        os.kill(process.pid, signal.SIGSEGV)
        with pytest.raises(UnreadableAudio, match="its decoder cannot bear"):
            process.ask(Frame(AUDIO, WAV), PATIENCE_S)
        assert not process.is_fit
    finally:
        process.end()
    assert "signal 11" in caplog.text


def test_a_process_that_cannot_start_is_not_the_file_s_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(isolation, "PROGRAM", "whisper_serve.audio.nowhere")
    with closing(IsolatedDecoder(timeout_s=PATIENCE_S)) as isolated:
        with pytest.raises(RuntimeError, match="status 1"):
            heard(isolated, WAV)
        monkeypatch.undo()
        assert len(heard(isolated, WAV)) == SAMPLE_RATE / 2


# Streams

Decoder = IsolatedContainerDecoder | ContainerDecoder


def streamed(decoder: Decoder, parts: list[bytes]) -> Samples:
    with closing(decoder):
        return np.concatenate([*(decoder.push(part) for part in parts), decoder.finish()])


@pytest.mark.parametrize("recipe", [WEBM, OGG, FMP4], ids=lambda recipe: recipe.container)
def test_a_stream_gives_what_it_gives_without_a_process(recipe: Recipe) -> None:
    parts = pieces(recipe, 1.0)
    expected = streamed(ContainerDecoder(), parts)
    assert np.array_equal(streamed(IsolatedContainerDecoder(), parts), expected)
    assert len(expected) > 0.9 * SAMPLE_RATE


def test_a_stream_that_begins_with_nothing_needs_no_process() -> None:
    before = processes()
    with closing(IsolatedContainerDecoder()) as live:
        assert len(live.push(b"")) == 0
        assert len(live.finish()) == 0
        assert processes() == before


def test_a_failure_of_a_stream_is_told_again() -> None:
    with closing(IsolatedContainerDecoder()) as live:
        for _ in range(2):
            with pytest.raises(UnreadableAudio):
                live.push(b"no sound" * 9_999)
        with pytest.raises(UnreadableAudio):
            live.finish()


def test_a_hostile_stream_costs_no_more_time_than_is_allowed() -> None:
    with closing(IsolatedContainerDecoder(timeout_s=TIMEOUT_S)) as live:
        for _ in range(2):
            with pytest.raises(AudioTooCostly, match=r"more than 1\.5 seconds"):
                live.push(tagged_flac(100_000))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere memory has no such limit")
def test_a_hostile_stream_costs_no_more_memory_than_is_allowed() -> None:
    """What it says is not believed, and then it is over."""
    bomb = indexed_mp4(100, INDEX_ENTRIES)
    with closing(IsolatedContainerDecoder(timeout_s=PATIENCE_S)) as live, Peak() as peak:
        with suppress(UnreadableAudio, AudioTooCostly):
            assert len(live.push(bomb)) == 0
        with suppress(UnreadableAudio, AudioTooCostly):
            assert len(live.finish()) == 0
    assert peak.bytes < memory_for(0.0)


def test_close_ends_a_push_in_another_thread() -> None:
    before = processes()
    live = IsolatedContainerDecoder(timeout_s=PATIENCE_S)
    with ThreadPoolExecutor(1) as pool:
        pushing = pool.submit(live.push, tagged_flac(200_000))
        while len(processes()) == len(before):
            time.sleep(0.01)
        live.close()
        assert len(pushing.result(PATIENCE_S)) == 0
    assert processes() == before
    assert len(live.push(b"more")) == 0
    live.close()
