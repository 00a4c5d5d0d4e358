"""The sequences that are decoded together: who has slots, who waits for them, who is done.

Rows lie side by side in the first slots, so that a step computes on them as they lie. A row
that leaves makes room at once: a waiting sequence takes its slot, or the last row moves there.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterable, Sequence
from math import isfinite
from typing import Generic, NamedTuple, TypeVar

import torch

from whisper_serve.engines.fallback import Candidate
from whisper_serve.engines.steps import Generate
from whisper_serve.engines.torch_whisper.model_runner import ModelRunner, Prefill
from whisper_serve.engines.torch_whisper.sampling import Ranked, Wish, choose
from whisper_serve.engines.torch_whisper.sequence import Row, TokenSequence, sequence_of
from whisper_serve.errors import EngineFailed

logger = logging.getLogger(__name__)

Key = TypeVar("Key", bound=Hashable)
Outcomes = dict[Key, Candidate | Exception]
# What the row in each slot may say next.
Ranking = dict[int, Ranked]


class Turn(NamedTuple):
    """One live row in a step."""

    row: Row
    sequence: TokenSequence
    wish: Wish


class Batch(Generic[Key]):
    """Sequences by a key of the caller's. `admit` and `step` return those that are done with
    their outcome, an exception for one that broke; the others never notice.

    When the memory runs out, there are fewer slots from then on and every sequence begins again.
    """

    def __init__(self, runner: ModelRunner) -> None:
        self._runner = runner
        self._waiting: dict[Key, TokenSequence] = {}
        self._running: dict[Key, TokenSequence] = {}
        self._slots: list[Row | None] = [None] * runner.slots

    @property
    def slots(self) -> int:
        return len(self._slots)

    @property
    def free(self) -> int:
        return self._slots.count(None)

    @property
    def running(self) -> int:
        """Sequences that have slots."""
        return len(self._running)

    def rows_of(self, key: Key) -> int:
        """How many slots the sequence has or waits for; 0 when there is none."""
        sequence = self._running.get(key) or self._waiting.get(key)
        return len(sequence.live) if sequence else 0

    def add(self, key: Key, step: Generate) -> None:
        """Let a sequence wait. Raises `EngineFailed` when its prompt is too long."""
        self._waiting[key] = self._sequence(step, self.slots)

    def remove(self, key: Key) -> None:
        """Drop a sequence, if there is one."""
        self._waiting.pop(key, None)
        if (sequence := self._running.pop(key, None)) is not None:
            self._release(sequence.live)

    def admit(self, limit: int, frames: int) -> Outcomes[Key]:
        """Begin with the first of the waiting sequences that there are slots for: at most
        `limit`, which hear `frames` encoded frames in all, but one always. One that needs more
        slots than are free waits, and lets those behind it go first."""
        if self._waiting and not self._slots:
            try:
                self._resize(1)
            except torch.OutOfMemoryError as exc:
                return self._failed(list(self._waiting), exc)
        return self._begin(self._fitting(limit, frames))

    def step(self) -> Outcomes[Key]:
        """Let every running sequence say one token."""
        self._close_gaps()
        keys = list(self._running)
        return self._step(keys) if keys else {}

    def shrink(self) -> bool:
        """Go on with half as many slots, or fewer; every sequence begins again. False when there
        is no memory for any, or there was one only."""
        slots = self.slots // 2
        while slots and not self._fits(slots):
            slots //= 2
        if slots:
            logger.warning("out of memory: going on with %d rows at once", slots)
        return slots > 0

    def _fits(self, slots: int) -> bool:
        try:
            self._resize(slots)
        except torch.OutOfMemoryError:
            return False
        return True

    def _resize(self, slots: int) -> None:
        """Raises `torch.OutOfMemoryError`; then there are none, and every sequence waits."""
        both = {**self._running, **self._waiting}
        self._slots, self._running = [], {}
        self._waiting = {key: self._sequence(each.step, slots) for key, each in both.items()}
        self._runner.resize(slots)
        self._slots = [None] * slots

    def _sequence(self, step: Generate, slots: int) -> TokenSequence:
        return sequence_of(step, self._runner.n_text_ctx, max(1, slots))

    def _fitting(self, limit: int, frames: int) -> list[Key]:
        keys: list[Key] = []
        free = self.free
        for key, sequence in self._waiting.items():
            if len(sequence.rows) > free:
                continue
            frames -= sequence.step.encoded.frames
            if len(keys) == limit or (keys and frames < 0):
                break
            keys.append(key)
            free -= len(sequence.rows)
        return keys

    def _begin(self, keys: list[Key]) -> Outcomes[Key]:
        """Read the prompts together; in halves when the memory does not hold them all, or one
        of them is at fault."""
        if not keys:
            return {}
        sequences = [self._waiting[key] for key in keys]
        for sequence in sequences:
            self._occupy(sequence.rows)
        try:
            ranked = self._prefilled(sequences)
        except Exception as exc:  # noqa: BLE001  # whatever it is, it is somebody's answer
            for sequence in sequences:
                self._release(sequence.rows)
            return self._begin_fewer(keys, exc)
        for key in keys:
            self._running[key] = self._waiting.pop(key)
        return self._advance(keys, ranked)

    def _begin_fewer(self, keys: list[Key], exc: Exception) -> Outcomes[Key]:
        if len(keys) > 1:
            half, slots = len(keys) // 2, self.slots
            outcomes = self._begin(keys[:half])
            # With fewer slots than before, the others wait for their turn.
            return outcomes | self._begin(keys[half:]) if self.slots == slots else outcomes
        if isinstance(exc, torch.OutOfMemoryError) and self.shrink():
            return {}
        return self._failed(keys, exc)

    def _prefilled(self, sequences: Sequence[TokenSequence]) -> Ranking:
        prompts = [
            Prefill(
                sequence.step.encoded,
                sequence.prompt,
                sequence.start_index,
                [slot_of(row) for row in sequence.rows],
            )
            for sequence in sequences
        ]
        prefilled = self._runner.prefill(prompts)
        for sequence, probability in zip(sequences, prefilled.no_speech_probs, strict=True):
            sequence.no_speech_prob = probability
        owners = [number for number, sequence in enumerate(sequences) for _ in sequence.rows]
        turns = [turn for sequence in sequences for turn in turns_of(sequence)]
        return self._ranked(turns, prefilled.logits[owners])

    def _step(self, keys: list[Key]) -> Outcomes[Key]:
        try:
            ranked = self._said(keys)
        except torch.OutOfMemoryError as exc:
            return {} if self.shrink() else self._failed(keys, exc)
        except Exception as exc:
            if len(keys) == 1:
                return self._failed(keys, exc)
            logger.exception("a step of %d sequences failed, each is tried alone", len(keys))
            return self._step_each(keys)
        return self._advance(keys, ranked)

    def _step_each(self, keys: Iterable[Key]) -> Outcomes[Key]:
        outcomes: dict[Key, Candidate | Exception] = {}
        for key in keys:
            # None is running any more when the memory runs out on the way.
            if key in self._running:
                outcomes |= self._step([key])
        return outcomes

    def _said(self, keys: Iterable[Key]) -> Ranking:
        turns = [turn for key in keys for turn in turns_of(self._running[key])]
        turns.sort(key=lambda turn: slot_of(turn.row))
        logits = [self._read(run) for run in side_by_side(turns)]
        return self._ranked(turns, logits[0] if len(logits) == 1 else torch.cat(logits))

    def _read(self, turns: Sequence[Turn]) -> torch.Tensor:
        tokens = [turn.row.tokens[-1] for turn in turns]
        positions = [turn.sequence.position(turn.row) for turn in turns]
        return self._runner.step(tokens, positions, slot_of(turns[0].row))

    def _ranked(self, turns: Sequence[Turn], logits: torch.Tensor) -> Ranking:
        """What each slot's row may say next. Nothing has changed so far: it can be repeated."""
        said = [turn.row.tokens for turn in turns]
        suppressed = [turn.sequence.step.suppressed for turn in turns]
        self._runner.rules.apply(logits, said, suppressed)
        ranked = choose(logits, [turn.wish for turn in turns])
        return {slot_of(turn.row): each for turn, each in zip(turns, ranked, strict=True)}

    def _advance(self, keys: Sequence[Key], ranked: Ranking) -> Outcomes[Key]:
        outcomes: dict[Key, Candidate | Exception] = {}
        for key in keys:
            sequence = self._running[key]
            self._say(sequence, ranked)
            if sequence.done:
                outcomes[key] = outcome_of(sequence)
                del self._running[key]
        return outcomes

    def _say(self, sequence: TokenSequence, ranked: Ranking) -> None:
        live = sequence.live
        slots = [slot_of(row) for row in live]
        sources = sequence.advance([ranked[slot] for slot in slots])
        if not sequence.done:
            self._runner.cache.reorder(slots, [slots[source] for source in sources])
        self._release([row for row in live if row.ended])

    def _failed(self, keys: Iterable[Key], exc: Exception) -> Outcomes[Key]:
        outcomes: dict[Key, Candidate | Exception] = dict.fromkeys(keys, exc)
        for key in outcomes:
            self.remove(key)
        return outcomes

    def _occupy(self, rows: Iterable[Row]) -> None:
        for row in rows:
            row.slot = self._slots.index(None)
            self._slots[row.slot] = row

    def _release(self, rows: Iterable[Row]) -> None:
        for row in rows:
            slot, row.slot = slot_of(row), None
            self._slots[slot] = None
            if not isfinite(row.sum_logprob):
                self._runner.cache.clear(slot)

    def _close_gaps(self) -> None:
        used = self.slots - self.free
        gaps = [slot for slot, row in enumerate(self._slots[:used]) if row is None]
        beyond = [row for row in self._slots[used:] if row is not None]
        for gap, row in zip(gaps, beyond, strict=True):
            slot = slot_of(row)
            self._runner.cache.move(slot, gap)
            self._slots[slot], self._slots[gap], row.slot = None, row, gap


def turns_of(sequence: TokenSequence) -> list[Turn]:
    pairs = zip(sequence.live, sequence.wishes(), strict=True)
    return [Turn(row, sequence, wish) for row, wish in pairs]


def side_by_side(turns: Sequence[Turn]) -> list[list[Turn]]:
    """Cut in front of each slot that does not follow the one before."""
    runs: list[list[Turn]] = []
    for turn in turns:
        if runs and slot_of(turn.row) == slot_of(runs[-1][-1].row) + 1:
            runs[-1].append(turn)
        else:
            runs.append([turn])
    return runs


def slot_of(row: Row) -> int:
    if row.slot is None:
        raise ValueError("the row has no slot")
    return row.slot


def outcome_of(sequence: TokenSequence) -> Candidate | Exception:
    try:
        candidate = sequence.candidate()
    except Exception as exc:  # noqa: BLE001  # whatever it is, it is this one's answer
        return exc
    if not isfinite(candidate.avg_logprob):
        return EngineFailed("the numbers of a decode overflowed")
    return candidate
