"""Words with made-up times: even ones, and those that no engine should give but may."""

from __future__ import annotations

import random
from collections.abc import Sequence

from hypothesis import strategies as st

from whisper_serve.text.transcript import Segment, Word

MARKUP = [" <i>", "&amp;", " -->", " --", ">", "- >", " 00:00:01,000 --> 00:00:02,000", "NOTE"]
FIGURES = [" 1984", " 7", " 3", ".5", " 00:00:01,000", "\n2\n"]
BREAKS = ["", " ", "\n", " a\r\n\r\nb", "\x00", "\x1f", "\u2028", "\ufeff", " tail "]
SCRIPTS = [
    " שָׁלוֹם",
    " مرحبا",
    "👩",
    "\u200d",
    "💻",
    "字",
    "日本",
    "。",
    "「",
    "ก็",
    "e\u0301",
    " ?",
    " «",
]
ODD = [*MARKUP, *FIGURES, *BREAKS, *SCRIPTS, " " + "x" * 60, "字" * 50]

# Times as engines give them, those at the edge of a second, and those that are impossible.
TIMES = st.one_of(
    st.floats(0, 5),
    st.floats(0, 3600),
    st.sampled_from([0.0, 1.0, 59.9995, 59.9996, 3599.9999, -1.0]),
    st.floats(allow_nan=False),
)
TEXTS = st.one_of(
    st.sampled_from([" so", " it", " is.", " Yes,", *ODD]),
    st.text(max_size=8),
    st.text("-> \n\r<&;a1", max_size=8),
)
WORDS = st.builds(Word, TEXTS, TIMES, TIMES, st.just(1.0))


def segment(words: Sequence[Word], text: str = "") -> Segment:
    text = text or "".join(word.text for word in words)
    return Segment(words[0].start, words[-1].end, text, tuple(words))


SEGMENTS = st.lists(
    st.one_of(
        st.lists(WORDS, min_size=1, max_size=12).map(segment),
        st.builds(Segment, TIMES, TIMES, TEXTS),
    ),
    max_size=4,
)


def timed(*words: tuple[str, float, float]) -> list[Segment]:
    """One segment of (text, start, end)."""
    return [segment([Word(text, start, end, 1.0) for text, start, end in words])]


def even(text: str, word_s: float = 0.35, start: float = 0.0) -> list[Segment]:
    """`text` in words that follow each other without a pause."""
    words = [f" {word}" for word in text.split()]
    return timed(
        *(
            (word, start + index * word_s, start + (index + 1) * word_s)
            for index, word in enumerate(words)
        )
    )


def an_hour(seed: int) -> list[Segment]:
    """10,000 words of talk, every twentieth with a text or times as they should not be."""
    chance = random.Random(seed)
    now, words = 0.0, []
    for _ in range(10_000):
        now += chance.choice([0, 0, 0, 0, 0, 0.1, 0.4, 1.2])
        length = chance.uniform(0.05, 0.5)
        text = " " + "x" * chance.randint(1, 10) + chance.choice([""] * 8 + [".", ","])
        start, end = now, now + length
        if chance.random() < 0.05:
            text = chance.choice([text, *ODD])
            start += chance.choice([0, -length, -5, 0.0004])
            end = start + chance.choice([0, -1, length, 20])
        words.append(Word(text, start, end, 1.0))
        now += length
    return [segment(words[at : at + 20]) for at in range(0, len(words), 20)]
