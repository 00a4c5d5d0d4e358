"""A scripted worker for tests: it answers what it was told to, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from whisper_serve.engines.base import DecodeTask, EngineInfo, bound_to
from whisper_serve.engines.intake import Intake
from whisper_serve.errors import EngineFailed, WhisperServeError
from whisper_serve.text.transcript import Hypothesis

Answer = Hypothesis | WhisperServeError | Callable[[DecodeTask], Hypothesis]


class FakeWorker:
    """Decodes one window at a time in each thread. Gives one answer per window: a hypothesis,
    an error, or a function of the task. The last answer repeats. `tasks` holds what was
    asked."""

    def __init__(self, answers: Iterable[Answer]) -> None:
        self._answers = deque(answers)
        self.tasks: list[DecodeTask] = []
        self.closed = False
        self.info = EngineInfo("fake", "scripted", "cpu", "none", multilingual=True, load_s=0.0)

    def company(self, _task: DecodeTask) -> object:
        return None

    def work(self, intake: Intake) -> None:
        while (jobs := intake.take(1, wait=True)) is not None:
            for job in jobs:
                with bound_to(job.task):
                    intake.answer(job, self._outcome(job.task))

    def close(self) -> None:
        self.closed = True

    def _outcome(self, task: DecodeTask) -> Hypothesis | WhisperServeError:
        self.tasks.append(task)
        answer = self._answers.popleft() if len(self._answers) > 1 else self._answers[0]
        if not callable(answer):
            return answer
        try:
            return answer(task)
        except WhisperServeError as exc:
            return exc
        except Exception as exc:  # noqa: BLE001  # a broken script must not end the thread
            return EngineFailed(repr(exc))
