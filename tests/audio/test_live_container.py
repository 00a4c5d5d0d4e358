from __future__ import annotations

import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import cycle
from pathlib import Path
from threading import Thread
from threading import enumerate as threads

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.audio.clips import Recipe, raw_wav, silence
from tests.audio.streams import (
    FLAC,
    FMP4,
    OGG,
    RECORDED,
    STREAMED,
    WEBM,
    of_unknown_size,
    pieces,
    spoilt,
    stream,
)
from whisper_serve.audio.containers import FORMATS
from whisper_serve.audio.decode import decode
from whisper_serve.audio.live_container import MAX_PUSH_S, ContainerDecoder
from whisper_serve.audio.pcm import SAMPLE_RATE, Samples
from whisper_serve.errors import ClientTooFast, UnreadableAudio, UnsupportedFormat

ACCEPTED = [names[0] for names in FORMATS.values()]
WAIT_S = 20.0
# What the resampler keeps back until it knows what follows.
HELD_BACK = round(0.005 * SAMPLE_RATE)
# A whole file has its padding cut off, of which a stream's header does not tell.
PADDING_S = 0.06


@contextmanager
def decoder() -> Iterator[ContainerDecoder]:
    made = ContainerDecoder()
    try:
        yield made
    finally:
        made.close()


def heard(data: bytes, sizes: list[int]) -> Samples:
    """All samples of `data`, pushed in pieces of these `sizes`, over and over."""
    with decoder() as live:
        parts, at = [], 0
        for size in cycle(sizes):
            if at >= len(data):
                break
            parts.append(live.push(data[at : at + size]))
            at += size
        return np.concatenate([*parts, live.finish()])


def whole(data: bytes) -> Samples:
    return heard(data, [max(1, len(data))])


def alike(samples: Samples, others: Samples) -> float:
    """Correlation of what both have."""
    n = min(len(samples), len(others))
    return float(np.corrcoef(samples[:n], others[:n])[0, 1])


# What comes out


@pytest.mark.parametrize("name", STREAMED)
def test_a_stream_gives_what_its_file_gives(name: str) -> None:
    data = stream(STREAMED[name], 2.0)
    samples, expected = heard(data, [700]), decode(data, accepted=ACCEPTED, max_duration_s=9.0)
    assert samples.dtype == np.int16
    assert abs(len(samples) - len(expected)) / SAMPLE_RATE < PADDING_S
    assert alike(samples, expected) > 0.999


@pytest.mark.parametrize(
    "name",
    ["jfk.webm", "jfk.ogg", "jfk.mp3", "jfk.flac", "audioformats_p001.aac"]
    + [f"audioformats_p001.{kind}" for kind in ("webm", "ogg", "wav", "aiff", "mp3")],
)
def test_real_recordings_give_what_their_files_give(name: str, corpus: Path) -> None:
    data = (corpus / "formats" / name).read_bytes()
    samples, expected = heard(data, [4_000]), decode(data, accepted=ACCEPTED, max_duration_s=20.0)
    assert abs(len(samples) - len(expected)) / SAMPLE_RATE < PADDING_S
    assert alike(samples, expected) > 0.999


@settings(max_examples=50)
@given(
    name=st.sampled_from(list(STREAMED)),
    sizes=st.lists(
        st.one_of(st.integers(0, 12), st.integers(0, 3_000)), min_size=1, max_size=8
    ).filter(any),
)
def test_any_cutting_gives_the_same_samples(name: str, sizes: list[int]) -> None:
    data = stream(STREAMED[name])
    assert np.array_equal(heard(data, sizes), whole(data))


@pytest.mark.parametrize("name", RECORDED)
def test_a_stream_may_come_byte_by_byte(name: str) -> None:
    data = stream(RECORDED[name])
    assert np.array_equal(heard(data, [1]), whole(data))


@pytest.mark.parametrize("size", [1, 333, 100_000])
def test_clusters_need_not_tell_their_sizes(size: int) -> None:
    told, untold = stream(WEBM, 1.0), of_unknown_size(stream(WEBM, 1.0))
    assert told != untold
    assert np.array_equal(heard(untold, [size]), whole(told))


# As it arrives


@pytest.mark.parametrize("name", ["webm", "slow webm", "ogg", "fmp4"])
def test_every_piece_of_a_recording_is_heard_at_once(name: str) -> None:
    sent = pieces(RECORDED[name], 1.0)
    for count in range(1, len(sent) + 1):
        with decoder() as live:
            now = len(live.push(b"".join(sent[:count])))
            left = len(live.finish())
        assert left <= HELD_BACK
        assert now > 0 or left == 0


