from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from faster_whisper.audio import decode_audio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from whisper.model import Whisper

from tests.engines.torch_whisper.networks import (
    decoded,
    generate,
    noise_model,
    one_thread,
    reference,
    same,
    sound,
    succeeded,
)
from whisper_serve.engines.base import Samples
from whisper_serve.engines.checkpoints import read_ctranslate2, read_openai_checkpoint
from whisper_serve.engines.fallback import Candidate
from whisper_serve.engines.prompt import Prompt
from whisper_serve.engines.steps import Generate
from whisper_serve.engines.torch_whisper.batch import Batch
from whisper_serve.engines.torch_whisper.model import load_model
from whisper_serve.engines.torch_whisper.model_runner import ModelRunner, Prefill, Prefilled
from whisper_serve.engines.torch_whisper.network import EncodedAudio
from whisper_serve.errors import EngineFailed

pytestmark = [
    # openai-whisper's beam search hands torch tensors to NumPy.
    pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning"),
]
schedules = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
few_schedules = settings(schedules, max_examples=3)
# How many steps pass between the arrivals of windows.
PAUSES = st.lists(st.integers(0, 12), min_size=6, max_size=6)
LIMITS = st.integers(1, 4)


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def model() -> Whisper:
    return noise_model()


@pytest.fixture(scope="module")
def runner(model: Whisper) -> ModelRunner:
    return ModelRunner(model, slots=5)


@pytest.fixture(scope="module")
def audio(runner: ModelRunner) -> list[EncodedAudio]:
    """Whole windows, the last two short: 6 s and 1 s."""
    with one_thread():
        lengths = (3000, 3000, 3000, 3000, 600, 100)
        return [runner.encode([sound(seed)], n)[0] for seed, n in enumerate(lengths)]


@pytest.fixture(scope="module")
def steps(runner: ModelRunner, audio: list[EncodedAudio]) -> list[Generate]:
    """Unlike prompts, languages, suppressed tokens and lengths; no group."""
    return [
        generate(runner, audio[0], max_tokens=20),
        generate(runner, audio[1], context="What was said before it.", max_tokens=9),
        generate(runner, audio[2], prefix="Known from before", language="de", max_tokens=30),
        generate(runner, audio[3], suppressed=(100, 200), max_tokens=14),
        generate(runner, audio[4], context="And then", prefix="some", max_tokens=25),
        generate(runner, audio[5], max_tokens=8),
    ]


@pytest.fixture(scope="module")
def expected(model: Whisper, steps: list[Generate], runner: ModelRunner) -> list[Candidate]:
    """openai-whisper's outcomes; for short audio, which it does not take, those alone."""
    with one_thread():
        whole = [reference(model, step) for step in steps[:4]]
        return whole + [decoded(runner, [step])[0] for step in steps[4:]]


@pytest.fixture(scope="module")
def groups(steps: list[Generate]) -> list[Generate]:
    """Beams, samples, and a row by itself."""
    return [
        replace(steps[0], beam_size=3),
        replace(steps[1], temperature=0.7, best_of=3),
        replace(steps[2], beam_size=5),
        replace(steps[3], temperature=1.0),
        replace(steps[4], temperature=0.2, best_of=5),
        steps[5],
    ]


@pytest.fixture(scope="module")
def expected_groups(model: Whisper, groups: list[Generate], runner: ModelRunner) -> list[Candidate]:
    """The beams as by openai-whisper; nobody else draws the same samples."""
    with one_thread():
        return [
            reference(model, group) if group.beam_size > 1 else decoded(runner, [group])[0]
            for group in groups
        ]


# Any company


@schedules
@given(order=st.permutations(range(6)), pauses=PAUSES, limit=LIMITS)
def test_each_row_says_in_any_company_what_whisper_makes_of_it_alone(
    *,
    runner: ModelRunner,
    steps: list[Generate],
    expected: list[Candidate],
    order: list[int],
    pauses: list[int],
    limit: int,
) -> None:
    found = decoded(runner, [steps[n] for n in order], pauses, limit=limit)
    assert all(same(each, expected[n]) for each, n in zip(found, order, strict=True))


@settings(schedules, max_examples=12)
@given(order=st.permutations(range(6)), pauses=PAUSES, limit=LIMITS)
def test_groups_of_rows_say_in_any_company_what_they_say_alone(
    *,
    runner: ModelRunner,
    groups: list[Generate],
    expected_groups: list[Candidate],
    order: list[int],
    pauses: list[int],
    limit: int,
) -> None:
    found = decoded(runner, [groups[n] for n in order], pauses, limit=limit)
    assert all(same(each, expected_groups[n]) for each, n in zip(found, order, strict=True))


