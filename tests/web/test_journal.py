from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.web.browser import Modules, loaded_modules

pytestmark = [pytest.mark.browser, pytest.mark.timeout(60)]

RATE = 1000  # so that a sample is a millisecond
# Plays steps on a journal whose samples are their own numbers in the stream; answers with
# [first, behind last] of what was taken, and with numbers otherwise.
PLAY = """(module, options, steps) => {
  const journal = new module.Journal(options);
  let number = Math.round((options.startS ?? 0) * options.sampleRate);
  const play = {
    append: (n) => {
      const kept = journal.append(Int16Array.from({ length: n }, (_, i) => number + i));
      if (kept) number += n;
      return kept;
    },
    take: () => {
      const samples = journal.take();
      return samples && [samples[0], samples.at(-1) + 1];
    },
    takeAll: () => {
      const first = journal.take();
      if (!first) return null;
      let end = first.at(-1) + 1;
      for (let more; (more = journal.take()); end = more.at(-1) + 1) {
        if (more[0] !== end) return "a gap";
      }
      return [first[0], end];
    },
    settle: (resume) => journal.settle(resume),
    rewind: () => journal.rewind(),
    forgetSent: () => journal.forgetSent(),
    forgetAll: () => journal.forgetAll(),
    facts: () => [journal.endS, journal.unsettledS, journal.waitingS, journal.refusedS],
    resume: () => journal.resume,
  };
  return steps.map(([name, ...rest]) => play[name](...rest) ?? null);
}"""


@pytest.fixture(scope="module")
def modules() -> Iterator[Modules]:
    with loaded_modules() as modules:
        yield modules


def play(modules: Modules, *steps: tuple[Any, ...], **options: Any) -> list[Any]:
    return list(modules.call("journal.js", PLAY, {"sampleRate": RATE, **options}, steps))


def at(audio_from: float | None, committed_until: float) -> dict[str, float | None]:
    return {"audio_from": audio_from, "committed_until": committed_until}


def test_audio_is_sent_as_it_came(modules: Modules) -> None:
    took = play(modules, ("take",), ("append", 5), ("append", 3), ("take",), ("take",), ("take",))
    assert took == [None, True, True, [0, 5], [5, 8], None]


def test_without_a_resume_object_a_new_connection_begins_at_zero(modules: Modules) -> None:
    took = play(modules, ("append", 5), ("take",), ("append", 5), ("rewind",), ("takeAll",))
    assert took[-1] == [0, 10]


def test_a_new_connection_gets_the_audio_from_where_the_resume_object_says(
    modules: Modules,
) -> None:
    steps = [("append", 10), ("append", 10), ("takeAll",), ("settle", at(0.013, 0.015))]
    took = play(modules, *steps, ("rewind",), ("resume",), ("takeAll",))
    assert took[-2:] == [at(0.013, 0.015), [13, 20]]


def test_without_audio_from_it_is_what_is_committed(modules: Modules) -> None:
    steps = [("append", 20), ("takeAll",), ("settle", at(None, 0.015)), ("rewind",)]
    assert play(modules, *steps, ("takeAll",))[-1] == [15, 20]


def test_nothing_is_sent_twice_on_one_connection(modules: Modules) -> None:
    steps = [("append", 10), ("takeAll",), ("settle", at(0.002, 0.004)), ("append", 5)]
    assert play(modules, *steps, ("takeAll",))[-1] == [10, 15]


def test_a_stream_can_begin_later_than_at_zero(modules: Modules) -> None:
    took = play(
        modules,
        *[("resume",), ("append", 5), ("takeAll",), ("facts",), ("rewind",), ("takeAll",)],
        startS=12.5,
        context="said before",
    )
    assert took[0] == {"committed_until": 12.5, "context": "said before"}
    assert took[2] == took[5] == [12500, 12505]
    assert took[3] == pytest.approx([12.505, 0.005, 0, 0])


def test_what_there_is_no_room_for_is_refused_and_counted(modules: Modules) -> None:
    steps = [("append", 60), ("append", 50), ("append", 40), ("facts",), ("takeAll",)]
    took = play(modules, *steps, maxS=0.1)
    assert took[:3] == [True, False, True]
    assert took[3] == pytest.approx([0.1, 0, 0.1, 0.05])
    assert took[4] == [0, 100]


def test_what_is_settled_makes_room(modules: Modules) -> None:
    steps = [("append", 50), ("append", 50), ("takeAll",), ("append", 1)]
    took = play(modules, *steps, ("settle", at(0.05, 0.06)), ("append", 50), maxS=0.1)
    assert took[3:] == [False, None, True]


def test_it_tells_what_is_unsettled_and_what_waits(modules: Modules) -> None:
    steps = [("append", 10), ("append", 10), ("take",), ("settle", at(0.001, 0.004)), ("facts",)]
    assert play(modules, *steps)[-1] == pytest.approx([0.02, 0.006, 0.01, 0])


def test_what_was_sent_can_be_forgotten(modules: Modules) -> None:
    steps = [("append", 100), ("take",), ("append", 50), ("forgetSent",), ("rewind",)]
    assert play(modules, *steps, ("resume",), ("takeAll",))[-2:] == [
        {"committed_until": 0.1, "context": ""},
        [100, 150],
    ]


def test_all_can_be_forgotten(modules: Modules) -> None:
    steps = [("append", 100), ("append", 50), ("forgetAll",), ("rewind",), ("append", 10)]
    assert play(modules, *steps, ("takeAll",))[-1] == [150, 160]


def test_what_came_late_does_not_bring_back_what_was_forgotten(modules: Modules) -> None:
    steps = [("append", 100), ("append", 100), ("takeAll",), ("forgetSent",)]
    late, newer = at(0.05, 0.1), at(0.2, 0.2)
    took = play(modules, *steps, ("settle", late), ("resume",), ("settle", newer), ("resume",))
    assert (took[5], took[7]) == ({"committed_until": 0.2, "context": ""}, newer)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 40)),
        st.just(("take",)),
        st.tuples(st.just("settle"), st.floats(0, 1), st.floats(0, 1)),
        st.just(("rewind",)),
    ),
    max_size=30,
)


@given(STEPS)
def test_each_connection_gets_an_unbroken_stream_from_where_it_resumes(
    modules: Modules, steps: list[tuple[Any, ...]]
) -> None:
    """Whatever is settled meanwhile, as long as it is audio that was sent."""
    played: list[tuple[Any, ...]] = []
    end = sent = settled = 0
    expected: list[list[int] | None] = []
    frames: list[int] = [0]
    for name, *numbers in steps:
        if name == "append":
            end += numbers[0]
            frames.append(end)
        elif name == "take":
            behind = next((edge for edge in frames if edge > sent), None)
            expected.append(None if behind is None else [sent, behind])
            sent = sent if behind is None else behind
        elif name == "settle":
            settled = round(settled + (sent - settled) * numbers[0])
            played.append(("settle", at(settled / RATE, settled / RATE + numbers[1])))
            continue
        else:
            sent = settled
        played.append((name, *numbers))
    took = play(modules, *played)
    pairs = zip(played, took, strict=True)
    assert [result for (name, *_), result in pairs if name == "take"] == expected
