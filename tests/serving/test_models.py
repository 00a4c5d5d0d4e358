from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from whisper.normalizers import EnglishTextNormalizer

from tests.conftest import SAMPLE_WORDS
from tests.serving.conftest import Deploy, Service
from tests.serving.multiplexing import shelf
from tests.serving.scripted import build_named, notes, one_word
from whisper_serve.client import AsyncClient
from whisper_serve.engines.base import DecodeTask, Engine
from whisper_serve.engines.build import EngineOptions
from whisper_serve.engines.fake import FakeWorker
from whisper_serve.engines.intake import Limits
from whisper_serve.engines.threaded import ThreadedEngine
from whisper_serve.errors import (
    EngineUnavailable,
    InvalidParameter,
    ModelNotFound,
    Overloaded,
    ServerRefused,
    WeightsUnavailable,
)
from whisper_serve.serving.models import Choice, FurtherModels, most_windows
from whisper_serve.text.transcript import Hypothesis

normalize = EnglishTextNormalizer()
PATIENCE_S = 10.0
MAX_QUEUED = 25
NAMES = ("red", "green", "blue")


def options_of(name: str) -> EngineOptions:
    return EngineOptions(
        model=f"/models/{name}",
        model_dir=Path(),
        sources=("model_dir", "official"),
        engine="ctranslate2",
        device="cpu",
        compute_type="int8",
        workers=1,
        max_queued=MAX_QUEUED,
        rows=1,
    )


class Engines:
    """Builds engines that hear their model's name in everything, and tells what becomes of
    them. `may_answer` and `may_load` hold them up; `failures` come in place of engines."""

    def __init__(self) -> None:
        self.built: list[EngineOptions] = []
        self.open: Counter[str] = Counter()
        self.alive: weakref.WeakSet[Engine] = weakref.WeakSet()
        self.failures: list[BaseException] = []
        self.may_load, self.may_answer = threading.Event(), threading.Event()
        self.loading, self.hearing = threading.Event(), threading.Event()
        self.may_load.set()
        self.may_answer.set()

    @property
    def loaded(self) -> list[str]:
        """The names of what was built, in order."""
        return [Path(options.model).name for options in self.built]

    def build(self, options: EngineOptions) -> Engine:
        self.loading.set()
        assert self.may_load.wait(PATIENCE_S)
        if self.failures:
            raise self.failures.pop(0)
        self.built.append(options)
        return self._engine(options)

    def _engine(self, options: EngineOptions) -> Engine:
        name, engines = Path(options.model).name, self
        self.open[name] += 1

        def hear(task: DecodeTask) -> Hypothesis:
            engines.hearing.set()
            assert engines.may_answer.wait(PATIENCE_S)
            return one_word(name, task)

        class Told(ThreadedEngine):
            def close(self) -> None:
                super().close()
                engines.open[name] -= 1

        engine = Told(FakeWorker([hear]), Limits(options.max_queued, options.rows))
        self.alive.add(engine)
        return engine


class Replica:
    """Further models with `places` for them, in which `engines` work."""

    def __init__(self, places: int = 1, last_s: float = PATIENCE_S) -> None:
        self.engines, self.places = Engines(), places
        choice = Choice({name: options_of(name) for name in NAMES}, places)
        self.models = FurtherModels(choice, self.engines.build, shelf(places), last_s)

    async def ask(self, name: str, seconds: float = 1.0) -> str:
        samples = np.zeros(round(16_000 * seconds), np.int16)
        hypothesis = await self.models.transcribe(DecodeTask(samples, model=name))
        return hypothesis.segments[0].text.strip()

    def asking(self, name: str) -> asyncio.Task[str]:
        return asyncio.create_task(self.ask(name))

    def is_settled(self) -> bool:
        """Whether what was on its way is here, and what was leaving has left."""
        return len(self.models.loads()) == self.engines.open.total() <= self.places


