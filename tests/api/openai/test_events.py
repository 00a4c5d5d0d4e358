from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from hypothesis import given
from hypothesis import strategies as st

from whisper_serve.api.openai.answers import TextDelta, TextDone
from whisper_serve.api.openai.events import GrowingText, told
from whisper_serve.text.transcript import Segment, Transcript, Word, text_of

texts = st.text(st.sampled_from(" ab\n\u3000好."), max_size=6)


def segment(text: str) -> Segment:
    return Segment(0.0, 1.0, text, (Word(text, 0.0, 1.0, 0.5),))


@given(st.lists(st.lists(texts, max_size=3), max_size=6))
def test_what_is_given_away_is_the_text_whatever_pieces_it_comes_in(
    pieces: Sequence[Sequence[str]],
) -> None:
    text, given_away = GrowingText(), ""
    for piece in pieces:
        delta = text.push([segment(part) for part in piece])
        assert delta == delta.rstrip()
        given_away += delta
        assert given_away == text.given
    assert given_away == text_of([segment(part) for piece in pieces for part in piece])


class Pieces:
    """A transcript that comes in pieces of text."""

    def __init__(self, *texts: str) -> None:
        self._texts = texts
        self.closed = False

    async def come(self) -> AsyncGenerator[Transcript, None]:
        try:
            for text in self._texts:
                segments = (segment(text),) if text else ()
                yield Transcript(segments, "en", 0.9, 2.5)
        finally:
            self.closed = True


async def events_of(
    pieces: Pieces, *, with_logprobs: bool = False
) -> tuple[list[TextDelta], TextDone]:
    events = [event async for event in told(pieces.come(), with_logprobs=with_logprobs)]
    deltas = [event for event in events if isinstance(event, TextDelta)]
    done = events[-1]
    assert isinstance(done, TextDone)
    assert len(events) == len(deltas) + 1
    return deltas, done


async def test_the_whole_text_is_all_deltas() -> None:
    deltas, done = await events_of(Pieces(" Fail again. ", " Fail", " better."))
    assert [event.delta for event in deltas] == ["Fail again.", "  Fail", " better."]
    assert done.text == "".join(event.delta for event in deltas)
    assert done.usage.seconds == 3


async def test_a_piece_without_text_is_no_event() -> None:
    deltas, done = await events_of(Pieces("", " Fail", "", " better.", ""))
    assert [event.delta for event in deltas] == ["Fail", " better."]
    assert done.text == "Fail better."


async def test_silence_is_the_end_only() -> None:
    deltas, done = await events_of(Pieces(""))
    assert (deltas, done.text, done.logprobs) == ([], "", None)


async def test_logprobs_are_those_of_the_delta_and_at_the_end_of_all() -> None:
    deltas, done = await events_of(Pieces(" Fail", " better."), with_logprobs=True)
    tokens = [[entry.token for entry in event.logprobs or []] for event in deltas]
    assert tokens == [[" Fail"], [" better."]]
    assert [entry.token for entry in done.logprobs or []] == [" Fail", " better."]


async def test_events_that_are_closed_close_the_pieces() -> None:
    pieces = Pieces(" Fail", " better.")
    async with aclosing(told(pieces.come(), with_logprobs=False)) as events:
        assert isinstance(await asyncio.wait_for(anext(events), 10), TextDelta)
    assert pieces.closed
