from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from whisper.tokenizer import get_tokenizer

from whisper_serve.engines.base import DecodeTask, EngineInfo, Lane, TemperaturePolicy
from whisper_serve.engines.batch_worker import BatchWorker, decode_alone
from whisper_serve.engines.fallback import Candidate
from whisper_serve.engines.intake import Intake, Limits
from whisper_serve.engines.padding import WHOLE_FRAMES, WHOLE_ONLY, Padding
from whisper_serve.engines.scheduler import Job
from whisper_serve.engines.shape import ModelShape
from whisper_serve.engines.steps import Align, DetectLanguage, Encode, Generate, Step
from whisper_serve.engines.word_times import Alignment
from whisper_serve.errors import EngineFailed, InvalidParameter
from whisper_serve.observability.context import current_request_id
from whisper_serve.text.transcript import DecodeStats, Hypothesis

PATIENCE_S = 10.0
TOKENIZER = get_tokenizer(multilingual=True, num_languages=99, language="en")
SHORT = Padding(margin_s=2.0, compression_ratio=2.0, avg_logprob=-0.6)
DOUBTFUL = -2.0

Outcome = Hypothesis | BaseException
# What a step is for: its kind, and the windows that it is asked for together.
Asked = tuple[str, list[int]]


def window(number: int, **changes: Any) -> DecodeTask:
    """A second of sound that tells its number."""
    task = DecodeTask(np.full(16_000, number, np.int16), language="en", request_id=f"r-{number}")
    return replace(task, **changes)


@dataclass(frozen=True)
class Heard:
    number: int
    frames: int


@dataclass
class ScriptedBackend:
    """Hears the number of each window. `doubts`: how often each is doubted before it is sure.
    `before` is called with what is asked, and may raise."""

    doubts: dict[int, int] = field(default_factory=dict)
    before: Callable[[str, list[int]], None] = lambda _kind, _numbers: None
    asked: list[Asked] = field(default_factory=list)
    frames: list[int] = field(default_factory=list)
    closed: bool = False

    info = EngineInfo("scripted", "tiny", "cpu", "none", multilingual=True, load_s=0.0)
    shape = ModelShape(n_mels=80, multilingual=True, num_languages=99, name="tiny")

    def encode(self, steps: Sequence[Encode]) -> Sequence[Heard]:
        heard = [Heard(int(step.samples[0]), step.frames) for step in steps]
        self._ask("encode", heard)
        self.frames += [step.frames for step in steps]
        return heard

    def detect_language(self, steps: Sequence[DetectLanguage]) -> Sequence[tuple[str, float]]:
        heard = self._ask("detect", [step.encoded for step in steps])
        return [("de", (1 + number) / 1_000) for number in heard]

    def generate(self, steps: Sequence[Generate]) -> Sequence[Candidate]:
        heard = self._ask("generate", [step.encoded for step in steps])
        return [self._said(number, step) for number, step in zip(heard, steps, strict=True)]

    def align(self, steps: Sequence[Align]) -> Sequence[Alignment]:
        self._ask("align", [step.encoded for step in steps])
        return [alignment(len(step.text_tokens)) for step in steps]

    def close(self) -> None:
        self.closed = True

    def _ask(self, kind: str, heard: Sequence[Heard]) -> list[int]:
        numbers = [each.number for each in heard]
        self.asked.append((kind, numbers))
        self.before(kind, numbers)
        return numbers

    def _said(self, number: int, step: Generate) -> Candidate:
        doubts = self.doubts.get(number, 0)
        self.doubts[number] = max(0, doubts - 1)
        text = f" Number {number}."
        tokens = tuple(TOKENIZER.encode(text))
        return Candidate(tokens, text, DOUBTFUL if doubts else -0.3, 0.1, step.temperature)

    def kinds_of(self, number: int) -> list[str]:
        return [kind for kind, numbers in self.asked if number in numbers]


def alignment(count: int) -> Alignment:
    path = np.repeat(np.arange(count + 1), 10)
    return Alignment(path, np.arange(len(path)), np.full(count, 0.5, np.float32))


