"""Live streams from Python: audio in, final text out, decoded by workers on Ray.

    cluster = FasterWhisperWorkerCluster("en", "base")
    cluster.run()
    asr = RayFasterWhisperASR(global_asr_queue=cluster.get_global_asr_queue())
    online = OnlineASRProcessor(asr)
    online.insert_audio_chunk(chunk)
    begin, end, text = online.process_iter()
    begin, end, text = online.finish()

See `docs/online.md`.
"""

from __future__ import annotations

import concurrent.futures
import logging
import uuid
from concurrent.futures import Future
from typing import Protocol

import numpy as np
import numpy.typing as npt

from whisper_serve.audio.encodings import tamed
from whisper_serve.audio.pcm import Samples
from whisper_serve.audio.silero import SileroVad
from whisper_serve.engines.base import DecodeTask, Lane, Task
from whisper_serve.errors import DeadlineExceeded, InvalidParameter, InvalidRequest
from whisper_serve.serving.global_queue import GlobalAsrQueue
from whisper_serve.serving.workers import FasterWhisperWorkerCluster
from whisper_serve.streaming.effort import Effort
from whisper_serve.streaming.listener import AlwaysSpeech, LiveListener, LiveWindow
from whisper_serve.streaming.messages import StreamConfig
from whisper_serve.streaming.policies import make_policy
from whisper_serve.streaming.session import StreamOptions
from whisper_serve.text.transcript import Hypothesis, Word

__all__ = [
    "FasterWhisperWorkerCluster",
    "GlobalAsrQueue",
    "OnlineASRProcessor",
    "RayFasterWhisperASR",
]

logger = logging.getLogger(__name__)

# Begin and end in seconds of the stream, and text; (None, None, "") when there is none.
Emission = tuple[float | None, float | None, str]

# Jobs end by themselves at their deadline; this is for a queue that does not.
GRACE_S = 5.0


class TakesJobs(Protocol):
    """A queue in front of workers."""

    @property
    def language(self) -> str | None: ...

    def submit(self, task: DecodeTask) -> Future[Hypothesis]: ...


class TranscribesNow(Protocol):
    """Hears one window while the caller waits. `language` is what is spoken unless a stream
    says otherwise, None to detect it."""

    @property
    def language(self) -> str | None: ...

    def transcribe(self, task: DecodeTask) -> Hypothesis: ...


class RayFasterWhisperASR:
    """Has windows decoded by the workers of a cluster; any number of threads may use it."""

    def __init__(self, global_asr_queue: TakesJobs) -> None:
        self._queue = global_asr_queue

    @property
    def language(self) -> str | None:
        return self._queue.language

    def transcribe(self, task: DecodeTask) -> Hypothesis:
        """Blocks for at most about `task.timeout_s`. Raises what the queue's jobs raise."""
        job = self._queue.submit(task)
        try:
            return job.result(task.timeout_s + GRACE_S)
        except concurrent.futures.TimeoutError as exc:
            raise DeadlineExceeded(task.timeout_s) from exc
        finally:
            job.cancel()  # does nothing once it is done; after Ctrl-C it saves the work