# Real speech


class Speech:
    """Real windows with unlike prompts, and what openai-whisper makes of each alone."""

    def __init__(self, model: Whisper, windows: Sequence[tuple[Path, dict[str, Any]]]) -> None:
        self.model = model
        self.runner = ModelRunner(model, slots=6)
        encoded = {path: self.runner.encode([samples_of(path)], 3000)[0] for path, _ in windows}
        self.steps = [generate(self.runner, encoded[path], **how) for path, how in windows]
        self.expected = [reference(model, step) for step in self.steps]


def samples_of(path: Path) -> Samples:
    samples: Samples = (decode_audio(str(path)) * 32768.0).astype(np.int16)
    return samples


@pytest.fixture(scope="module")
def english(tiny_openai: Path, corpus: Path) -> Speech:
    with one_thread():
        model = load_model(read_openai_checkpoint(tiny_openai), "cpu", "auto")
        utterances = sorted((corpus / "utterances").glob("*.flac"))
        return Speech(
            model,
            [
                (corpus / "formats/jfk.flac", {}),
                (corpus / "formats/jfk.flac", {"prefix": "And so, my fellow"}),
                (utterances[0], {"context": "Some words, with commas, before it."}),
                (utterances[1], {"max_tokens": 25}),
                (utterances[30], {"context": "Mr. Quilter " * 60, "max_tokens": 40}),
                (corpus / "formats/audioformats_p001.wav", {"context": "Sonnets", "prefix": "Son"}),
            ],
        )


@pytest.fixture(scope="module")
def foreign(base_ctranslate2: Path, corpus: Path) -> Speech:
    with one_thread():
        model = load_model(read_ctranslate2(base_ctranslate2), "cpu", "auto")
        return Speech(
            model,
            [
                (corpus / "fleurs/fleurs-de-000.ogg", {"language": "de", "max_tokens": 40}),
                (
                    corpus / "fleurs/fleurs-fr-001.ogg",
                    {"language": "fr", "context": "Alors.", "max_tokens": 30},
                ),
                (corpus / "fleurs/fleurs-es-002.ogg", {"language": "es", "max_tokens": 20}),
            ],
        )


@pytest.mark.weights
@few_schedules
@given(order=st.permutations(range(6)), pauses=PAUSES, limit=LIMITS)
def test_real_windows_are_decoded_as_by_whisper_in_any_company(
    english: Speech, order: list[int], pauses: list[int], limit: int
) -> None:
    found = decoded(english.runner, [english.steps[n] for n in order], pauses, limit=limit)
    assert all(same(each, english.expected[n]) for each, n in zip(found, order, strict=True))


@pytest.mark.weights
def test_windows_in_several_languages_are_decoded_as_by_whisper(foreign: Speech) -> None:
    found = decoded(foreign.runner, foreign.steps, [0, 5, 9])
    assert all(same(*pair) for pair in zip(found, foreign.expected, strict=True))
    assert len({candidate.text for candidate in found}) == 3


@pytest.mark.weights
def test_beams_find_what_whisper_finds(english: Speech) -> None:
    searches = [
        replace(english.steps[2], beam_size=5),
        replace(english.steps[1], beam_size=2),
        replace(english.steps[5], beam_size=3),
    ]
    *found, greedy = decoded(english.runner, [*searches, english.steps[3]], [0, 3, 6])
    for each, step in zip(found, searches, strict=True):
        assert same(each, reference(english.model, step))
    assert same(greedy, english.expected[3])


@pytest.mark.weights
def test_a_prefix_that_whisper_would_write_itself_changes_nothing(english: Speech) -> None:
    free, forced = english.expected[0], english.expected[1]
    assert free.text.startswith("And so my fellow")
    assert english.steps[1].prompt.prefix
    assert forced.text.startswith("And so, my fellow")


# Slots


def test_a_group_waits_for_its_slots_and_lets_others_by(
    runner: ModelRunner, steps: list[Generate]
) -> None:
    batch: Batch[str] = Batch(runner)
    order: list[str] = []
    with torch.inference_mode():
        batch.add("long", steps[2])
        batch.admit(1, 10_000)
        batch.add("group", replace(steps[1], beam_size=5))
        batch.add("short", steps[5])
        while len(order) < 3:
            outcomes = batch.admit(4, 10_000) | batch.step()
            order += outcomes
            assert "group" in order or batch.rows_of("group") == 5
    assert order == ["short", "long", "group"]
    assert batch.free == batch.slots