class Decoding:
    """A worker in `threads` threads; the windows that are offered before `begin` come at once."""

    def __init__(
        self, backend: ScriptedBackend, padding: Padding = WHOLE_ONLY, *, rows: int = 8
    ) -> None:
        self.backend = backend
        self.intake = Intake(Limits(max_queued=1_000, rows=rows))
        self.worker = BatchWorker(backend, padding, rows=rows)
        self.jobs: list[Job] = []
        self._threads: list[threading.Thread] = []

    def offer(self, *tasks: DecodeTask) -> list[Job]:
        jobs = [Job(task, queued_at=time.monotonic()) for task in tasks]
        for job in jobs:
            job.future.add_done_callback(lambda _, job=job: self._note(job))  # type: ignore[misc]
            self.intake.offer(job)
        self.jobs += jobs
        return jobs

    def _note(self, job: Job) -> None:
        self.backend.asked.append(("told", [int(job.task.samples[0])]))

    def begin(self, threads: int = 1) -> Decoding:
        for _ in range(threads):
            thread = threading.Thread(target=self.worker.work, args=(self.intake,), daemon=True)
            self._threads.append(thread)
            thread.start()
        return self

    def outcomes(self) -> list[Outcome]:
        """What all windows got, when the worker has ended."""
        try:
            return [outcome_of(job) for job in self.jobs]
        finally:
            self.intake.close()
            for thread in self._threads:
                thread.join(PATIENCE_S)
                assert not thread.is_alive()


def outcome_of(job: Job) -> Outcome:
    try:
        error = job.future.exception(PATIENCE_S)
    except CancelledError as exc:
        return exc
    return error or replace(job.future.result(0), stats=DecodeStats())


def decoded(
    backend: ScriptedBackend, *tasks: DecodeTask, padding: Padding = WHOLE_ONLY, rows: int = 8
) -> list[Outcome]:
    decoding = Decoding(backend, padding, rows=rows)
    decoding.offer(*tasks)
    return decoding.begin().outcomes()


def texts(outcomes: Sequence[Outcome]) -> list[str]:
    """What was heard; of an error its class."""
    return [o.text if isinstance(o, Hypothesis) else type(o).__name__ for o in outcomes]


def asked(backend: ScriptedBackend) -> list[Asked]:
    return [(kind, numbers) for kind, numbers in backend.asked if kind != "told"]


# Together


def test_the_steps_of_windows_are_answered_together() -> None:
    backend = ScriptedBackend()
    outcomes = decoded(backend, *(window(n, language=None) for n in range(3)))
    assert texts(outcomes) == ["Number 0.", "Number 1.", "Number 2."]
    assert asked(backend) == [
        (kind, [0, 1, 2]) for kind in ("encode", "detect", "generate", "align")
    ]


def test_each_window_gets_its_own_answers() -> None:
    outcomes = decoded(ScriptedBackend(), window(7, language=None), window(8, language="fr"))
    assert [o for o in outcomes if isinstance(o, Hypothesis)] == outcomes
    seven, eight = (o for o in outcomes if isinstance(o, Hypothesis))
    assert (seven.language, seven.language_probability) == ("de", 0.008)
    assert (eight.language, eight.language_probability) == ("fr", 1.0)
    assert [word.text for word in seven.words] == [" Number", " 7."]


def test_a_window_takes_only_the_steps_that_it_needs() -> None:
    backend = ScriptedBackend()
    decoded(backend, window(0), window(1, language=None, want_words=False), window(2))
    assert asked(backend) == [
        ("encode", [0, 1, 2]),
        ("detect", [1]),
        ("generate", [0, 1, 2]),
        ("align", [0, 2]),
    ]


def test_no_more_windows_go_together_than_it_has_rows() -> None:
    backend = ScriptedBackend()
    assert len(set(texts(decoded(backend, *map(window, range(7)), rows=3)))) == 7
    assert [len(numbers) for kind, numbers in backend.asked if kind == "encode"] == [3, 3, 1]


def test_windows_that_come_later_are_decoded_too() -> None:
    decoding = Decoding(ScriptedBackend()).begin()
    for number in range(3):
        [job] = decoding.offer(window(number))
        assert texts([outcome_of(job)]) == [f"Number {number}."]
    decoding.outcomes()


def test_an_answer_tells_what_its_decode_cost() -> None:
    decoding = Decoding(ScriptedBackend())
    [job] = decoding.offer(window(0))
    decoding.begin().outcomes()
    stats = job.future.result(0).stats
    assert stats.encoded_s > 0
    assert stats.decoded_s > 0


def test_it_is_what_its_backend_is_and_closes_it() -> None:
    backend = ScriptedBackend()
    worker = BatchWorker(backend, WHOLE_ONLY, rows=1)
    assert worker.info is backend.info
    assert not backend.closed
    worker.close()
    assert backend.closed


# Windows that are decoded again


