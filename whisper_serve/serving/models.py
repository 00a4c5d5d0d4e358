"""The further models of a replica: each comes when it is asked for, and leaves for another.

Ray Serve's multiplexing holds them (`ray/serve/multiplex.py`): it loads one at a time, and
before that lets the least recently used leave when there is no room. It knows nothing of the
windows in a model, and a request that is cancelled would take its load along. So all who want a
model that is not here share one arrival, which goes on without them; and a model that leaves
takes no new windows and is closed when those that it has are answered, or after some time: what
it has not begun then waits until it is back.

All of this runs on the replica's event loop; loading and closing have threads of their own.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch

from whisper_serve.engines.base import DecodeTask, Engine, EngineInfo, EngineLoad, Lane
from whisper_serve.engines.build import EngineOptions
from whisper_serve.errors import EngineUnavailable, ModelNotFound, Overloaded
from whisper_serve.serving.client import RETRY_AFTER_S
from whisper_serve.serving.memory import trim_heap
from whisper_serve.text.transcript import Hypothesis

logger = logging.getLogger(__name__)

# How long a model that leaves goes on with what waits in it, while another one waits.
LAST_WINDOWS_S = 10.0

Hold = Callable[[str], Awaitable[object]]
# What `serve.multiplexed(...)` is: it is given what loads a model by its name, and gives what
# has it loaded unless it is here, counts its use and lets others leave.
Multiplex = Callable[[Hold], Hold]


@dataclass(frozen=True, slots=True)
class Choice:
    """The further models that there are. `options`: how each is loaded, by the names that tasks
    say. `at_once`: how many of them a replica holds."""

    options: Mapping[str, EngineOptions] = field(default_factory=dict)
    at_once: int = 1


class FurtherModel:
    """A model from the first window that asks for it until it has left."""

    def __init__(self, name: str, gone: Callable[[FurtherModel], None], last_s: float) -> None:
        """`gone` is told when it has left, which is when its windows are answered or after
        `last_s` seconds."""
        self.name = name
        self.windows = 0
        self.is_leaving = False
        self.engine: Engine | None = None
        self.arrival: asyncio.Task[None] | None = None
        self._gone = gone
        self._last_s = last_s
        self._audio_s = 0.0
        self._idle = asyncio.Event()
        # Serve awaits it when the model leaves. It is the object's own, because Python would
        # call one of the class too, at any time and in any thread.
        self.__del__ = self.leave

    @contextmanager
    def taking(self, task: DecodeTask) -> Iterator[None]:
        """While a window waits for the model or is in its engine."""
        self.windows += 1
        self._audio_s += task.duration_s
        self._idle.clear()
        try:
            yield
        finally:
            self.windows -= 1
            self._audio_s -= task.duration_s
            if not self.windows:
                self._idle.set()

    def load(self) -> EngineLoad:
        if self.engine is not None:
            return self.engine.load()
        return EngineLoad(self.windows, self._audio_s, running=0, oldest_running_s=0.0)

    async def leave(self) -> None:
        """Never raises: it would be told to those who wait for the next model."""
        self.is_leaving = True
        try:
            await asyncio.wait_for(self._idle.wait(), self._last_s)
        except asyncio.TimeoutError:
            logger.info("%s leaves before %d windows are answered", self.name, self.windows)
        await self._close()
        self._gone(self)
        logger.info("%s has left", self.name)

    async def _close(self) -> None:
        assert self.engine is not None
        try:
            await asyncio.to_thread(self.engine.close)
        except Exception:
            logger.exception("%s could not be closed", self.name)
        self.engine = None
        await asyncio.to_thread(give_back_memory)


class FurtherModels:
    """Answers windows that name a model, within what `choice` allows.

    `build` loads a model, which blocks; it finds the weights in the model directory. `multiplex`
    decides which are held. For `last_s` see `FurtherModel`.
    """

    def __init__(
        self,
        choice: Choice,
        build: Callable[[EngineOptions], Engine],
        multiplex: Multiplex,
        last_s: float = LAST_WINDOWS_S,
    ) -> None:
        self._options = choice.options
        self._build = build
        self._last_s = last_s
        self._models: list[FurtherModel] = []

        # Serve keeps what it holds on the function; a method has no place for it.
        async def load(name: str) -> FurtherModel:
            return await self._load(name)

        self._hold = multiplex(load)

    async def transcribe(self, task: DecodeTask) -> Hypothesis:
        """Being cancelled takes the window out of the engine's queue, but stops no load.

        Raises `ModelNotFound`, `Overloaded`, `EngineUnavailable` when the model cannot be
        loaded, which the next window tries again, and what the engine raises.
        """
        while True:
            model = self._model(task.model)
            with model.taking(task):
                engine = await self._engine_of(model)
                answer = asyncio.wrap_future(engine.submit(task))
                try:
                    await asyncio.wait([answer])
                finally:
                    answer.cancel()
            if not answer.cancelled():
                return answer.result()
            # The model has left before the window's turn: it has to come back.

    def loads(self) -> Sequence[EngineLoad]:
        """What each model has to do; one that has not come yet or leaves counts too."""
        return [model.load() for model in self._models]

    def infos(self) -> Sequence[EngineInfo]:
        """Of the models that are loaded."""
        engines = [model.engine for model in self._models]
        return [engine.info for engine in engines if engine is not None]

    def _model(self, name: str) -> FurtherModel:
        """The one that takes windows now."""
        if name not in self._options:
            raise ModelNotFound(name, tuple(self._options))
        model = self._here(name)
        if model is None:
            model = FurtherModel(name, self._models.remove, self._last_s)
            self._models.append(model)
            model.arrival = asyncio.create_task(self._arrive(model))
        if model.windows >= most_windows(self._options[name]):
            raise Overloaded(RETRY_AFTER_S)
        return model

    def _here(self, name: str) -> FurtherModel | None:
        """The model if it is here or on its way."""
        here = (model for model in self._models if not model.is_leaving)
        return next((model for model in here if model.name == name), None)

    async def _engine_of(self, model: FurtherModel) -> Engine:
        if model.engine is not None:
            await self._hold(model.name)  # at once: it is here, and this counts its use
        elif model.arrival is not None:
            await asyncio.shield(model.arrival)
        if model.engine is None:
            raise EngineUnavailable(RETRY_AFTER_S)
        return model.engine

    async def _arrive(self, model: FurtherModel) -> None:
        try:
            await self._hold(model.name)
        except BaseException:  # a panic of Rust is no Exception
            self._models.remove(model)
            logger.exception("%s could not be loaded", model.name)

    async def _load(self, name: str) -> FurtherModel:
        """What Serve calls, one at a time, and holds what it is given."""
        model = self._here(name)
        assert model is not None
        if model.engine is None:
            # No request downloads anything: the replica did when it started.
            options = replace(self._options[name], sources=("model_dir",))
            model.engine = await asyncio.to_thread(self._build, options)
        return model


def most_windows(options: EngineOptions) -> int:
    """How many windows one engine holds at the most: waiting in its lanes and being decoded."""
    return len(Lane) * options.max_queued + options.workers * options.rows


def give_back_memory() -> None:
    """To the system: torch and glibc keep much of what was freed, and each model that comes and
    goes leaves other holes in it."""
    torch.cuda.empty_cache()
    trim_heap()


def together(loads: Iterable[EngineLoad]) -> EngineLoad:
    """What several engines have to do."""
    loads = list(loads)
    return EngineLoad(
        waiting=sum(load.waiting for load in loads),
        waiting_s=sum(load.waiting_s for load in loads),
        running=sum(load.running for load in loads),
        oldest_running_s=max((load.oldest_running_s for load in loads), default=0.0),
        waiting_files=sum(load.waiting_files for load in loads),
    )