def test_samples_that_end_early_give_their_slots_away(
    runner: ModelRunner, steps: list[Generate]
) -> None:
    eot = steps[0].tokenizer.eot
    everything = tuple(token for token in range(51_865) if token not in {eot, 400})
    step = replace(steps[0], temperature=1.0, best_of=5, suppressed=everything[:50_000])
    batch: Batch[str] = Batch(runner)
    batch.add("group", replace(step, max_tokens=40))
    free = set()
    with torch.inference_mode():
        outcomes = batch.admit(1, 10_000)
        while not outcomes:
            free.add(batch.free)
            outcomes = batch.step()
    assert batch.free == 5
    assert 0 in free


def test_who_is_removed_makes_room_at_once_and_disturbs_nobody(
    runner: ModelRunner, steps: list[Generate], expected: list[Candidate]
) -> None:
    batch: Batch[int] = Batch(runner)
    outcomes: dict[int, Candidate | Exception] = {}
    with torch.inference_mode():
        for n in (0, 2, 3):
            batch.add(n, steps[n])
        batch.add(9, replace(steps[1], beam_size=2))
        outcomes |= batch.admit(4, 10_000) | batch.step() | batch.step()
        assert batch.free == 0
        batch.remove(0)
        batch.remove(9)
        batch.remove(100)
        assert batch.free == 3
        batch.add(4, steps[4])
        while batch.running or len(outcomes) < 3:
            outcomes |= batch.admit(4, 10_000) | batch.step()
    assert sorted(outcomes) == [2, 3, 4]
    assert all(same(succeeded(outcomes[n]), expected[n]) for n in outcomes)
    assert batch.free == batch.slots


def test_a_waiting_sequence_can_be_removed(runner: ModelRunner, steps: list[Generate]) -> None:
    batch: Batch[int] = Batch(runner)
    batch.add(0, steps[0])
    batch.remove(0)
    with torch.inference_mode():
        assert batch.admit(4, 10_000) == batch.step() == {}
    assert batch.rows_of(0) == 0


def test_no_more_audio_is_read_together_than_asked_for(
    runner: ModelRunner, steps: list[Generate]
) -> None:
    batch: Batch[int] = Batch(runner)
    for n in range(4):
        batch.add(n, steps[n])
    with torch.inference_mode():
        batch.admit(4, 1)
        assert batch.running == 1
        batch.admit(4, 3000)
        assert batch.running == 3
        batch.admit(0, 3000)
        assert batch.running == 3


def test_a_prompt_without_room_is_refused(runner: ModelRunner, steps: list[Generate]) -> None:
    batch: Batch[int] = Batch(runner)
    with pytest.raises(EngineFailed):
        batch.add(0, replace(steps[0], prompt=Prompt((1,) * 96, steps[0].prompt.start, ())))
    assert batch.rows_of(0) == 0


# Failures


class Tight(ModelRunner):
    """Has memory for `room` rows at once, and for `prompts` prompts."""

    room, prompts = 2, 2

    def step(self, tokens: Sequence[int], positions: Sequence[int], first: int = 0) -> torch.Tensor:
        logits = super().step(tokens, positions, first)
        if self.slots > self.room:
            raise torch.OutOfMemoryError("no room for rows")
        return logits

    def prefill(self, prompts: Sequence[Prefill]) -> Prefilled:
        prefilled = super().prefill(prompts)
        if len(prompts) > self.prompts:
            raise torch.OutOfMemoryError("no room for prompts")
        return prefilled


class Fragile(ModelRunner):
    """Breaks on audio of 1 s: while it reads the prompt, or when it steps."""

    when = "step"

    def step(self, tokens: Sequence[int], positions: Sequence[int], first: int = 0) -> torch.Tensor:
        lengths = self.cache.audio_lengths[first : first + len(tokens)]
        if self.when == "step" and 50 in lengths:
            raise RuntimeError("broken")
        logits = super().step(tokens, positions, first)
        if self.when == "overflow" and 50 in lengths:
            slot = first + lengths.index(50)
            logits[slot - first] = float("nan")
            self.cache.text_values[:, slot] = self.cache.audio_values[:, slot] = float("nan")
        return logits

    def prefill(self, prompts: Sequence[Prefill]) -> Prefilled:
        if self.when == "prefill" and any(prompt.encoded.frames == 50 for prompt in prompts):
            raise RuntimeError("broken")
        return super().prefill(prompts)


