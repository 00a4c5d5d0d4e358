"""Lines of text: how wide they are, where they may be divided, and where that reads well.

Where to divide is a cheapest path over all divisions, as D. E. Knuth and M. F. Plass break
paragraphs ("Breaking Paragraphs into Lines", Software: Practice and Experience 11, 1981).
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

MAX_COLUMNS = 42

# What a division costs behind a sentence, a clause, ..., a title as `Mr.`
SENTENCE, CLAUSE, PAUSE, WORD, TITLE = 0.0, 1.0, 2.0, 3.0, 6.0
# An article, a preposition or the like stays with what follows; most have so few letters.
SHORT_WORD, SHORT_WORD_COLUMNS = 1.0, 4
# A division where none may be costs more than all else that can come together.
UNDIVIDED = 1e8
# As few lines as will do, and those of one width.
LINE, UNEVEN = 1e3, 8.0

ARROW = re.compile("--+>")
CLOSED = r"[\"'”’»«“)\]}」』）】]*$"
SENTENCE_END = re.compile(rf"[.!?…‽。\uff0e！？｡؟\u06d4।॥\u0589።။។།]{CLOSED}")
CLAUSE_END = re.compile(rf"[,;:\u2013—、，\uff1b：､،؛၊፣]{CLOSED}")
# Titles, initials and the like: their full stop ends no sentence.
ABBREVIATION = re.compile(r"^\W*(?:[A-HJ-Z]|(?:[^\W\d_]\.)+[^\W\d_]|Mrs?|Ms|Dr|St|Prof|Sra?)\.$")
# Scripts that are written without spaces, besides those with wide characters.
UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]")
# Small kana, and vowels of Thai and Lao that are written behind or before their consonant.
NEVER_FIRST = "ぁぃぅぇぉっゃゅょゎァィゥェォッャュョヮะาำๅฯະາຳ"
NEVER_LAST = "เแโใไເແໂໃໄ"
# Unicode's categories of what stays with the text before it, and with the text behind it.
CLOSING = {"Pe", "Pf", "Po", "Lm", "Sk", "Mn", "Mc", "Me", "Cf"}
OPENING = {"Ps", "Pi", "Cf"}
DASH = "Pd"
NO_COLUMN = {"Mn", "Me", "Cf"}


@dataclass(frozen=True, slots=True)
class Piece:
    """Text that no line divides, and whether a space stands before it."""

    text: str
    spaced: bool


def plain(text: str) -> str:
    """`text` with a space for each control character and each half of a pair of UTF-16."""
    if text.isprintable():
        return text
    return "".join(" " if unicodedata.category(char) in {"Cc", "Cs"} else char for char in text)


def columns_of(text: str) -> int:
    """Columns of a terminal, or of a caption in a font of one width: wide characters of East
    Asia and emoji take two, marks and invisible characters none."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def _columns(char: str) -> int:
    if unicodedata.category(char) in NO_COLUMN:
        return 0
    return 2 if _is_wide(char) else 1


def _is_wide(char: str) -> bool:
    return unicodedata.east_asian_width(char) in "WF"


def may_divide(before: str, after: str, *, spaced: bool) -> bool:
    """Whether one line may end with `before` and the next begin with `after` (not empty).

    Text that is written together stays together in a script that has spaces. Closing
    punctuation stays with what it closes, even behind a space as in French, and opening
    punctuation and a dash that stands alone with what follows.
    """
    last, first = unicodedata.category(before[-1]), unicodedata.category(after[0])
    if spaced:
        closes = first in CLOSING and _is_mark(after)
        opens = (last in OPENING or last == DASH) and _is_mark(before)
        return not closes and not opens
    if first in CLOSING or first == DASH or last in OPENING:
        return False
    if after[0] in NEVER_FIRST or before[-1] in NEVER_LAST:
        return False
    return _is_unspaced(before[-1]) or _is_unspaced(after[0])


def _is_mark(text: str) -> bool:
    return not any(map(str.isalnum, text))


def _is_unspaced(char: str) -> bool:
    return _is_wide(char) or UNSPACED.match(char) is not None


def division_cost(before: Piece, after: Piece) -> float:
    if not may_divide(before.text, after.text, spaced=after.spaced):
        return UNDIVIDED
    if ends_sentence(before.text, after.text):
        return SENTENCE
    if ends_clause(before.text):
        return CLAUSE
    if ABBREVIATION.match(before.text):
        return TITLE
    is_short = columns_of(before.text) <= SHORT_WORD_COLUMNS
    return WORD + SHORT_WORD * is_short


