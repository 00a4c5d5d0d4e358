from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.web.browser import Modules, loaded_modules

pytestmark = [pytest.mark.browser, pytest.mark.timeout(60)]

AFTER = "(module, code, attempt, chance) => module.afterClose(code, attempt, () => chance)"
PACE = """(module, steps) => {
  const pace = new module.Pace();
  return steps.map(([name, ...rest]) => pace[name](...rest) ?? null);
}"""


@pytest.fixture(scope="module")
def modules() -> Iterator[Modules]:
    with loaded_modules() as modules:
        yield modules


def after(modules: Modules, code: int, attempt: int = 0, chance: float = 0.5) -> dict[str, Any]:
    return dict(modules.call("reconnect.js", AFTER, code, attempt, chance))


def allowed(modules: Modules, *steps: tuple[Any, ...]) -> list[Any]:
    answers = modules.call("reconnect.js", PACE, steps)
    pairs = zip(steps, answers, strict=True)
    return [answer for (name, *_), answer in pairs if name == "allows"]


@pytest.mark.parametrize("code", [1000, 1001, 1005, 1006, 1011, 1012, 1013, 4408, 4429])
def test_most_connections_are_made_again(modules: Modules, code: int) -> None:
    assert after(modules, code)["again"] is True


@pytest.mark.parametrize("code", [1002, 1003, 1008, 1009])
def test_what_would_be_refused_again_is_not_tried_again(modules: Modules, code: int) -> None:
    decision = after(modules, code)
    assert decision["again"] is False
    assert decision["why"].startswith("The service")


def test_the_delay_doubles_up_to_a_limit(modules: Modules) -> None:
    delays = [after(modules, 1006, attempt)["delayS"] for attempt in range(8)]
    assert delays == [0.5, 1, 2, 4, 8, 15, 15, 15]


def test_clients_do_not_come_back_all_at_once(modules: Modules) -> None:
    delays = [after(modules, 1006, 1, chance)["delayS"] for chance in (0.0, 0.999)]
    assert delays == pytest.approx([0.75, 1.25], abs=0.01)


def test_a_busy_service_is_left_alone_for_longer(modules: Modules) -> None:
    assert after(modules, 1013)["delayS"] == 2


def test_a_service_that_drains_has_others_beside_it(modules: Modules) -> None:
    for code in (1001, 1012):
        assert after(modules, code, 0)["delayS"] == 0
        assert after(modules, code, 1)["delayS"] > 0


def test_at_most_half_the_backlog_is_unsettled(modules: Modules) -> None:
    steps = [("allows", 0, 1e6), ("limit", {"max_backlog_s": 60})]
    answers = allowed(modules, *steps, ("allows", 0, 29.9), ("allows", 0, 30))
    assert answers == [True, True, False]


def test_a_service_that_was_too_slow_gets_audio_as_it_is_spoken(modules: Modules) -> None:
    steps: list[tuple[Any, ...]] = [("slow", 100), ("allows", 100, 0), ("sent", 0.5)]
    steps += [("allows", 100.4, 0), ("allows", 100.5, 0), ("restart", 200), ("allows", 200, 0)]
    assert allowed(modules, *steps) == [True, False, True, True]


def test_a_new_connection_does_not_slow_down_by_itself(modules: Modules) -> None:
    assert allowed(modules, ("restart", 5), ("sent", 99), ("allows", 5, 0)) == [True]