def test_others_are_answered_before_a_suspicious_window_goes_on() -> None:
    backend = ScriptedBackend(doubts={1: 1})
    outcomes = decoded(backend, *map(window, range(3)), padding=SHORT)
    assert texts(outcomes) == ["Number 0.", "Number 1.", "Number 2."]
    assert [(kind, numbers) for kind, numbers in backend.asked if kind in {"encode", "told"}] == [
        ("encode", [0, 1, 2]),
        ("told", [0]),
        ("told", [2]),
        ("encode", [1]),
        ("told", [1]),
    ]
    assert backend.frames[-1] == WHOLE_FRAMES
    assert max(backend.frames[:-1]) < WHOLE_FRAMES


def test_others_are_answered_before_a_window_is_tried_hotter() -> None:
    backend = ScriptedBackend(doubts={0: 3})
    outcomes = decoded(backend, *map(window, range(2)))
    assert [segment.temperature for segment in hypothesis_of(outcomes[0]).segments] == [0.6]
    assert asked(backend) == [
        ("encode", [0, 1]),
        ("generate", [0, 1]),
        ("align", [1]),
        *[("generate", [0])] * 3,
        ("align", [0]),
    ]
    assert backend.asked.index(("told", [1])) < backend.asked.index(("generate", [0]))


def hypothesis_of(outcome: Outcome) -> Hypothesis:
    assert isinstance(outcome, Hypothesis)
    return outcome


def test_windows_that_are_decoded_again_go_together_and_in_their_order() -> None:
    backend = ScriptedBackend(doubts={0: 1, 2: 1})
    decoded(backend, *(window(n, session_id="a") for n in range(3)), padding=SHORT)
    assert [numbers for kind, numbers in backend.asked if kind == "encode"] == [[0, 1, 2], [0, 2]]


def test_a_newcomer_is_answered_before_a_suspicious_window_goes_on() -> None:
    backend = ScriptedBackend(doubts={0: 1})
    decoding = Decoding(backend, SHORT)

    def let_another_come(kind: str, numbers: list[int]) -> None:
        if (kind, numbers) == ("generate", [0]) and len(decoding.jobs) == 1:
            decoding.offer(window(1))

    backend.before = let_another_come
    decoding.offer(window(0))
    decoding.begin()
    assert texts([outcome_of(decoding.jobs[0])]) == ["Number 0."]
    decoding.outcomes()
    again = [n for n, each in enumerate(backend.asked) if each == ("encode", [0])][1]
    assert backend.asked.index(("told", [1])) < again


def test_live_windows_pass_a_file_that_is_decoded_again() -> None:
    backend = ScriptedBackend(doubts={0: 1})
    decoding = Decoding(backend, SHORT)

    def let_another_come(kind: str, numbers: list[int]) -> None:
        if (kind, numbers) == ("generate", [0]) and len(decoding.jobs) == 1:
            decoding.offer(window(1, lane=Lane.LIVE_FINAL))

    backend.before = let_another_come
    decoding.offer(window(0))
    decoding.begin()
    assert texts([outcome_of(decoding.jobs[0])]) == ["Number 0."]
    decoding.outcomes()
    assert backend.asked.index(("told", [1])) < backend.asked.index(("told", [0]))


# Faults


def break_for(guilty: int, kind: str, fault: BaseException) -> Callable[[str, list[int]], None]:
    def before(asked_kind: str, numbers: list[int]) -> None:
        if asked_kind == kind and guilty in numbers:
            raise fault

    return before


FAULTS = [ValueError("bad tensor"), MemoryError(), SystemExit(1), KeyboardInterrupt()]


@pytest.mark.parametrize("kind", ["encode", "detect", "generate", "align"])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
def test_a_broken_window_does_not_take_the_others_with_it(kind: str, fault: BaseException) -> None:
    backend = ScriptedBackend(before=break_for(1, kind, fault))
    decoding = Decoding(backend)
    decoding.offer(*(window(n, language=None) for n in range(3)))
    outcomes = decoding.begin().outcomes()
    assert texts(outcomes) == ["Number 0.", "EngineFailed", "Number 2."]
    failure = outcomes[1]
    assert isinstance(failure, EngineFailed)
    assert failure.detail == f"{type(fault).__name__}: {fault}"


def test_a_broken_window_is_decoded_no_further() -> None:
    backend = ScriptedBackend(before=break_for(1, "encode", ValueError()))
    decoded(backend, *map(window, range(3)))
    assert set(backend.kinds_of(1)) == {"encode", "told"}


