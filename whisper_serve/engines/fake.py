"""A scripted decoder for tests: it answers what it was told to, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from whisper_serve.engines.base import DecodeTask, EngineInfo
from whisper_serve.text.transcript import Hypothesis

Answer = Hypothesis | BaseException | Callable[[DecodeTask], Hypothesis]


class FakeDecoder:
    """Gives one answer per window: a hypothesis, an exception to raise, or a function of the
    task. The last answer repeats. `tasks` holds what was asked."""

    def __init__(self, answers: Iterable[Answer]) -> None:
        self._answers = deque(answers)
        self.tasks: list[DecodeTask] = []
        self.closed = False
        self.info = EngineInfo("fake", "scripted", "cpu", "none", multilingual=True, load_s=0.0)

    def decode(self, task: DecodeTask) -> Hypothesis:
        self.tasks.append(task)
        answer = self._answers.popleft() if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, BaseException):
            raise answer
        return answer if isinstance(answer, Hypothesis) else answer(task)

    def close(self) -> None:
        self.closed = True