def test_without_memory_there_are_fewer_rows_and_the_same_outcomes(
    model: Whisper, steps: list[Generate], expected: list[Candidate]
) -> None:
    runner = Tight(model, slots=9)
    found = decoded(runner, steps, [0, 2, 2])
    assert runner.slots == 2
    assert all(same(*pair) for pair in zip(found, expected, strict=True))


def test_prompts_that_are_too_many_are_read_in_parts(
    model: Whisper, steps: list[Generate], expected: list[Candidate]
) -> None:
    runner = Tight(model, slots=9)
    runner.room = 9
    found = decoded(runner, steps)
    assert runner.slots == 9
    assert all(same(*pair) for pair in zip(found, expected, strict=True))


def test_a_group_that_is_larger_than_what_is_left_becomes_smaller(
    model: Whisper, runner: ModelRunner, steps: list[Generate]
) -> None:
    search = replace(steps[0], beam_size=5)
    [found] = decoded(Tight(model, slots=9), [search])
    assert same(found, decoded(runner, [replace(search, beam_size=2)])[0])


@pytest.mark.parametrize("prompts", [0, 1])
def test_what_a_single_slot_has_no_memory_for_fails_alone(
    model: Whisper, steps: list[Generate], prompts: int
) -> None:
    runner = Tight(model, slots=3)
    runner.room, runner.prompts = 0, prompts
    batch: Batch[int] = Batch(runner)
    outcomes: dict[int, Candidate | Exception] = {}
    for n in range(3):
        batch.add(n, steps[n])
    with torch.inference_mode():
        while len(outcomes) < 3:
            outcomes |= batch.admit(4, 10_000) | batch.step()
    assert {type(outcome) for outcome in outcomes.values()} == {torch.OutOfMemoryError}
    assert batch.free == batch.slots == 1


def test_a_cache_that_finds_no_memory_is_tried_again_later(
    model: Whisper, steps: list[Generate], expected: list[Candidate]
) -> None:
    class Crowded(Tight):
        """Others have taken the memory, for a while."""

        refusals = 0

        def resize(self, slots: int) -> None:
            super().resize(0 if self.refusals else slots)
            if self.refusals:
                self.refusals -= 1
                raise torch.OutOfMemoryError("no room for slots")

    runner = Crowded(model, slots=8)
    runner.room, runner.refusals = 1, 3
    batch: Batch[int] = Batch(runner)
    outcomes: dict[int, Candidate | Exception] = {}
    batch.add(0, steps[0])
    with torch.inference_mode():
        while 0 not in outcomes:
            outcomes |= batch.admit(4, 10_000) | batch.step()
        assert isinstance(outcomes[0], torch.OutOfMemoryError)
        batch.add(1, steps[1])
        while 1 not in outcomes:
            outcomes |= batch.admit(4, 10_000) | batch.step()
    assert same(succeeded(outcomes[1]), expected[1])
    assert batch.slots == 1


@pytest.mark.parametrize("when", ["step", "prefill", "overflow"])
@pytest.mark.parametrize("rows", [1, 2])
def test_who_breaks_a_step_is_found_and_the_others_go_on(
    model: Whisper, steps: list[Generate], expected: list[Candidate], when: str, rows: int
) -> None:
    runner = Fragile(model, slots=6)
    runner.when = when
    batch: Batch[int] = Batch(runner)
    outcomes: dict[int, Candidate | Exception] = {}
    with torch.inference_mode():
        batch.add(2, steps[2])
        outcomes |= batch.admit(4, 10_000) | batch.step()
        batch.add(0, steps[0])
        batch.add(1, steps[1])
        batch.add(5, replace(steps[5], temperature=0.5 * (rows - 1), best_of=rows))
        while len(outcomes) < 4:
            outcomes |= batch.admit(4, 10_000) | batch.step()
        assert isinstance(outcomes.pop(5), RuntimeError if when != "overflow" else EngineFailed)
        assert all(same(succeeded(outcomes[n]), expected[n]) for n in outcomes)
        assert batch.free == batch.slots
        # Nothing is left behind for whoever comes into the slot.
        runner.when = "never"
        outcomes.clear()
        for n in (0, 1, 3, 5):
            batch.add(n, steps[n])
        while len(outcomes) < 4:
            outcomes |= batch.admit(4, 10_000) | batch.step()
    assert all(same(succeeded(outcomes[n]), expected[n]) for n in outcomes)
