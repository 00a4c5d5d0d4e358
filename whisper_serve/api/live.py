"""The shell around a `StreamSession`: a client, a clock and the engines.

Three tasks share the session on one event loop: the reader hands over what the client sends,
the driver has windows decoded, the writer sends. None of them decides about text.

The reader always reads, since nothing below slows a client down; what it may keep is bounded
by the session's backlog, and beyond that the stream is closed. What waits to be sent is
bounded by the outbox in the same way.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np

from whisper_serve.account import Account
from whisper_serve.api.asking import Asker
from whisper_serve.api.auth.bill import Bill
from whisper_serve.api.auth.callers import ANYONE
from whisper_serve.api.auth.tab import Tab
from whisper_serve.api.auth.usage import AudioInMemory
from whisper_serve.api.course import Course
from whisper_serve.api.delays import StreamMeter
from whisper_serve.api.door import Door
from whisper_serve.api.models import ServedModels
from whisper_serve.api.outbox import Outbox
from whisper_serve.api.peer import Incoming, Peer, PeerGone
from whisper_serve.audio.live import live_decoder
from whisper_serve.audio.pcm import SAMPLE_RATE, Samples, seconds
from whisper_serve.audio.silero import SileroVad
from whisper_serve.audio.vad import VadOptions
from whisper_serve.config import Config, StreamingConfig
from whisper_serve.deadline import within
from whisper_serve.errors import (
    ClientTooFast,
    Draining,
    InvalidMessage,
    InvalidRequest,
    ModelNotFound,
    QuotaExceeded,
    StreamIdle,
    Superseded,
    WhisperServeError,
)
from whisper_serve.observability.metrics import Metrics
from whisper_serve.ports import Transcribes
from whisper_serve.streaming.listener import LiveWindow
from whisper_serve.streaming.messages import (
    ClientMessage,
    Configure,
    End,
    Failed,
    Reset,
    StreamConfig,
)
from whisper_serve.streaming.session import StreamOptions, StreamSession

logger = logging.getLogger(__name__)

MAX_FRAME_BYTES = 16 * 2**20
# Audio is looked at in pieces of this length, so that a large frame holds nobody up.
SLICE = SAMPLE_RATE
NOTHING: Samples = np.zeros(0, np.int16)
# More than this waits only when engines do not keep up.
FALLING_BEHIND_S = 15.0
# Beyond this a frame is decoded in a thread.
LARGE_FRAME_BYTES = 1 << 18
TRY_AGAIN_LATER = 1013
# All that a client is told of a fault of ours; the rest is for the log.
OUR_FAULT = "the service failed unexpectedly"


@dataclass(frozen=True, slots=True)
class Timing:
    """How patient the shell is, in seconds.

    `config_s`: for a configuration before the defaults hold. `ack_every_s`: between two looks
    at what is to be acknowledged. `longest_wait_s`: between two attempts at a window, and
    until the next window when all attempts failed. `settle_s`: for what was received to become
    final when the service stops. `last_words_s`: for the last messages of a stream to be sent.
    """

    config_s: float = 5.0
    ack_every_s: float = 1.0
    longest_wait_s: float = 5.0
    settle_s: float = 10.0
    last_words_s: float = 10.0


async def converse(
    peer: Peer,
    *,
    config: Config,
    port: Transcribes,
    session_id: str,
    timing: Timing,
    idle_timeout_s: float | None = None,
    door: Door | None = None,
    meter: StreamMeter | None = None,
    course: Course | None = None,
    bill: Bill | None = None,
) -> int | None:
    """Serve one stream; returns the close code, None when the peer is gone."""
    course = course or Course()
    door = door or Door(config)
    if idle_timeout_s is None:
        idle_timeout_s = config.streaming.idle_timeout_s
    error: WhisperServeError
    try:
        stream_config = await within(idle_timeout_s, door.drain.unless_over(peer.configuration()))
        live = LiveStream(
            peer,
            stream_config,
            config=config,
            port=port,
            session_id=session_id,
            timing=timing,
            idle_timeout_s=idle_timeout_s,
            door=door,
            meter=meter or StreamMeter(Metrics()),
            course=course,
            tab=Tab(bill or Bill(ANYONE, AudioInMemory())),
        )
    except PeerGone:
        return None
    except asyncio.TimeoutError:
        error = StreamIdle(idle_timeout_s)
    except WhisperServeError as exc:
        error = exc
    except Exception:
        logger.exception("a stream failed before it began")
        error = WhisperServeError(OUR_FAULT)
    else:
        return await live.run()
    course.ended = error.code
    return await _turn_away(peer, error)


async def _turn_away(peer: Peer, error: WhisperServeError) -> int | None:
    try:
        await peer.send(Failed(error.code, str(error), fatal=True))
    except PeerGone:
        return None
    return error.ws_close_code


class LiveStream:
    """One stream from its configuration to its close."""

    def __init__(
        self,
        peer: Peer,
        stream_config: StreamConfig,
        *,
        config: Config,
        port: Transcribes,
        session_id: str,
        timing: Timing,
        idle_timeout_s: float,
        door: Door,
        meter: StreamMeter,
        course: Course,
        tab: Tab,
    ) -> None:
        settings = config.streaming
        self._peer = peer
        self._settings = settings
        self._timing = timing
        self._idle_timeout_s = idle_timeout_s
        self._door = door
        self._meter = meter
        self._course = course
        self._tab = tab
        self._account = Account(port)
        self._models = ServedModels(config)
        self._models.resolve(stream_config.model)
        self._decoder = live_decoder(
            stream_config.encoding, stream_config.sample_rate, stream_config.channels
        )
        self._is_container = stream_config.encoding == "container"
        self._session = StreamSession(
            stream_config,
            StreamOptions(
                vad=VadOptions(config.vad.threshold, min_speech_s=config.vad.min_speech_s),
                reach_s=settings.reach_s,
                target_s=settings.target_answer_s,
                limits=_limits(settings, idle_timeout_s),
            ),
            session_id=session_id,
            make_vad=SileroVad,
        )
        self._asker = Asker(
            self._account, settings, self._models, session_id, longest_wait_s=timing.longest_wait_s
        )
        if stream_config.resume is not None:
            meter.resumed(stream_config.resume.committed_until)
        self._outbox = Outbox()
        self._changed = asyncio.Event()
        self._asking: asyncio.Task[None] | None = None
        self._began = self._heard_at = time.monotonic()
        # Until then engines are left alone, and with partials.
        self._rests_until = self._no_partials_until = self._began
        self._told = self._standing
        self._is_gone = self._ended = False

    async def run(self) -> int | None:
        """Serve the stream; returns the close code, None when the peer is gone."""
        writer = self._start(self._write)
        work = (self._read, self._tick, self._drain, self._charge)
        helpers = [self._start(each) for each in work]
        try:
            await self._guarded(self._drive)
            self._post()
            self._outbox.finish()
            if not (self._is_gone or self._outbox.is_full):
                await asyncio.wait([writer], timeout=self._timing.last_words_s)
        finally:
            await _end([*helpers, writer, *([self._asking] if self._asking else [])])
            self._decoder.close()
            self._conclude()
            await self._tab.settle(self._session.received_s - self._session.backlog_s)
        return None if self._is_gone else self._close_code

    @property
    def _close_code(self) -> int | None:
        return TRY_AGAIN_LATER if self._outbox.is_full else self._session.close_code

    def _conclude(self) -> None:
        config, audio_s = self._session.config, self._session.received_s
        self._course.is_resumed = config.resume is not None
        self._course.audio_s, self._course.windows = audio_s, self._account.windows
        self._account.report("a stream was heard", audio_s, self._models.resolve(config.model))

    # The driver

    async def _drive(self) -> None:
        self._changed.set()
        while not (self._is_gone or self._close_code):
            await self._changed.wait()
            self._changed.clear()
            self._ask()
            self._post()
        if self._outbox.is_full:
            logger.warning("a client does not read; its stream is closed")

    def _post(self) -> None:
        for message in self._session.messages_to_send():
            self._outbox.put(message)
            self._course.tell(message)
            if isinstance(message, Failed) and message.fatal:
                return  # the last thing that a client hears

    def _ask(self) -> None:
        now = time.monotonic()
        is_resting = now < self._rests_until and not self._ended
        if is_resting or self._session.close_code is not None:
            return
        window = self._session.next_window(partials=now >= self._no_partials_until)
        if window is None:
            return
        if self._asking is not None:
            self._asking.cancel()  # a partial that came too late
        self._asking = self._start(partial(self._hear, window))

    async def _hear(self, window: LiveWindow) -> None:
        try:
            with self._door.asking(window):
                hypothesis = await self._asker.ask(
                    window, self._session.config, on_retry=self._retry
                )
        except InvalidRequest as exc:  # a language that the model does not know
            self._abort(exc)
        except Superseded as exc:  # engines are well, and partials go on
            self._session.receive_failure(window, exc)
        except WhisperServeError as exc:
            logger.warning("a window of %.1f s failed: %s", window.duration_s, exc)
            self._rest(window)
            self._session.receive_failure(window, exc)
        else:
            self._session.receive_hypothesis(window, hypothesis)

    def _retry(self) -> None:
        self._meter.retried()
        self._session.receive_retry()

    def _rest(self, window: LiveWindow) -> None:
        """Leave engines alone that failed; a window that is due at once would fail again, and
        again."""
        until = time.monotonic() + self._timing.longest_wait_s
        if window.final:
            self._rests_until = until
        self._no_partials_until = until

    # The reader

    async def _read(self) -> None:
        while not self._is_gone:
            try:
                await self._take(await self._peer.receive())
            except (InvalidRequest, ModelNotFound) as exc:
                self._refuse(exc)
            except WhisperServeError as exc:
                self._abort(exc)
            self._heard_at = time.monotonic()
            self._changed.set()
            # Frames that are there already would keep all others waiting.
            await asyncio.sleep(0)

    async def _take(self, incoming: Incoming) -> None:
        if incoming is None:
            self._is_gone = True
        elif self._session.close_code is not None or self._session.is_leaving:
            pass  # too late; it is read so that it lies nowhere
        elif isinstance(incoming, bytes):
            await self._take_audio(incoming)
        else:
            await self._take_message(incoming)

    async def _take_message(self, message: ClientMessage) -> None:
        if isinstance(message, End) and not self._ended:
            self._ended = True
            await self._take_samples(await self._decoded(self._decoder.finish))
        if isinstance(message, Configure):
            self._require_model(message.values.get("model"))
        self._session.receive(message)
        if isinstance(message, Reset) and self._asking is not None:
            self._asking.cancel()  # nobody waits for its answer any more

    def _require_model(self, name: object) -> None:
        """What is no text the session refuses."""
        if isinstance(name, str):
            self._models.resolve(name)

    async def _take_audio(self, data: bytes) -> None:
        if self._ended:
            raise InvalidMessage("the stream has ended")
        samples = await self._decoded(self._decoder.push, data)
        self._require_pace(seconds(len(samples)))
        await self._take_samples(samples)
        if self._decoder.bad_samples:
            self._session.warn("bad_samples", "samples beyond ±1 were clipped, NaN made silence")

    async def _decoded(self, decode: Callable[..., Samples], *data: bytes) -> Samples:
        try:
            if self._is_container or sum(map(len, data)) > LARGE_FRAME_BYTES:
                return await asyncio.to_thread(decode, *data)
            return decode(*data)
        except InvalidRequest as exc:  # nothing behind it can be understood either
            self._abort(exc)
            return NOTHING

    async def _take_samples(self, samples: Samples) -> None:
        for first in range(0, len(samples), SLICE):
            piece = samples[first : first + SLICE]
            self._session.receive_audio(piece)
            self._meter.arrived(
                seconds(len(piece)), self._session.received_until_s, time.monotonic()
            )
            self._changed.set()
            await asyncio.sleep(0)

    def _require_pace(self, new_s: float) -> None:
        settings = self._settings
        self._require_room(self._session.backlog_s + new_s, settings.max_backlog_s)
        if settings.pace == "realtime":
            elapsed_s = time.monotonic() - self._began
            self._require_room(self._session.received_s + new_s - elapsed_s, settings.max_ahead_s)

    def _require_room(self, ahead_s: float, limit_s: float) -> None:
        if ahead_s > limit_s / 2:
            self._session.warn(
                "client_too_fast", f"audio is {ahead_s:.0f} s ahead; at most {limit_s:g} s may be"
            )
        if ahead_s > limit_s:
            raise ClientTooFast(limit_s)

    def _refuse(self, error: WhisperServeError) -> None:
        if not self._peer.is_lenient:
            self._abort(error)
        elif self._session.close_code is None:
            self._session.refuse(error)

    def _abort(self, error: WhisperServeError) -> None:
        """The first error that ends a stream is the one that counts."""
        if self._session.close_code is None:
            self._session.abort(error)

    # The end of the service

    async def _drain(self) -> None:
        """A client that is told may go elsewhere by itself; with one that stays, all that came
        becomes final, and it goes on elsewhere from there."""
        drain = self._door.drain
        await drain.begun()
        self._session.warn(Draining.code, "the service is about to stop here: go on elsewhere")
        self._changed.set()
        await drain.over()
        self._session.leave()
        self._changed.set()
        await asyncio.sleep(self._timing.settle_s)
        self._session.leave_now()

    # The clock and the writer

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self._timing.ack_every_s)
            self._acknowledge()
            self._warn_when_behind()
            self._require_life()
            self._changed.set()

    @property
    def _standing(self) -> tuple[float, float]:
        return self._session.received_s, self._session.backlog_s

    async def _charge(self) -> None:
        """What came within a caller's quota becomes final before the stream ends for it."""
        while not self._session.is_leaving:
            await asyncio.sleep(self._timing.ack_every_s)
            try:
                await self._tab.charge(self._session.received_s)
            except QuotaExceeded as exc:
                self._session.leave(exc)
                self._changed.set()

    def _acknowledge(self) -> None:
        """Tell what came or was settled since the last time, and after the end that what waits
        is not forgotten."""
        if self._standing != self._told or self._ended:
            self._told = self._standing
            self._session.acknowledge()

    def _warn_when_behind(self) -> None:
        """Audio that came faster than it is spoken may wait."""
        received_s, backlog_s = self._standing
        came_live = received_s <= time.monotonic() - self._began + self._timing.ack_every_s
        if backlog_s > FALLING_BEHIND_S + self._session.config.chunk_duration and came_live:
            self._session.warn("falling_behind", f"{backlog_s:.0f} s of audio wait for engines")

    def _require_life(self) -> None:
        idle_s = time.monotonic() - self._heard_at
        if not self._ended and idle_s > self._idle_timeout_s:
            self._abort(StreamIdle(self._idle_timeout_s))

    async def _write(self) -> None:
        while (message := await self._outbox.take()) is not None:
            await self._peer.send(message)
            self._meter.told(message, time.monotonic())

    def _start(self, work: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        return asyncio.create_task(self._guarded(work))

    async def _guarded(self, work: Callable[[], Awaitable[None]]) -> None:
        """A fault of ours ends the stream with an error, and never silently."""
        try:
            await work()
        except PeerGone:
            self._is_gone = True
        except Exception:
            logger.exception("a stream failed")
            self._abort(WhisperServeError(OUR_FAULT))
        self._changed.set()


def _limits(settings: StreamingConfig, idle_timeout_s: float) -> dict[str, float]:
    limits = {
        "max_backlog_s": settings.max_backlog_s,
        "idle_timeout_s": idle_timeout_s,
        "max_frame_bytes": MAX_FRAME_BYTES,
    }
    if settings.pace == "realtime":
        limits["max_ahead_s"] = settings.max_ahead_s
    return limits


async def _end(tasks: Iterable[asyncio.Task[None]]) -> None:
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
