"""Whatever is said on a socket, and whatever the engines do meanwhile: nothing breaks, nothing
stays behind, and who comes next is served."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.api.fakes import ALL_IS_SPEECH, OPEN, FakeEngines
from tests.api.streams import HASTY, Engine, Trouble, said, words
from tests.fuzz.asgi import Call, Frame, Played, Target, play
from tests.fuzz.calls import calls
from tests.fuzz.tally import Complaints, cases, complaints, tried
from whisper_serve.api.app import create_app
from whisper_serve.api.live import LiveStream
from whisper_serve.api.services import Services
from whisper_serve.audio.live_container import ContainerDecoder
from whisper_serve.audio.pcm import SAMPLE_RATE
from whisper_serve.config import Config
from whisper_serve.engines.base import DecodeTask
from whisper_serve.errors import DeadlineExceeded, EngineFailed, EngineUnavailable, Overloaded
from whisper_serve.pipeline import Transcriber
from whisper_serve.text.transcript import Hypothesis

STREAMS = {
    **dict.fromkeys(("native", "voicestream", "blobs", "listen"), 750),
    "realtime": 500,
    **dict.fromkeys(("native container", "listen container"), 15),
}
# Of docs/protocol.md, and those of the other protocols. 1011 is for engines that fail until the
# end; a fault of ours has it too, and is in the log.
CLOSE_CODES = {1000, 1001, 1003, 1008, 1009, 1011, 1013, 4408, 4429}
DENIALS = {400, 401, 403, 404, 405, 413, 429, 503}
# Measured again behind so many streams; before that, tables and pools fill.
WARM_AFTER = 250
MAX_GROWTH_MIB = 24.0
MIB = 2**20
TENTH = SAMPLE_RATE // 10
# Nothing of these is there when no stream is.
KEPT_BY_STREAMS = {LiveStream, ContainerDecoder}
VALID = json.dumps({"type": "config", "vad": False, "language": "en"})
END = '{"type": "end"}'


async def slow(task: DecodeTask) -> None:
    await asyncio.sleep(0.005)


def dying(make_error: Callable[[], Exception], after_s: float = 0.0) -> Trouble:
    """A new error each time: one keeps hold of all that it was raised in."""

    async def die(task: DecodeTask) -> None:
        await asyncio.sleep(after_s)
        raise make_error()

    return die


TROUBLES: list[Trouble | None] = [
    *(None, None, None, slow, dying(lambda: EngineUnavailable(0.001), 0.002)),
    *(dying(lambda: Overloaded(0.001)), dying(lambda: EngineUnavailable(0.001))),
    *(dying(lambda: DeadlineExceeded(0.01)), dying(lambda: EngineFailed("broken"))),
]


class Ears(Engine):
    """Listens every tenth of a second only: of noise every sample would be a word."""

    async def transcribe(self, task: DecodeTask) -> Hypothesis:
        now_and_then = np.repeat(task.samples[::TENTH], TENTH)[: len(task.samples)]
        return await super().transcribe(replace(task, samples=now_and_then))


class House:
    """All of the service, around an engine that can be given troubles."""

    def __init__(self) -> None:
        self.engine = Ears()
        self.loop = asyncio.new_event_loop()
        quick = {"idle_timeout_s": 0.3}
        streaming = {**quick, "max_sessions": 4, "max_answer_s": None}
        settings = {"streaming": streaming, "openai": quick, "deepgram": quick}
        config = Config.model_validate({"vad": ALL_IS_SPEECH, "auth": OPEN, **settings})
        transcriber = Transcriber(self.engine, config)
        self.services = Services(config, transcriber, self.engine, FakeEngines(), "key")
        self.app = create_app(self.services, timing=HASTY)

    @property
    def streams(self) -> float:
        """How many are counted."""
        return next(
            sample.value
            for metric in self.services.metrics.collect()
            for sample in metric.samples
            if sample.name.endswith("streams_open")
        )

    def play(self, call: Call, troubles: list[Trouble | None]) -> Played:
        self.engine.tasks.clear()
        self.engine.troubles = troubles
        played: Played = self._run(play(self.app, call))
        return played

    def require_empty(self) -> None:
        """No stream is counted, and nothing works for one."""
        self._run(asyncio.sleep(0))
        assert self.streams == 0
        assert not asyncio.all_tasks(self.loop)
        left = [thread.name for thread in threading.enumerate() if "container" in thread.name]
        assert left == []

    def close(self) -> None:
        self._run(self.loop.shutdown_default_executor())
        self.loop.close()

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)


@contextmanager
def house() -> Iterator[House]:
    made = House()
    try:
        yield made
    finally:
        made.close()


def check(played: Played, heard: Complaints) -> None:
    heard.require_none()
    if played.denial is not None:
        assert played.denial.status in DENIALS, played.denial
        assert isinstance(json.loads(played.denial.body), dict)
    elif played.close_code is not None:
        assert played.close_code in CLOSE_CODES, played
    for text in played.sent:
        assert text


def require_service(at: House) -> None:
    """A stream as it should be hears all that is said."""
    frames: list[Frame] = [VALID, *_pieces(words(4).tobytes()), END]
    played = at.play(Call(Target(b"/stream"), frames, stays=True), [])
    messages = [json.loads(text) for text in played.sent]
    finals = [message["text"] for message in messages if message["type"] == "final"]
    assert ("".join(finals), played.close_code) == (said(4), 1000)


def _pieces(data: bytes, size: int = 3_200) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def rss_mib() -> float:
    gc.collect()
    return float(psutil.Process().memory_info().rss) / MIB


def alive() -> Counter[type]:
    """What a stream is made of, counted."""
    gc.collect()
    return Counter(kind for kind in map(type, gc.get_objects()) if kind in KEPT_BY_STREAMS)


@pytest.mark.parametrize("dialect", STREAMS)
def test_nothing_that_is_said_breaks_the_service(dialect: str) -> None:
    warm_mib: list[float] = []
    alive_before = alive()  # what other tests have not let go
    with house() as at, complaints() as heard:

        @cases(STREAMS[dialect])
        @given(calls(dialect), st.lists(st.sampled_from(TROUBLES), max_size=3))
        def converse(call: Call, troubles: list[Trouble | None]) -> None:
            check(at.play(call, troubles), heard)
            at.require_empty()
            tried[dialect] += 1
            if tried[dialect] % WARM_AFTER == 0:
                require_service(at)
                warm_mib.append(rss_mib())

        converse()
        assert tried[dialect] >= STREAMS[dialect]
        require_service(at)
        at.require_empty()
        ended_mib = rss_mib()
        assert not alive() - alive_before
        if warm_mib:
            assert ended_mib - warm_mib[0] < MAX_GROWTH_MIB, warm_mib