def ends_sentence(text: str, following: str) -> bool:
    """Whether a sentence ends with the word `text`: a full stop or the like that closes no
    abbreviation, and no small letter behind it."""
    letter = next(filter(str.isalnum, following), "")
    return _is_stopped(text) and not letter.islower()


def ends_clause(text: str) -> bool:
    return _is_stopped(text) or CLAUSE_END.search(text) is not None


def _is_stopped(text: str) -> bool:
    return SENTENCE_END.search(text) is not None and not ABBREVIATION.match(text)


class Row:
    """Pieces one behind the other. `costs[i]` is what a division behind piece `i` costs."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self._pieces = pieces
        widths = (columns_of(piece.text) + piece.spaced for piece in pieces)
        self._columns = [*accumulate(widths, initial=0)]
        self.costs = [*(division_cost(one, later) for one, later in pairwise(pieces)), SENTENCE]

    def __len__(self) -> int:
        return len(self._pieces)

    def columns(self, first: int, end: int) -> int:
        """Of the pieces from number `first` up to, not including, `end` on one line."""
        return self._columns[end] - self._columns[first] - self._pieces[first].spaced

    def text(self, first: int, end: int) -> str:
        """The pieces on one line, without the arrow that stands in the header of a cue."""
        pieces = self._pieces[first:end]
        joined = "".join(f" {one.text}" if one.spaced else one.text for one in pieces)
        return ARROW.sub("->", joined).lstrip(" ")

    def reach(self, first: int) -> int:
        """Where a line from `first` on ends that holds as much as fits, and one piece at
        least; what is written together is divided only where it is too wide for a line."""
        end = first + 1
        while end < len(self) and self.columns(first, end + 1) <= MAX_COLUMNS:
            end += 1
        divisions = range(end, first, -1)
        return next((at for at in divisions if self.costs[at - 1] < UNDIVIDED), end)


def cheapest_division(
    count: int,
    ends: Callable[[int], Iterable[int]],
    cost: Callable[[int, int], float],
) -> list[tuple[int, int]]:
    """`count` things in parts (first, end), so that the costs of all parts are least.

    `ends(first)`: where a part from `first` on may end, `first + 1` always among them.
    """
    costs = [0.0] + [math.inf] * count
    origins = [0] * (count + 1)
    for first in range(count):
        for end in ends(first):
            total = costs[first] + cost(first, end)
            if total < costs[end]:
                costs[end], origins[end] = total, first
    return _parts(origins)


def _parts(origins: Sequence[int]) -> list[tuple[int, int]]:
    parts: list[tuple[int, int]] = []
    end = len(origins) - 1
    while end:
        parts.append((origins[end], end))
        end = origins[end]
    return parts[::-1]


def lines_of(pieces: Sequence[Piece]) -> tuple[str, ...]:
    """`pieces` on as few lines of `MAX_COLUMNS` as they need, divided where it reads well
    and evenly. Only a piece that is wider by itself makes a line wider."""
    row = Row(pieces)

    def ends(first: int) -> range:
        return range(first + 1, row.reach(first) + 1)

    def cost(first: int, end: int) -> float:
        width = row.columns(first, end) / MAX_COLUMNS
        return LINE + UNEVEN * width * width + row.costs[end - 1]

    parts = cheapest_division(len(row), ends, cost)
    return tuple(row.text(first, end) for first, end in parts)


def pieces_of(text: str) -> Iterator[Piece]:
    """What stands between the spaces of `text`; where that is wider than a line, what may
    be divided between wide characters."""
    for token in plain(text).split():
        for index, part in enumerate(_divided(token)):
            yield Piece(part, spaced=index == 0)


def _divided(token: str) -> list[str]:
    if columns_of(token) <= MAX_COLUMNS:
        return [token]
    cuts = [at for at in range(1, len(token)) if _is_cut(token[at - 1], token[at])]
    return [token[start:end] for start, end in pairwise([0, *cuts, len(token)])]


def _is_cut(before: str, after: str) -> bool:
    wide = _is_wide(before) or _is_wide(after)
    return wide and may_divide(before, after, spaced=False)