class OnlineASRProcessor:
    """One stream: what it says becomes final as soon as two decodes agree on it.

    To be used from one thread at a time; many processors may share `asr` and run side by side.

    `language`: code, English name, "auto" to detect it, or None for that of `asr`. `task`:
    "translate" writes English whatever is spoken. `prompt`: text in the style and spelling that
    the text shall have. `timeout_s`: longest time for one window, waiting included. Raises
    `InvalidParameter`.
    """

    def __init__(
        self,
        asr: TranscribesNow,
        *,
        language: str | None = None,
        task: Task = "transcribe",
        prompt: str = "",
        hotwords: str = "",
        vad: bool = True,
        beam_size: int = 5,
        timeout_s: float = 30.0,
    ) -> None:
        spoken = asr.language if language is None else language
        config = StreamConfig.parse(
            {
                "policy": "agreement",
                "language": None if spoken == "auto" else spoken,
                "task": task,
                "prompt": prompt,
                "hotwords": hotwords,
                "beam_size": beam_size,
                "vad": vad,
            }
        )
        options = StreamOptions()
        self._listener = LiveListener(
            make_policy(config),
            SileroVad() if vad else AlwaysSpeech(),
            options.vad,
            effort=Effort(options.reach_s, options.target_s),
            language=config.language,
        )
        self._asr = asr
        self._config = config
        self._beam_size = beam_size
        self._timeout_s = timeout_s
        self._id = uuid.uuid4().hex
        self._asked: LiveWindow | None = None
        self._final: list[Word] = []
        self._ended = self._clipped = self._spoken = False

    def insert_audio_chunk(self, audio: npt.ArrayLike) -> None:
        """More of the stream: float32 in ±1 (or int16) at 16 kHz, mono, shape (n,), any n.
        Values beyond ±1 are clipped, NaN is silence. Raises `InvalidParameter`, and
        `InvalidRequest` after `finish`."""
        if self._ended:
            raise InvalidRequest("the stream has ended; make a new OnlineASRProcessor")
        self._listener.push(self._samples(np.asarray(audio)))

    def process_iter(self) -> Emission:
        """Have all windows decoded that are due, and return what became final.

        Times are seconds of the stream. The whole text is the concatenation of all `text`,
        whose leading spaces matter; without new text it is `(None, None, "")`. Raises
        `DeadlineExceeded`, `Overloaded`, `EngineUnavailable`, `EngineFailed` or
        `InvalidParameter`; nothing is lost then, and the same call can be made again.
        """
        while (window := self._asked or self._listener.next_window(partial=False)) is not None:
            self._asked = window  # until it is answered, whatever is raised
            hypothesis = self._asr.transcribe(self._job(window))
            self._asked = None
            if (outcome := self._listener.answer(window, hypothesis)) is not None:
                self._final += outcome.final
        return self._emit()

    def finish(self) -> Emission:
        """No more audio will come: as `process_iter`, with all the rest of the stream."""
        if not self._ended:
            self._ended = True
            self._listener.finish()
            self._listener.settle("end")
        return self.process_iter()

    def _job(self, window: LiveWindow) -> DecodeTask:
        config = self._config
        return DecodeTask(
            samples=window.samples,
            language=window.language,
            task=config.task,
            context=f"{config.prompt} {window.context}".strip(),
            prefix=window.prefix,
            hotwords=config.hotwords,
            beam_size=self._beam_size if window.thorough else 1,
            full_padding=window.thorough,
            best_of=config.best_of,
            suppress_tokens=config.suppress_tokens,
            lane=Lane.LIVE_FINAL,
            session_id=self._id,
            request_id=f"{self._id}-{window.number}",
            timeout_s=self._timeout_s,
        )

    def _emit(self) -> Emission:
        words, self._final = self._final, []
        if not words:
            return None, None, ""
        text = "".join(word.text for word in words)
        if not self._spoken:
            self._spoken, text = True, text.lstrip()
        return words[0].start, words[-1].end, text

    def _samples(self, audio: npt.NDArray[np.generic]) -> Samples:
        if audio.ndim != 1:
            raise InvalidParameter("audio", f"mono has the shape (n,), and this has {audio.shape}")
        if audio.dtype == np.int16:
            return audio.astype(np.int16)
        if not np.issubdtype(audio.dtype, np.floating):
            raise InvalidParameter(
                "audio", f"float32 or int16 is needed, and this is {audio.dtype}"
            )
        values, n_bad = tamed(audio.astype(np.float32))
        if n_bad and not self._clipped:
            self._clipped = True
            logger.warning("audio beyond ±1 was clipped, NaN made silence")
        return np.rint(np.clip(values * 32768, -32768, 32767)).astype(np.int16)