async def turns(count: int = 10) -> None:
    """Enough for all that needs no thread."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition: Callable[[], bool]) -> None:
    async def poll() -> None:
        while not condition():  # noqa: ASYNC110 - threads change it
            await asyncio.sleep(0.002)

    await asyncio.wait_for(poll(), PATIENCE_S)


async def happens(event: threading.Event) -> None:
    assert await asyncio.to_thread(event.wait, PATIENCE_S)


# What is here


async def test_a_model_is_loaded_when_a_window_names_it_and_only_then() -> None:
    replica = Replica()
    assert replica.engines.loaded == []
    assert [await replica.ask("red"), await replica.ask("red")] == ["red", "red"]
    assert replica.engines.loaded == ["red"]


async def test_all_who_wait_for_a_model_have_it_loaded_once() -> None:
    replica = Replica()
    assert await asyncio.gather(*map(replica.ask, ["red"] * 5)) == ["red"] * 5
    assert replica.engines.loaded == ["red"]


async def test_the_least_recently_used_leaves() -> None:
    replica = Replica(places=2)
    for name in ("red", "green", "red", "blue"):
        await replica.ask(name)
    assert +replica.engines.open == Counter(["red", "blue"])
    await replica.ask("red")
    assert replica.engines.loaded == ["red", "green", "blue"]
    await replica.ask("green")
    assert +replica.engines.open == Counter(["red", "green"])


async def test_a_model_that_has_left_comes_back() -> None:
    replica = Replica()
    asked = [*NAMES, *NAMES]
    assert [await replica.ask(name) for name in asked] == asked
    assert replica.engines.loaded == asked
    assert +replica.engines.open == Counter(["blue"])


async def test_nothing_of_a_model_stays_when_it_has_left() -> None:
    replica = Replica()
    gc.disable()  # which would find it some time
    try:
        for name in [*NAMES, *NAMES]:
            await replica.ask(name)
        assert len(replica.engines.alive) == 1
    finally:
        gc.enable()


async def test_nothing_is_downloaded_for_a_window() -> None:
    replica = Replica()
    await replica.ask("red")
    [options] = replica.engines.built
    assert (options.model, options.sources) == ("/models/red", ("model_dir",))


async def test_a_model_that_is_not_offered_is_not_found() -> None:
    replica = Replica()
    with pytest.raises(ModelNotFound, match="'pink' is not served here; served: red, green, blue"):
        await replica.ask("pink")
    assert replica.engines.loaded == []


async def test_others_are_served_while_a_model_is_loaded() -> None:
    replica = Replica(places=2)
    await replica.ask("red")
    replica.engines.may_load.clear()
    waits = replica.asking("green")
    assert await replica.ask("red") == "red"
    assert not waits.done()
    replica.engines.may_load.set()
    assert await waits == "green"


# Who leaves


async def test_windows_in_flight_are_answered_before_their_model_is_closed() -> None:
    replica = Replica()
    await replica.ask("red")
    replica.engines.may_answer.clear()
    replica.engines.hearing.clear()
    first, second = replica.asking("red"), replica.asking("red")
    await happens(replica.engines.hearing)
    other = replica.asking("green")
    await turns()
    assert replica.engines.open["red"] == 1
    assert not other.done()
    replica.engines.may_answer.set()
    assert list(await asyncio.gather(first, second, other)) == ["red", "red", "green"]
    assert replica.engines.loaded == ["red", "green"]
    assert +replica.engines.open == Counter(["green"])


async def test_a_window_for_a_model_that_leaves_has_it_loaded_again() -> None:
    replica = Replica()
    replica.engines.may_answer.clear()
    first = replica.asking("red")
    await happens(replica.engines.hearing)
    other = replica.asking("green")
    await turns()
    late = replica.asking("red")
    await turns()
    replica.engines.may_answer.set()
    assert list(await asyncio.gather(first, other, late)) == ["red", "green", "red"]
    assert replica.engines.loaded == ["red", "green", "red"]


async def test_a_long_queue_does_not_keep_others_out_for_ever_and_is_not_lost() -> None:
    replica = Replica(last_s=0.05)
    replica.engines.may_answer.clear()
    queue = [replica.asking("red") for _ in range(4)]
    await happens(replica.engines.hearing)
    other = replica.asking("green")
    await until(lambda: len(replica.models.loads()) == 3)  # red, which leaves; green; red again
    replica.engines.may_answer.set()
    assert list(await asyncio.gather(*queue, other)) == [*["red"] * 4, "green"]
    assert replica.engines.loaded == ["red", "green", "red"]
    assert +replica.engines.open == Counter(["red"])


async def test_two_models_in_turn_on_one_place_are_both_served() -> None:
    replica = Replica()
    asked = ["red", "green"] * 10
    assert await asyncio.gather(*map(replica.ask, asked)) == asked
    assert replica.engines.loaded == ["red", "green"]  # all who wait for a model share it


# Who goes away


async def test_a_load_goes_on_when_nobody_waits_for_it_any_more() -> None:
    replica = Replica()
    replica.engines.may_load.clear()
    gone = replica.asking("red")
    await happens(replica.engines.loading)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    replica.engines.may_load.set()
    assert await replica.ask("red") == "red"
    assert await replica.ask("green") == "green"
    assert replica.engines.loaded == ["red", "green"]
    assert +replica.engines.open == Counter(["green"])


async def test_a_window_that_is_cancelled_is_not_waited_for() -> None:
    replica = Replica()
    replica.engines.may_answer.clear()
    decoded, queued = replica.asking("red"), replica.asking("red")
    await happens(replica.engines.hearing)
    queued.cancel()
    await turns()
    [load] = replica.models.loads()
    assert (load.waiting, load.running) == (0, 1)
    other = replica.asking("green")
    replica.engines.may_answer.set()
    assert list(await asyncio.gather(decoded, other)) == ["red", "green"]
    assert queued.cancelled()


# What fails


class Panic(BaseException):
    """As those of Rust's libraries."""