def test_audio_flows_from_the_first_piece_on() -> None:
    with decoder() as live:
        sent = pieces(WEBM, 1.0)
        lengths = [len(live.push(piece)) / SAMPLE_RATE for piece in sent]
    assert lengths[0] == 0  # the header
    assert lengths[1:-2] == pytest.approx([0.1] * (len(sent) - 3), abs=0.04)


@pytest.mark.parametrize(("name", "most_s"), [("mp3", 0.2), ("aac", 0.1), ("flac", 1.1)])
def test_other_streams_are_heard_a_little_later(name: str, most_s: float) -> None:
    data = stream(STREAMED[name], 4.0)
    with decoder() as live:
        now_s = len(live.push(data[: len(data) * 3 // 4])) / SAMPLE_RATE
    assert 3.0 - most_s < now_s < 3.1


def test_a_recorder_that_begins_anew_is_heard_on() -> None:
    for recipe in (WEBM, OGG):
        again = heard(stream(recipe, 1.0) * 2, [500])
        assert len(again) / SAMPLE_RATE == pytest.approx(2.0, abs=0.02)


def test_hours_of_pause_take_no_time() -> None:
    """The times in the clusters after the pause are those of the recorder's clock."""
    sent = pieces(WEBM, 1.0)
    paused = [*sent[:5], *(later(cluster, 3_600_000) for cluster in sent[5:])]
    assert np.array_equal(heard(b"".join(paused), [500]), heard(b"".join(sent), [500]))


def later(cluster: bytes, ms: int) -> bytes:
    """A cluster of FFmpeg's (of at most 16 KiB) with its time, the first element, moved."""
    if not cluster.startswith(b"\x1f\x43\xb6\x75"):
        return cluster
    size = int.from_bytes(cluster[4:6], "big") & 0x3FFF
    assert (len(cluster), cluster[6]) == (6 + size, 0xE7)
    n = cluster[7] & 0x7F
    start = int.from_bytes(cluster[8 : 8 + n], "big") + ms
    time_element = b"\xe7\x84" + start.to_bytes(4, "big")
    size += len(time_element) - 2 - n
    return cluster[:4] + (size | 0x4000).to_bytes(2, "big") + time_element + cluster[8 + n :]


# The end


def test_finish_before_anything_gives_nothing() -> None:
    with decoder() as live:
        assert len(live.finish()) == 0


def test_an_empty_stream_needs_no_thread() -> None:
    with decoder() as live:
        assert len(live.push(b"")) == 0
        assert len(live.finish()) == 0
        assert mine(live) is None


def test_finish_gives_the_rest_once() -> None:
    with decoder() as live:
        now = live.push(stream(FLAC, 1.0))
        left = live.finish()
        assert len(now) + len(left) == SAMPLE_RATE
        assert len(left) > SAMPLE_RATE // 2
        assert len(live.finish()) == 0


@pytest.mark.parametrize("name", RECORDED)
def test_a_stream_that_breaks_off_is_no_error(name: str) -> None:
    data = stream(RECORDED[name], 2.0)
    cut, full = whole(data[: len(data) * 3 // 4]), whole(data)
    assert 1.0 < len(cut) / SAMPLE_RATE < 1.7
    n = len(cut) - 2 * HELD_BACK
    assert np.array_equal(cut[:n], full[:n])


# Errors


def test_what_is_not_audio_is_refused() -> None:
    with decoder() as live, pytest.raises(UnreadableAudio, match="not audio"):
        live.push(b"<html>" * 10_000)


def test_a_failure_is_told_again() -> None:
    with decoder() as live:
        for _ in range(2):
            with pytest.raises(UnreadableAudio):
                live.push(b"<html>" * 10_000)
        with pytest.raises(UnreadableAudio):
            live.finish()


def test_some_failures_show_at_the_end_only() -> None:
    with decoder() as live:
        assert len(live.push(b"<html>" * 10)) == 0
        with pytest.raises(UnreadableAudio):
            live.finish()


def test_foreign_formats_are_named() -> None:
    with decoder() as live, pytest.raises(UnsupportedFormat, match=r"\.avi"):
        live.push(Recipe("avi", "pcm_s16le").tone(1.0))


def test_what_was_heard_before_the_damage_is_given_first() -> None:
    data = stream(FMP4, 6.0)
    half = data.index(b"moof", len(data) // 2) - 4
    with decoder() as live:
        before = live.push(data[:half] + spoilt(data[half:]))
        assert len(before) / SAMPLE_RATE == pytest.approx(3.0, abs=0.3)
        with pytest.raises(UnreadableAudio, match="cannot be decoded"):
            live.push(b"more")


@pytest.mark.parametrize("rate", [1, 3_999, 384_001, 2**31 - 1])
def test_absurd_sample_rates_are_refused(rate: int) -> None:
    with decoder() as live, pytest.raises(UnreadableAudio, match=f"{rate} Hz"):
        live.push(raw_wav(bytes(200_000), rate=rate))


def test_silence_that_unpacks_to_hours_is_refused() -> None:
    bomb = Recipe("ogg", "flac", 8_000).encode(silence(MAX_PUSH_S + 60, rate=8_000))
    assert len(bomb) < 1_000_000
    with decoder() as live:
        tracemalloc.start()
        samples = live.push(bomb)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert len(samples) / SAMPLE_RATE == pytest.approx(MAX_PUSH_S, abs=60)
        assert peak < 3 * samples.nbytes
        with pytest.raises(ClientTooFast):
            live.push(b"more")


# Threads


def mine(live: ContainerDecoder) -> Thread | None:
    return live._thread


def states() -> dict[str, list[bytes]]:
    data = stream(WEBM, 1.0)
    return {
        "not begun": [],
        "in the mark": [data[:3]],
        "in the header": [data[:50]],
        "in a cluster": [data[:700], data[700:3_000]],
        "in the header of mp4": [stream(FMP4)[:100]],
        "in a format to guess": [stream(STREAMED["mp3"])[:100]],
        "failed": [b"RIFF\0\0\0\0AVI " + bytes(1_000)],
    }


@pytest.mark.parametrize("state", states())
@pytest.mark.parametrize("finished", [False, True])
def test_close_frees_the_thread_from_any_state(state: str, finished: bool) -> None:
    live = ContainerDecoder()
    for piece in states()[state]:
        try_push(live, piece)
    if finished:
        try_push(live, None)
    thread = mine(live)
    assert (thread is None) == (state == "not begun")
    live.close()
    live.close()
    assert thread is None or not thread.is_alive()
    assert len(live.push(b"anything")) == 0
    assert len(live.finish()) == 0


def try_push(live: ContainerDecoder, piece: bytes | None) -> None:
    with suppress(UnreadableAudio, UnsupportedFormat):
        live.finish() if piece is None else live.push(piece)


def test_finish_frees_the_thread_too() -> None:
    live = ContainerDecoder()
    live.push(stream(WEBM))
    live.finish()
    thread = mine(live)
    assert thread is not None
    thread.join(WAIT_S)
    assert not thread.is_alive()


def test_close_ends_a_push_in_another_thread() -> None:
    long = Recipe("ogg", "flac", 8_000).encode(silence(1_500.0, rate=8_000))
    live = ContainerDecoder()
    pusher = Thread(target=live.push, args=(long,), daemon=True)
    pusher.start()
    deadline = time.monotonic() + WAIT_S
    while (thread := mine(live)) is None and time.monotonic() < deadline:
        time.sleep(0.001)
    live.close()
    pusher.join(WAIT_S)
    assert not pusher.is_alive()
    assert thread is not None
    assert not thread.is_alive()


def test_waiting_costs_no_time_of_the_processor() -> None:
    with decoder() as live:
        live.push(stream(WEBM)[:2_000])
        before = time.process_time()
        time.sleep(0.2)
        assert time.process_time() - before < 0.1


def test_many_streams_do_not_get_into_each_other() -> None:
    data = {recipe: pieces(recipe, 1.0) for recipe in (WEBM, OGG, FMP4)}
    expected = {recipe: len(whole(b"".join(sent))) for recipe, sent in data.items()}
    streams = [(recipe, ContainerDecoder(), iter(data[recipe])) for recipe in [*data] * 4]
    lengths = [0] * len(streams)
    for _ in range(max(map(len, data.values()))):
        for index, (_, live, sent) in enumerate(streams):
            lengths[index] += len(live.push(next(sent, b"")))
    for index, (recipe, live, _) in enumerate(streams):
        lengths[index] += len(live.finish())
        live.close()
        assert lengths[index] == expected[recipe]
    assert not [thread for thread in threads() if thread.name == "live-container"]
