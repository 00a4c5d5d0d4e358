from __future__ import annotations

import numpy as np
import pytest

from tests.api.streams import Engine
from whisper_serve.api.asking import ATTEMPTS, Asker
from whisper_serve.api.models import ServedModels
from whisper_serve.config import Config
from whisper_serve.engines.base import DecodeTask, Lane
from whisper_serve.errors import (
    DeadlineExceeded,
    EngineFailed,
    EngineUnavailable,
    InvalidParameter,
    Overloaded,
    Superseded,
    WhisperServeError,
)
from whisper_serve.streaming.listener import LiveWindow
from whisper_serve.streaming.messages import StreamConfig

PASSING = [EngineFailed(""), DeadlineExceeded(1.0), Overloaded(60.0), EngineUnavailable(60.0)]
passing = pytest.mark.parametrize("failure", PASSING, ids=lambda failure: failure.code)


def window(*, final: bool, thorough: bool = True) -> LiveWindow:
    return LiveWindow(
        number=1,
        start=0,
        samples=np.zeros(16_000, np.int16),
        context="said before",
        prefix="said already",
        language="de",
        final=final,
        settles=False,
        fresh=False,
        thorough=thorough,
    )


class Asked:
    """Asks `engine` for one window, and counts how often it is said to be asked again."""

    def __init__(self, engine: Engine | None = None, **settings: object) -> None:
        self.engine = engine or Engine()
        self.retries = 0
        served = {"streaming": settings, "models": ["tiny.en"]}
        config = Config.model_validate(served)
        models = ServedModels(config)
        self._asker = Asker(self.engine, config.streaming, models, "s-1", longest_wait_s=0.0)

    async def ask(self, *, final: bool, **config: object) -> DecodeTask:
        return await self.ask_for(window(final=final), **config)

    async def ask_for(self, asked: LiveWindow, **config: object) -> DecodeTask:
        await self._asker.ask(asked, StreamConfig.parse(config), on_retry=self._retry)
        return self.engine.tasks[-1]

    def _retry(self) -> None:
        self.retries += 1


# What is asked


async def test_a_stream_in_a_hurry_has_no_beam_unless_the_client_wishes_one() -> None:
    hurried = window(final=True, thorough=False)
    assert (await Asked(beam_size=4).ask_for(window(final=True))).beam_size == 4
    assert (await Asked(beam_size=4).ask_for(hurried)).beam_size == 1
    assert (await Asked(beam_size=4).ask_for(hurried, beam_size=3)).beam_size == 3


@pytest.mark.parametrize(("final", "lane"), [(True, Lane.LIVE_FINAL), (False, Lane.LIVE_PARTIAL)])
async def test_a_window_is_asked_for_as_the_client_wishes(final: bool, lane: Lane) -> None:
    task = await Asked(window_timeout_s=7.0).ask(
        final=final, task="translate", prompt="Hm.", hotwords="Ray", suppress_tokens=[13], best_of=2
    )
    assert (task.context, task.prefix) == ("Hm. said before", "said already")
    assert (task.language, task.task, task.hotwords) == ("de", "translate", "Ray")
    assert (task.best_of, task.suppress_tokens) == (2, (13,))
    assert (task.lane, task.session_id, task.timeout_s) == (lane, "s-1", 7.0)


@pytest.mark.parametrize(("name", "asked"), [("", ""), ("base", ""), ("tiny.en", "tiny.en")])
async def test_a_window_is_asked_of_the_model_that_the_client_names(name: str, asked: str) -> None:
    assert (await Asked().ask(final=True, model=name)).model == asked


@pytest.mark.parametrize(
    ("chosen", "configured", "asked"), [(None, 5, 5), (None, 2, 2), (3, 5, 3), (1, 5, 1)]
)
async def test_final_text_has_the_beam_of_the_client_or_the_configured_one(
    chosen: int | None, configured: int, asked: int
) -> None:
    task = await Asked(beam_size=configured).ask(final=True, beam_size=chosen)
    assert task.beam_size == asked


@pytest.mark.parametrize("chosen", [None, 3])
async def test_partial_text_is_greedy_whatever_the_beam(chosen: int | None) -> None:
    assert (await Asked().ask(final=False, beam_size=chosen)).beam_size == 1


# What is asked again


@passing
async def test_a_final_window_is_asked_for_again(failure: WhisperServeError) -> None:
    asked = Asked(Engine([failure] * (ATTEMPTS - 1)))
    await asked.ask(final=True)
    assert (len(asked.engine.tasks), asked.retries) == (ATTEMPTS, ATTEMPTS - 1)


@passing
async def test_what_fails_each_time_is_raised_at_last(failure: WhisperServeError) -> None:
    asked = Asked(Engine(trouble=failure))
    with pytest.raises(type(failure)):
        await asked.ask(final=True)
    assert (len(asked.engine.tasks), asked.retries) == (ATTEMPTS, ATTEMPTS - 1)


@pytest.mark.parametrize("failure", [*PASSING, Superseded()], ids=lambda failure: failure.code)
async def test_a_partial_window_is_asked_for_once(failure: WhisperServeError) -> None:
    asked = Asked(Engine([failure]))
    with pytest.raises(type(failure)):
        await asked.ask(final=False)
    assert (len(asked.engine.tasks), asked.retries) == (1, 0)


async def test_what_is_wrong_is_not_asked_for_again() -> None:
    asked = Asked(Engine([InvalidParameter("language", "the model knows English only")]))
    with pytest.raises(InvalidParameter):
        await asked.ask(final=True)
    assert (len(asked.engine.tasks), asked.retries) == (1, 0)
