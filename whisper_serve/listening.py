"""Hearing a recording's speech window by window.

A `Listener` asks for windows one after the other, each with the text before it as context,
or side by side without. What it heard it gives piece by piece, each as soon as nothing in it
can change any more. It goes on from where a decode stopped early, and always gets nearer to
the end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from itertools import pairwise, takewhile

from whisper_serve.audio.pcm import Samples, to_samples
from whisper_serve.audio.windows import Window, WindowCutter
from whisper_serve.engines.base import DecodeTask
from whisper_serve.ports import Transcribes
from whisper_serve.text.commit import EDGE_S, commit, drop_heard, is_guess, keep_words, speakable
from whisper_serve.text.transcript import Hypothesis, Segment, text_of, words_of

# About 170 tokens, which leaves room for the client's prompt in the 223 that Whisper takes.
CONTEXT_CHARS = 700
# Whisper forgets all text up to a window that was harder to decode than this.
MAX_CONTEXT_TEMPERATURE = 0.5
# From this probability on a detected language holds for the rest of the recording.
CERTAIN_LANGUAGE = 0.5
# Less speech than this behind the last word is breath, more is words that were missed.
MAX_UNHEARD_S = 0.5
# More speech than this within one word is words that the decode skipped.
MAX_WORD_S = 2.0
# A word that begins so soon is at its window's start; hearing it again would change nothing.
START_S = 0.5
# Hardly a word is shorter.
MIN_PROGRESS_S = 0.1


@dataclass(frozen=True, slots=True)
class Heard:
    """What a stretch of speech gave. Times count from the start of the speech; `resume_at`
    is the sample from which nothing has been heard yet."""

    segments: tuple[Segment, ...] = ()
    resume_at: int = 0
    language: str | None = None
    language_probability: float = 0.0
    gpu_memory_gib: float = 0.0

    @property
    def certain_language(self) -> str | None:
        return self.language if self.language_probability >= CERTAIN_LANGUAGE else None

    @property
    def context(self) -> str:
        """The text that helps to understand what follows."""
        clear = takewhile(_is_clear, reversed(self.segments))
        text = text_of([*clear][::-1])
        if len(text) <= CONTEXT_CHARS:
            return text
        _, _, whole_words = text[-CONTEXT_CHARS:].partition(" ")
        return whole_words or text[-CONTEXT_CHARS:]

    def then(self, later: Heard) -> Heard:
        """Both, one after the other, with the first certain language or else the likeliest."""
        keep = self.certain_language or self.language_probability > later.language_probability
        surer = self if keep else later
        return Heard(
            self.segments + later.segments,
            later.resume_at,
            surer.language,
            surer.language_probability,
            max(self.gpu_memory_gib, later.gpu_memory_gib),
        )


class Listener:
    """Hears `speech`, cut by `cutter`, through `port`.

    `task` is what all windows have in common; its `context` is the client's prompt.
    """

    def __init__(
        self, port: Transcribes, speech: Samples, cutter: WindowCutter, task: DecodeTask
    ) -> None:
        self._port = port
        self._speech = speech
        self._cutter = cutter
        self._task = task

    async def in_sequence(self) -> AsyncGenerator[Heard, None]:
        """Every window starts where the one before it ended and knows the text before it."""
        heard, paused_at = Heard(), 0
        while heard.resume_at < self._cutter.total:
            window = self._cutter.window_at(heard.resume_at)
            piece = await self._hear(
                window,
                heard.context,
                heard.certain_language,
                is_rest=heard.resume_at < paused_at,
            )
            heard, paused_at = heard.then(piece), window.cut if window.at_pause else 0
            yield piece

    async def side_by_side(self, at_once: int) -> AsyncGenerator[Heard, None]:
        """All windows, at most `at_once` at the same time; the first one alone, since its
        language serves them all. The first failure is raised at once and cancels the others."""
        first, *others = self._cutter.windows()
        heard = await self._hear_out(first, None)
        language = heard.certain_language
        yield heard
        slots = asyncio.Semaphore(at_once)

        async def hear_next(window: Window) -> Heard:
            async with slots:
                return await self._hear_out(window, language)

        pairs = pairwise([first, *others])
        async with aclosing(_in_order([hear_next(window) for window in others])) as pieces:
            async for later in pieces:
                piece = _fresh(heard, later, *next(pairs))
                heard = heard.then(piece)
                yield piece

    async def _hear_out(self, window: Window, language: str | None) -> Heard:
        """A window and, as often as its decode stops early, the rest of it."""
        heard = await self._hear(window, "", language)
        while self._is_left_out(window, heard.resume_at):
            rest = replace(window, start=heard.resume_at)
            language = language or heard.certain_language
            heard = heard.then(await self._hear(rest, "", language, is_rest=window.at_pause))
        return heard

    def _is_left_out(self, window: Window, position: int) -> bool:
        """Whether speech behind `position` is missed by this window and the one behind it."""
        if window.at_pause:
            return self._is_unheard(position, window.cut)
        # The window behind may not hear its first word whole.
        return position < self._cutter.start_after(window) + to_samples(2 * EDGE_S)

    async def _hear(
        self, window: Window, context: str, language: str | None, *, is_rest: bool = False
    ) -> Heard:
        """One decode. It keeps words up to the window's cut and resumes there, or behind the
        last word when speech was left unheard. `is_rest`: a decode up to a pause left it out."""
        hypothesis = await self._ask(window, context, language)
        spoken = speakable(hypothesis.segments)
        if is_rest and is_guess(spoken, window.duration_s):
            spoken = ()
        segments = [segment.shifted(window.start_s) for segment in spoken]
        final = self._final(window, segments)
        return Heard(
            final,
            self._resume_at(window, segments, final),
            hypothesis.language,
            hypothesis.language_probability if segments else 0.0,
            hypothesis.stats.gpu_memory_gib,
        )

    def _final(self, window: Window, segments: Sequence[Segment]) -> tuple[Segment, ...]:
        """The segments up to the window's cut, but no further than speech that was skipped.

        A word that reaches from the window's start over its cut was stretched by the aligner
        and is taken as it is.
        """
        final = commit(segments, window.cut_s, at_pause=window.at_pause)
        if not final and self._is_stretched(window, segments):
            return keep_words(segments, 0, 1)
        for index, (word, later) in enumerate(pairwise(words_of(final)), start=1):
            skipped = self._cutter.speech_between(to_samples(word.end), to_samples(later.end))
            if skipped > to_samples(MAX_WORD_S):
                return keep_words(final, 0, index)
        return final

    def _is_stretched(self, window: Window, segments: Sequence[Segment]) -> bool:
        words = words_of(segments)
        at_start = bool(words) and words[0].start < window.start_s + START_S
        return at_start and not window.at_pause

    def _resume_at(
        self, window: Window, segments: Sequence[Segment], final: Sequence[Segment]
    ) -> int:
        words = words_of(segments)
        if not words:
            return window.cut
        heard_until = to_samples(final[-1].end if final else words[0].start)
        if window.at_pause and not self._is_unheard(heard_until, window.cut):
            return window.cut
        return max(window.start + to_samples(MIN_PROGRESS_S), min(heard_until, window.cut))

    def _is_unheard(self, start: int, end: int) -> bool:
        return self._cutter.speech_between(start, end) > to_samples(MAX_UNHEARD_S)

    async def _ask(self, window: Window, context: str, language: str | None) -> Hypothesis:
        prompt = f"{self._task.context} {context}".strip()
        task = replace(
            self._task,
            samples=self._speech[window.start : window.end],
            context=prompt,
            language=self._task.language or language,
        )
        return await self._port.transcribe(task)


def _is_clear(segment: Segment) -> bool:
    return segment.temperature <= MAX_CONTEXT_TEMPERATURE


def _fresh(heard: Heard, later: Heard, previous: Window, window: Window) -> Heard:
    """What `later` tells of `window` that was not `heard` at the end of the `previous` one."""
    if previous.at_pause:
        return later
    return replace(later, segments=drop_heard(heard.segments, later.segments, window.start_s))


async def _in_order(calls: Sequence[Coroutine[None, None, Heard]]) -> AsyncGenerator[Heard, None]:
    """The results in order, each as soon as it and those before it are there; the first failure
    of any is raised at once. In the end all calls are over, those that still ran cancelled."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    running = set(tasks)
    try:
        for task in tasks:
            while task in running:
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for finished in done:
                    finished.result()
            yield task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