def test_all_windows_may_be_broken() -> None:
    def before(_kind: str, _numbers: list[int]) -> None:
        raise ValueError("bad driver")

    outcomes = decoded(ScriptedBackend(before=before), *map(window, range(3)))
    assert texts(outcomes) == ["EngineFailed"] * 3


def test_a_worker_lives_on_behind_a_fault() -> None:
    decoding = Decoding(ScriptedBackend(before=break_for(0, "generate", KeyboardInterrupt())))
    decoding.begin()
    for number, text in enumerate(["EngineFailed", "Number 1.", "Number 2."]):
        [job] = decoding.offer(window(number))
        assert texts([outcome_of(job)]) == [text]
    decoding.outcomes()


def test_a_window_that_breaks_when_it_is_decoded_again_fails_alone() -> None:
    backend = ScriptedBackend(doubts={0: 1, 1: 1})

    def before(kind: str, numbers: list[int]) -> None:
        if kind == "encode" and 1 in numbers and 1 in backend.doubts and not backend.doubts[1]:
            raise ValueError("bad tensor")

    backend.before = before
    outcomes = decoded(backend, *map(window, range(3)), padding=SHORT)
    assert texts(outcomes) == ["Number 0.", "EngineFailed", "Number 2."]


@pytest.mark.parametrize("kind", ["encode", "detect", "generate", "align"])
@pytest.mark.parametrize("most", [1, 2, 3])
def test_windows_that_are_too_many_for_the_memory_are_all_answered(kind: str, most: int) -> None:
    def before(asked_kind: str, numbers: list[int]) -> None:
        if asked_kind == kind and len(numbers) > most:
            raise MemoryError

    outcomes = decoded(
        ScriptedBackend(before=before), *(window(n, language=None) for n in range(8))
    )
    assert texts(outcomes) == [f"Number {n}." for n in range(8)]


class Forgetful(ScriptedBackend):
    """Answers one step less than it was asked."""

    def generate(self, steps: Sequence[Generate]) -> Sequence[Candidate]:
        return super().generate(steps)[1:]


def test_a_backend_that_answers_too_few_steps_is_a_fault_of_each_window_at_most() -> None:
    outcomes = decoded(Forgetful(), *map(window, range(2)))
    assert texts(outcomes) == ["EngineFailed"] * 2


def test_a_window_that_the_model_cannot_decode_is_refused_and_the_others_are_not() -> None:
    backend = ScriptedBackend()
    outcomes = decoded(backend, window(0), window(1, language="yue"), window(2))
    assert texts(outcomes) == ["Number 0.", "InvalidParameter", "Number 2."]
    assert isinstance(outcomes[1], InvalidParameter)
    assert asked(backend)[0] == ("encode", [0, 2])


def test_an_error_of_ours_arrives_as_it_is() -> None:
    error = EngineFailed("out of memory")
    [outcome] = decoded(ScriptedBackend(before=break_for(0, "encode", error)), window(0))
    assert isinstance(outcome, EngineFailed)
    assert outcome.detail == "out of memory"


def test_what_is_the_client_s_fault_is_not_logged_as_ours(
    caplog: pytest.LogCaptureFixture,
) -> None:
    decoded(ScriptedBackend(), window(0, language="yue"))
    assert not caplog.records


