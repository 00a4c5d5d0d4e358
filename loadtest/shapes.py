"""Users that come by steps, as Locust asks for them."""

from __future__ import annotations

from collections.abc import Sequence

from locust import LoadTestShape

# Part of the users of a step that comes each second.
RAMP_SHARE = 0.1


class Steps(LoadTestShape):
    """`users` of each step, for `step_s`; `rate`: so many come a second, None by the step."""

    abstract = True  # or Locust took it for a load that is always wanted

    def __init__(self, users: Sequence[int], step_s: float, rate: float | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._users, self._step_s, self._rate = users, step_s, rate

    def tick(self) -> tuple[int, float] | None:
        run_time_s: float = self.get_run_time()  # type: ignore[no-untyped-call]
        number = int(run_time_s // self._step_s)
        if number >= len(self._users):
            return None
        users = self._users[number]
        return users, self._rate or max(1.0, RAMP_SHARE * users)
