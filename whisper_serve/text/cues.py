"""Cues: a transcript cut into what a subtitle shows at a time.

A cue has at most two lines of 42 columns, is shown for one to seven seconds, and asks for no
more than 20 columns a second of its reader. The figures are those of Netflix's Timed Text
Style Guide (general requirements, and English for adults; its shortest is 5/6 s). A wide
character counts as two, which makes 10 a second of Chinese or Japanese.

A cue begins with its first word and ends with its last. One that would be too short or too
fast to read stays on over the silence behind it, but never into the next cue.

Where not all of this can be had at once, this gives way, what comes first first:

1. where cues end: behind a sentence, else behind a clause, else at a pause, else between
   words; cues of equal length; none across a pause;
2. the reading speed;
3. the second that a cue lasts;
4. what is written together, as `3` and `.5`, in one cue;
5. the lines, the columns and the seven seconds. Only a cue of a single word ever breaks
   these, as far as the word is wide or slow: no word is divided (but Chinese and the like
   over lines), and its times are kept.

What never gives way: all text is there and in order, and cues are at least a millisecond
long and do not overlap. For that a word begins a millisecond behind the one before, if not
later.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

from whisper_serve.text.lines import (
    MAX_COLUMNS,
    PAUSE,
    SENTENCE,
    UNDIVIDED,
    Piece,
    Row,
    cheapest_division,
    columns_of,
    lines_of,
    pieces_of,
    plain,
)
from whisper_serve.text.transcript import Segment, Word

MIN_MS = 1000
MAX_MS = 7000
MS_PER_COLUMN = 50
# A shorter gap between words is none that a listener notices.
PAUSE_MS = 300
# No recording is longer; what an engine says beyond is no time.
LAST_S = 1e7

# What cues cost besides what divisions do: breaking a limit more than all below together.
TOO_SHORT = 1e6
TOO_FAST = 1e4
MUCH_TOO_FAST = 20.0  # shown in half of the time that it needs, or less
PAUSE_WITHIN = 3.0  # a second
CUE = 1.0
FULL = 2.0
SENTENCE_WITHIN = 0.5  # between whole sentences
SENTENCE_ASIDE = 2.0  # beside a part of another


@dataclass(frozen=True, slots=True)
class Cue:
    """`lines` are shown from `start_ms` up to `end_ms`."""

    start_ms: int
    end_ms: int
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


@dataclass(frozen=True, slots=True)
class Spoken:
    """A word, or a `whole` segment whose words have no times."""

    piece: Piece
    start_ms: int
    end_ms: int
    whole: bool = False


def cues_of(segments: Iterable[Segment]) -> list[Cue]:
    """The cues of `segments`, in order.

    A segment without words is one cue with its own times, on as many lines as it needs;
    what comes behind it begins after its end.
    """
    return Cutter(in_order(_spoken(segments))).cues()


def _spoken(segments: Iterable[Segment]) -> Iterator[Spoken]:
    """What has text. A space stands where one text ends or the next begins with one."""
    spaced = False
    for one, whole in _with_times(segments):
        text = plain(one.text)
        spaced = spaced or text[:1].isspace()
        if shown := " ".join(text.split()):
            yield Spoken(Piece(shown, spaced), _ms(one.start), _ms(one.end), whole)
            spaced = text[-1].isspace()


def _with_times(segments: Iterable[Segment]) -> Iterator[tuple[Segment | Word, bool]]:
    """The words, or the whole segment where these say nothing."""
    for segment in segments:
        if plain("".join(word.text for word in segment.words)).strip():
            yield from ((word, False) for word in segment.words)
        else:
            yield segment, True


def _ms(seconds: float) -> int:
    return round(min(max(seconds, 0.0), LAST_S) * 1000)


def in_order(spoken: Iterable[Spoken]) -> list[Spoken]:
    """The same, each at least a millisecond long, and none beginning before the one before.

    A word ends where the next one begins, if not earlier; a whole segment keeps its end.
    """
    found: list[Spoken] = []
    earliest = 0
    for one in spoken:
        start = max(earliest, one.start_ms)
        end = max(start + 1, one.end_ms)
        found.append(replace(one, start_ms=start, end_ms=end))
        earliest = end if one.whole else start + 1
    last = found[-1:]
    return [_clipped(one, later.start_ms) for one, later in pairwise(found)] + last


def _clipped(one: Spoken, end_ms: int) -> Spoken:
    return replace(one, end_ms=end_ms) if end_ms < one.end_ms else one


class Cutter:
    """Cuts what is spoken, in order, into the cues that cost least together."""

    def __init__(self, spoken: Sequence[Spoken]) -> None:
        self._spoken = spoken
        self._row = Row([one.piece for one in spoken])
        self._reach = [self._row.reach(first) for first in range(len(spoken))]
        self._alone = [one.whole or columns_of(one.piece.text) > MAX_COLUMNS for one in spoken]
        self._ends = [one.end_ms for one in spoken]
        # Behind the last word there is as much silence as it takes.
        self._starts = [one.start_ms for one in spoken] + [end + MAX_MS for end in self._ends[-1:]]
        pauses = [start - end for start, end in zip(self._starts[1:], self._ends, strict=True)]
        self._pauses = [pause if pause >= PAUSE_MS else 0 for pause in pauses]
        self._pauses_before = [*accumulate(self._pauses, initial=0)]
        is_sentence = [cost == SENTENCE for cost in self._row.costs]
        self._sentences_before = [*accumulate(is_sentence, initial=0)]

    def cues(self) -> list[Cue]:
        parts = cheapest_division(len(self._spoken), self._may_end, self._cost)
        return [self._cue(first, end) for first, end in parts]

    def _cue(self, first: int, end: int) -> Cue:
        pieces = [one.piece for one in self._spoken[first:end]]
        lines = lines_of(pieces if len(pieces) > 1 else [*pieces_of(pieces[0].text)])
        return Cue(self._starts[first], self._end_ms(first, end), lines)

    def _may_end(self, first: int) -> Iterator[int]:
        """Where a cue from word `first` on may end by its lines and its length."""
        yield first + 1
        if self._alone[first]:
            return
        line_end = self._reach[first]
        last = self._reach[line_end] if line_end < len(self._reach) else line_end
        for end in range(first + 2, last + 1):
            if self._alone[end - 1] or self._ends[end - 1] - self._starts[first] > MAX_MS:
                return
            yield end

    def _end_ms(self, first: int, end: int) -> int:
        if self._spoken[first].whole:
            return self._ends[first]
        needed = min(max(MIN_MS, self._row.columns(first, end) * MS_PER_COLUMN), MAX_MS)
        return min(max(self._ends[end - 1], self._starts[first] + needed), self._starts[end])

    def _cost(self, first: int, end: int) -> float:
        columns = self._row.columns(first, end)
        shown_ms = self._end_ms(first, end) - self._starts[first]
        cost = CUE + FULL * (columns / (2 * MAX_COLUMNS)) ** 2
        cost += self._behind(end - 1) + self._within(first, end)
        if shown_ms < MIN_MS:
            cost += TOO_SHORT
        if shown_ms < columns * MS_PER_COLUMN:
            too_fast = columns * MS_PER_COLUMN / shown_ms - 1
            cost += TOO_FAST + MUCH_TOO_FAST * min(too_fast, 1.0)
        return cost

    def _behind(self, last: int) -> float:
        """What it costs to end behind word `last`."""
        cost = self._row.costs[last]
        return min(cost, PAUSE) if self._pauses[last] and cost < UNDIVIDED else cost

    def _within(self, first: int, end: int) -> float:
        """What the pauses and the ends of sentences cost that a cue goes over."""
        pauses_ms = self._pauses_before[end - 1] - self._pauses_before[first]
        sentences = self._sentences_before[end - 1] - self._sentences_before[first]
        begins = first == 0 or self._row.costs[first - 1] == SENTENCE
        whole = begins and self._row.costs[end - 1] == SENTENCE
        each = SENTENCE_WITHIN if whole else SENTENCE_ASIDE
        return PAUSE_WITHIN * pauses_ms / 1000 + each * sentences