class RequestIds(logging.Handler):
    """The id of the request during which each line was written."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []

    def emit(self, _record: logging.LogRecord) -> None:
        self.ids.append(current_request_id())


def test_the_log_says_which_request_s_window_broke() -> None:
    lines = RequestIds()
    logger = logging.getLogger("whisper_serve")
    logger.addHandler(lines)
    try:
        backend = ScriptedBackend(before=break_for(1, "generate", ValueError()))
        decoded(backend, *map(window, range(3)))
    finally:
        logger.removeHandler(lines)
    assert lines.ids == ["r-1"]


# Windows that are given up


@pytest.mark.parametrize("kind", ["encode", "detect", "generate"])
def test_a_window_that_is_given_up_is_decoded_no_further(kind: str) -> None:
    backend = ScriptedBackend()
    decoding = Decoding(backend)

    def before(asked_kind: str, numbers: list[int]) -> None:
        if asked_kind == kind:
            decoding.jobs[1].future.cancel()

    backend.before = before
    decoding.offer(*(window(n, language=None) for n in range(3)))
    outcomes = decoding.begin().outcomes()
    assert texts(outcomes) == ["Number 0.", "CancelledError", "Number 2."]
    assert [k for k in backend.kinds_of(1) if k != "told"][-1] == kind
    assert decoding.intake.load().running == 0


def test_a_window_that_is_given_up_is_not_decoded_again() -> None:
    backend = ScriptedBackend(doubts={0: 1})
    decoding = Decoding(backend, SHORT)

    def before(kind: str, numbers: list[int]) -> None:
        if kind == "align":
            decoding.jobs[0].future.cancel()

    backend.before = before
    decoding.offer(*map(window, range(2)))
    outcomes = decoding.begin().outcomes()
    assert texts(outcomes) == ["CancelledError", "Number 1."]
    assert backend.kinds_of(0).count("encode") == 1


# Closing


@pytest.mark.parametrize("padding", [WHOLE_ONLY, SHORT])
def test_a_window_that_would_be_decoded_again_is_told_that_the_engine_closed(
    padding: Padding,
) -> None:
    backend = ScriptedBackend(doubts={0: 1})
    decoding = Decoding(backend, padding)
    backend.before = lambda kind, _numbers: decoding.intake.close() if kind == "generate" else None
    decoding.offer(*map(window, range(2)))
    outcomes = decoding.begin().outcomes()
    assert texts(outcomes) == ["CancelledError", "Number 1."]


def test_windows_that_run_are_answered_when_the_engine_closes() -> None:
    backend = ScriptedBackend()
    decoding = Decoding(backend, rows=2)
    backend.before = lambda _kind, _numbers: decoding.intake.close()
    decoding.offer(*map(window, range(3)))
    outcomes = decoding.begin().outcomes()
    assert texts(outcomes) == ["Number 0.", "Number 1.", "CancelledError"]


# Alone


def test_a_window_hears_alone_what_it_hears_in_a_batch() -> None:
    for task in (window(5), window(5, language=None, want_words=False)):
        [expected] = decoded(ScriptedBackend({5: 2}), task, padding=SHORT)
        alone = decode_alone(ScriptedBackend({5: 2}), SHORT, task)
        assert replace(alone, stats=DecodeStats()) == expected


def test_what_is_wrong_with_a_window_alone_is_raised() -> None:
    with pytest.raises(InvalidParameter):
        decode_alone(ScriptedBackend(), SHORT, window(5, language="yue"))
    fault = ValueError("bad tensor")
    with pytest.raises(ValueError, match="bad tensor"):
        decode_alone(ScriptedBackend(before=break_for(5, "align", fault)), SHORT, window(5))


# Whatever comes

crowds = st.lists(
    st.fixed_dictionaries(
        {
            "language": st.sampled_from([None, "en", "yue"]),
            "want_words": st.booleans(),
            "lane": st.sampled_from([Lane.LIVE_FINAL, Lane.FILE]),
            "temperature": st.sampled_from(
                [TemperaturePolicy(), TemperaturePolicy(temperatures=(0.0, 0.4))]
            ),
        }
    ),
    min_size=1,
    max_size=10,
)


def breaks_sometimes(kind: str, numbers: list[int]) -> None:
    if any(number % 7 == 3 for number in numbers):
        raise ValueError(kind)


@settings(max_examples=25)
@given(crowds, st.integers(1, 6), st.data())
def test_windows_hear_together_what_each_hears_alone(
    crowd: list[dict[str, Any]], rows: int, data: st.DataObject
) -> None:
    numbers = data.draw(
        st.lists(st.integers(0, 20), min_size=len(crowd), max_size=len(crowd), unique=True)
    )
    doubts = {number: data.draw(st.integers(0, 2)) for number in numbers}
    tasks = [window(number, **how) for number, how in zip(numbers, crowd, strict=True)]

    def backend() -> ScriptedBackend:
        return ScriptedBackend(dict(doubts), breaks_sometimes)

    together = decoded(backend(), *tasks, padding=SHORT, rows=rows)
    alone = [decoded(backend(), task, padding=SHORT)[0] for task in tasks]
    assert list(map(repr, together)) == list(map(repr, alone))


def test_many_threads_decode_with_one_worker() -> None:
    numbers = range(200)
    backend = ScriptedBackend({n: n % 3 for n in numbers}, breaks_sometimes)
    decoding = Decoding(backend, SHORT, rows=5)
    decoding.offer(*(window(n, session_id=f"{n % 11}") for n in numbers))
    outcomes = decoding.begin(threads=4).outcomes()
    expected = ["EngineFailed" if n % 7 == 3 else f"Number {n}." for n in numbers]
    assert texts(outcomes) == expected


def test_there_is_a_step_of_each_kind() -> None:
    """Or a window that waits for another would wait for ever."""
    assert set(Step.__args__) == {Encode, DetectLanguage, Generate, Align}
