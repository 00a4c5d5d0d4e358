"""Streams, right and wrong, in every dialect."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from tests.api.streams import quiet, words
from tests.audio.clips import Recipe, raw_wav
from tests.fuzz.asgi import Call, Frame, Pause, Target
from tests.fuzz.damage import ODD_JSON, as_json, odd_texts, spoiled, spoiled_text, spoiling
from tests.fuzz.requests import ODD_HEADERS, near

# Long enough for windows that are due at once.
SPEECH, LONG_SPEECH = words(3).tobytes(), words(8).tobytes()
UTTERANCE = SPEECH + quiet(2.3).tobytes()
WAV = raw_wav(SPEECH[:16_000])
OGG = Recipe("ogg", "libopus").tone(0.5)
TOO_BIG = bytes(16 * 2**20 + 1)
TOO_LONG = "x" * (16 * 2**20 + 1)
AUDIO = (
    *(SPEECH, SPEECH[:3_200], SPEECH[:1], b"", quiet(0.5).tobytes(), WAV, WAV[:30]),
    *(OGG, OGG[:200], bytes(range(256)), b"\xff" * 999, b"RIFF", b"\x1aE\xdf\xa3" + bytes(60)),
)
RESUME = {
    "committed_until": 4.0,
    "context": "as said",
    "audio_from": 2.0,
    "window_from": 3.0,
    "position": 5.0,
    "words": [["so", 3.5, 4.0]],
    "tail": [["and", 4.5, 5.0]],
    "language": "en",
}
NATIVE: tuple[dict[str, Any], ...] = (
    {"type": "config", "vad": False, "policy": "agreement", "chunk_duration": 1.0},
    {"type": "config", "vad": False, "interim": False, "language": "en", "endpointing": None},
    {"type": "config", "endpointing": 0.5, "utterance_end": 1.0, "prefix_padding": 0.2},
    {"type": "config", "encoding": "mulaw", "sample_rate": 8000, "channels": 2},
    {"type": "config", "encoding": "pcm_f32le", "sample_rate": 44100, "suppress_tokens": [-1]},
    {"type": "config", "vad": False, "resume": RESUME},
    {"prompt": "x", "hotwords": "a, b", "beam_size": 1, "best_of": 1},
    {"command": "config", "config": {"language": "de"}},
    *({"command": "flush"}, {"type": "flush"}, {"type": "reset"}, {"type": "keepalive"}),
    {"type": "end"},
)
CONTAINER = {"type": "config", "encoding": "container", "vad": False}
VOICESTREAM: tuple[dict[str, Any], ...] = (
    {
        "type": "config",
        "data": {
            "sampleRate": 16000,
            "channels": 1,
            "language": "en",
            "processing_strategy": "silence_at_end_of_chunk",
            "processing_args": {"chunk_length_seconds": 3, "chunk_offset_seconds": 0.1},
        },
    },
)
BLOBS: tuple[dict[str, Any], ...] = ({"samplewidth": 2, "framerate": 16000, "channels": 1},)
LISTEN: tuple[dict[str, Any], ...] = (
    *({"type": "KeepAlive"}, {"type": "Finalize"}, {"type": "Finalize", "channel": 0}),
    {"type": "CloseStream"},
)
TURNS = {"type": "server_vad", "threshold": 1e-6, "silence_duration_ms": 200}
REALTIME: tuple[dict[str, Any], ...] = (
    {
        "type": "session.update",
        "event_id": "e1",
        "session": {
            "type": "transcription",
            "audio": {
                "input": {
                    "format": {"type": "audio/pcmu"},
                    "transcription": {"model": "whisper-1", "language": "en"},
                    "turn_detection": TURNS,
                }
            },
        },
    },
    {"type": "session.update", "session": {"audio": {"input": {"turn_detection": None}}}},
    {
        "type": "transcription_session.update",
        "session": {"input_audio_format": "g711_alaw", "turn_detection": TURNS},
    },
    {"type": "input_audio_buffer.append", "audio": base64.b64encode(SPEECH).decode()},
    {"type": "input_audio_buffer.append", "audio": "AAAA"},
    {"type": "input_audio_buffer.commit"},
    {"type": "input_audio_buffer.clear", "event_id": "e2"},
)


def bare(audio: bytes) -> Frame:
    return audio


def appended(audio: bytes) -> Frame:
    encoded = base64.b64encode(audio).decode()
    return as_json({"type": "input_audio_buffer.append", "audio": encoded})


@dataclass(frozen=True, slots=True)
class Speaks:
    """A dialect: where it is spoken, the messages it knows, what its queries may hold, and how
    audio is sent."""

    path: str
    messages: Sequence[Mapping[str, Any]]
    queries: Sequence[str] = ("",)
    # What ends a stream that a client leaves open.
    ending: str = ""
    wrap: Callable[[bytes], Frame] = bare


DIALECTS = {
    "native": Speaks("/stream", NATIVE, ending='{"type": "end"}'),
    "voicestream": Speaks("/stream/voicestream", VOICESTREAM),
    "blobs": Speaks("/stream/me", BLOBS),
    "realtime": Speaks(
        "/v1/realtime",
        REALTIME,
        (*("intent=transcription",) * 9, "", "intent=x", "intent=transcription&model=whisper-1"),
        wrap=appended,
    ),
    "listen": Speaks(
        "/v1/listen",
        LISTEN,
        (
            *("encoding=linear16&sample_rate=16000",) * 4,
            "encoding=linear16&sample_rate=16000&interim_results=true&endpointing=300&vad_events=true",
            *("encoding=mulaw&sample_rate=8000&channels=2", "encoding=x", "model=nope", "x=%00"),
            *("sample_rate=NaN&encoding=linear16", "diarize=true"),
        ),
        '{"type": "CloseStream"}',
    ),
    # Each of these has a process started for it, so there are fewer.
    "native container": Speaks("/stream", (CONTAINER, *NATIVE), ending='{"type": "end"}'),
    "listen container": Speaks(
        "/v1/listen", LISTEN, ("", "model=nova-2&language=en"), '{"type": "CloseStream"}'
    ),
}


def calls(dialect: str) -> st.SearchStrategy[Call]:
    speaks = DIALECTS[dialect]
    said = [as_json(message) for message in speaks.messages]
    valid = st.sampled_from(said)
    audio = st.sampled_from(AUDIO)
    odd: list[st.SearchStrategy[Frame]] = [
        *(near(message) for message in speaks.messages),
        st.builds(spoiled_text, valid, spoiling),
        st.builds(spoiled, audio, spoiling),
        st.binary(max_size=400),
        st.sampled_from(ODD_JSON) | odd_texts,
        st.sampled_from([SPEECH] * 20 + [TOO_BIG, TOO_LONG, LONG_SPEECH]),
    ]
    usual: list[st.SearchStrategy[Frame]] = [
        *(valid, audio.map(speaks.wrap), st.just(speaks.wrap(LONG_SPEECH))),
        *(st.just(speaks.wrap(SPEECH)), st.just(speaks.wrap(UTTERANCE))),
        *(st.sampled_from([Pause(), Pause(0.002), Pause(0.01)]), st.just(Pause())),
    ]
    headers = st.sampled_from([(), (), (), *((header,) for header in ODD_HEADERS)])
    return st.builds(
        _call,
        st.just(speaks),
        st.sampled_from(speaks.queries),
        # Mostly as it should begin, or hardly anything would get far.
        st.just(said[:1]) | st.lists(valid, max_size=1),
        st.lists(st.one_of(usual), max_size=10),
        st.lists(st.tuples(st.integers(0, 10), st.one_of(odd)), max_size=2),
        headers,
        st.sampled_from([(), (), ("realtime",), ("token", "x"), ("whisper-serve",), ("\x00",)]),
        st.booleans(),
    )


def _call(  # noqa: PLR0917 - drawn one by one
    speaks: Speaks,
    query: str,
    first: Sequence[Frame],
    usual: Sequence[Frame],
    odd: Sequence[tuple[int, Frame]],
    headers: Sequence[tuple[bytes, bytes]],
    subprotocols: Sequence[str],
    stays: bool,
) -> Call:
    ending = [speaks.ending] if speaks.ending and stays else []
    frames = [*usual]
    for at, frame in odd:
        frames.insert(at, frame)
    target = Target(speaks.path.encode(), query.encode())
    return Call(target, [*first, *frames, *ending], headers, subprotocols, stays=bool(ending))