@pytest.mark.parametrize(
    "failure",
    [WeightsUnavailable("red", []), MemoryError(), Panic()],
    ids=lambda e: type(e).__name__,
)
async def test_a_load_that_fails_is_told_and_the_next_window_tries_again(
    failure: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    replica = Replica()
    replica.engines.failures.append(failure)
    answers = await asyncio.gather(replica.ask("red"), replica.ask("red"), return_exceptions=True)
    assert [type(answer) for answer in answers] == [EngineUnavailable, EngineUnavailable]
    assert "red could not be loaded" in caplog.text
    assert await replica.ask("red") == "red"


async def test_a_load_that_fails_leaves_the_place_to_others() -> None:
    replica = Replica()
    await replica.ask("green")
    replica.engines.failures.append(MemoryError())
    with pytest.raises(EngineUnavailable):
        await replica.ask("red")
    assert await replica.ask("blue") == "blue"
    assert +replica.engines.open == Counter(["blue"])


async def test_what_an_engine_refuses_is_refused() -> None:
    refusal = InvalidParameter("language", "the model knows English only")
    engine = ThreadedEngine(FakeWorker([refusal]), Limits(MAX_QUEUED, 1))
    models = FurtherModels(Choice({"red": options_of("red")}), lambda _: engine, shelf(1))
    with pytest.raises(InvalidParameter, match="English only"):
        await models.transcribe(DecodeTask(np.zeros(16_000, np.int16), model="red"))


async def test_no_more_windows_wait_for_a_model_than_its_engine_would_hold() -> None:
    replica = Replica()
    replica.engines.may_load.clear()
    most = most_windows(options_of("red"))
    waiting = [replica.asking("red") for _ in range(most)]
    await happens(replica.engines.loading)
    with pytest.raises(Overloaded):
        await replica.ask("red")
    other = replica.asking("green")
    for asked in waiting[1:]:
        asked.cancel()
    replica.engines.may_load.set()
    assert [await waiting[0], await other] == ["red", "green"]


def test_an_engine_holds_its_lanes_and_what_it_decodes() -> None:
    assert most_windows(options_of("red")) == 3 * MAX_QUEUED + 1


# What there is to do


async def test_windows_that_wait_for_a_model_count_as_waiting() -> None:
    replica = Replica()
    replica.engines.may_load.clear()
    asked = [asyncio.create_task(replica.ask("red", seconds)) for seconds in (1.0, 2.5)]
    await happens(replica.engines.loading)
    [load] = replica.models.loads()
    assert (load.waiting, load.waiting_s, load.running) == (2, 3.5, 0)
    replica.engines.may_load.set()
    await asyncio.gather(*asked)
    [load] = replica.models.loads()
    assert (load.waiting, load.running) == (0, 0)


async def test_a_model_that_leaves_counts_until_it_is_closed() -> None:
    replica = Replica()
    replica.engines.may_answer.clear()
    asked = replica.asking("red")
    await happens(replica.engines.hearing)
    other = replica.asking("green")
    await turns()
    loads = replica.models.loads()
    assert [(load.waiting, load.running) for load in loads] == [(0, 1), (1, 0)]
    assert loads[0].oldest_running_s > 0
    replica.engines.may_answer.set()
    await asyncio.gather(asked, other)
    assert len(replica.models.loads()) == 1


# Anything

Visit = st.tuples(st.sampled_from(NAMES), st.booleans(), st.sampled_from([0, 0, 1, 5]))


@settings(max_examples=60)
@given(places=st.integers(1, 3), visits=st.lists(Visit, min_size=1, max_size=25))
def test_whatever_is_asked_every_window_is_answered_by_its_model(
    places: int, visits: list[tuple[str, bool, int]]
) -> None:
    """Each visit: a model, whether the client goes away, and the turns until the next."""

    async def ask_all() -> None:
        replica = Replica(places, last_s=0.01)
        asked = []
        for name, goes_away, until_next in visits:
            asked.append((name, replica.asking(name)))
            await turns(until_next)
            if goes_away:
                asked[-1][1].cancel()
        await asyncio.wait([task for _, task in asked], timeout=PATIENCE_S)
        assert all(task.cancelled() or task.result() == name for name, task in asked)
        await until(replica.is_settled)
        assert replica.engines.open.total() <= places

    asyncio.run(ask_all())


# In a replica of Ray Serve


def put_weights(folder: Path, *names: str) -> None:
    """What looks like weights, for engines that load none."""
    for name in names:
        (folder / name).mkdir()
        (folder / name / "model.bin").write_bytes(name.encode())
        (folder / name / "config.json").write_text("{}")


def transcribe(service: Service, recording: Path, model: str) -> httpx.Response:
    with recording.open("rb") as file:
        form = {"audio_file": file}
        return service.client.post("/transcribe", files=form, params={"model": model})


def texts(service: Service, recording: Path, models: list[str]) -> list[str]:
    """What each of the models hears, one after the other."""
    answers = [transcribe(service, recording, model) for model in models]
    assert [answer.status_code for answer in answers] == [200] * len(models), answers
    return [answer.json()["text"] for answer in answers]


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def scripted(deploy: Deploy, scratch: Path) -> Service:
    """Four models, of which one replica holds the default one and another."""
    put_weights(scratch, *NAMES)
    settings: dict[str, Any] = {"model": {"size": "grey", "model_dir": str(scratch)}}
    return deploy("models", {**settings, "models": list(NAMES)}, build_named)


def loaded(scratch: Path) -> list[str]:
    return (scratch / "loaded").read_text().split()


@pytest.mark.server
def test_serve_loads_what_is_asked_for_and_lets_the_least_recently_used_leave(
    scripted: Service, scratch: Path, sample: Path
) -> None:
    asked = ["red", "red", "", "green", "green", "grey", "red"]
    heard = ["red", "red", "grey", "green", "green", "grey", "red"]
    assert texts(scripted, sample, asked) == heard
    assert loaded(scratch) == ["grey", "red", "green", "red"]


@pytest.mark.server
def test_what_is_not_served_is_not_found(scripted: Service, scratch: Path, sample: Path) -> None:
    before = loaded(scratch)
    answer = transcribe(scripted, sample, "tiny")
    assert (answer.status_code, answer.json()["code"]) == (404, "model_not_found")
    assert answer.json()["error"].endswith("served: grey, red, green, blue")
    assert loaded(scratch) == before


@pytest.mark.server
def test_every_window_survives_the_swaps_of_its_model(
    scripted: Service, scratch: Path, sample: Path
) -> None:
    asked = [*NAMES] * 8
    with ThreadPoolExecutor(len(asked)) as pool:
        answers = list(pool.map(lambda name: transcribe(scripted, sample, name), asked))
    assert [answer.json()["text"] for answer in answers] == asked
    assert {answer.status_code for answer in answers} == {200}


@pytest.mark.server
def test_swaps_leave_no_threads_behind(scripted: Service, scratch: Path, sample: Path) -> None:
    [pid] = set(notes(scratch, "built"))
    texts(scripted, sample, list(NAMES) * 2)
    before = psutil.Process(pid).num_threads()
    texts(scripted, sample, list(NAMES) * 4)
    assert psutil.Process(pid).num_threads() <= before


@pytest.mark.server
def test_a_load_that_fails_is_told_and_costs_no_replica(
    scripted: Service, scratch: Path, sample: Path
) -> None:
    texts(scripted, sample, ["red"])
    (scratch / "broken").touch()
    try:
        answer = transcribe(scripted, sample, "green")
    finally:
        (scratch / "broken").unlink()
    assert (answer.status_code, answer.json()["code"]) == (503, "engine_unavailable")
    assert "secret" not in answer.text
    assert int(answer.headers["retry-after"]) >= 1
    assert texts(scripted, sample, ["grey", "green"]) == ["grey", "green"]
    assert len(set(notes(scratch, "built"))) == 1


@pytest.fixture(scope="module")
def several(
    deploy: Deploy, base_ctranslate2: Path, tiny_ctranslate2: Path, model_dir: Path
) -> Service:
    settings: dict[str, Any] = {"models": ["tiny.en"]}
    return deploy("several", settings)


@pytest.mark.server
@pytest.mark.weights
def test_each_model_hears_for_itself(several: Service, sample: Path) -> None:
    for model in ("base", "tiny.en"):
        [text] = texts(several, sample, [model])
        assert normalize(text) == SAMPLE_WORDS
    german = {"language": "de", "model": "tiny.en"}
    answer = several.client.post(
        "/transcribe", files={"audio_file": sample.read_bytes()}, data=german
    )
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_parameter")
    assert "'tiny.en' knows English only" in answer.json()["error"]
    answer = several.client.post(
        "/transcribe", files={"audio_file": sample.read_bytes()}, data={"language": "de"}
    )
    assert answer.status_code == 200


@pytest.mark.server
@pytest.mark.weights
async def test_a_stream_chooses_its_model(several: Service, sample: Path) -> None:
    async with AsyncClient(several.url) as client:
        assert normalize(await client.transcribe_stream(sample, model="tiny.en")) == SAMPLE_WORDS
        with pytest.raises(ServerRefused, match=r"served: base, tiny\.en") as caught:
            await client.transcribe_stream(sample, model="tiny")
    assert caught.value.error_code == "model_not_found"
