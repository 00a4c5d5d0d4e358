"""Hearing a stream: which audio is decoded when, and which words are final then.

The stream is walked through frame by frame. A *stretch* of speech begins with its first
sound and ends with a pause of `MAX_PAUSE_S`; no window reaches over such a pause. While a
window for final text is out, the walk stands still, and audio that arrives waits in the
buffer: so the same audio gives the same windows in whatever pieces it comes.

Each window begins somewhat before the end of the final text, and its decode is forced to
begin with the words that are final already. It hears the words behind them in their
surroundings and gives nothing twice. When such a decode finds nothing where there is speech,
a *fresh* window begins right behind the final text.

A *mark* is a place up to which everything has to become final before the walk goes on.

Two rules keep a stream alive: a window that is full is settled whole, whatever the policy
says, and the end of a stretch is heard again until no speech of it is left.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from whisper_serve.audio.pcm import SAMPLE_RATE, Samples, seconds, to_samples
from whisper_serve.audio.vad import FRAME_SAMPLES, VadOptions
from whisper_serve.streaming.buffer import SampleBuffer
from whisper_serve.streaming.effort import Effort
from whisper_serve.streaming.messages import KnownWord, ResumePoint
from whisper_serve.streaming.policies import Ending, Policy, Progress
from whisper_serve.streaming.settled import Settled, last_words
from whisper_serve.streaming.speech import SpeechMap
from whisper_serve.text.commit import is_guess, speakable
from whisper_serve.text.transcript import Hypothesis, Segment, Word, words_of

# Longer pauses divide the stream.
MAX_PAUSE_S = 2.0
# Audio kept before the first sound that counts as speech, and behind the last.
LEAD_S = 0.1
TAIL_S = 0.5
# What is kept of silence, so that the beginning of speech, and what is kept before it, is there
# when it is noticed.
SILENCE_KEPT_S, NOTICED_S = 0.5, 0.2
# Audio before a window from which voice activity detection finds its footing again.
WARM_UP_S = 1.0
# Whisper hears 30 s; a window of this length is full.
MAX_WINDOW_S = 28.0
PARTIAL_STEP_S = 1.0
# Less speech than this behind the last word is breath, more is words that were missed.
MAX_UNHEARD_S = 0.5
# More speech than this between the ends of two words is words that were skipped.
MAX_WORD_S = 2.0
MIN_PROGRESS_S = 0.1
# Text of a decode that was hotter than this is no context for the next.
MAX_CONTEXT_TEMPERATURE = 0.5
# A language holds once it is likely in a window of this length, or beyond doubt in any.
CERTAIN_LANGUAGE, LANGUAGE_S, BEYOND_DOUBT = 0.5, 5.0, 0.9

# Marks of silence that may be short.
IN_PASSING = ("silence", "utterance_end")

Probabilities = npt.NDArray[np.float32]
Reason = Literal["silence", "utterance_end", "flush", "end"]


class Vad(Protocol):
    """Speech probabilities, one a frame of `FRAME_SAMPLES`."""

    def push(self, samples: Samples) -> Probabilities: ...

    def finish(self) -> Probabilities: ...


class AlwaysSpeech:
    """Stands in for voice activity detection that the client does not want."""

    def __init__(self) -> None:
        self._rest = 0

    def push(self, samples: Samples) -> Probabilities:
        frames, self._rest = divmod(self._rest + len(samples), FRAME_SAMPLES)
        return np.ones(frames, np.float32)

    def finish(self) -> Probabilities:
        return np.ones(1 if self._rest else 0, np.float32)


class Mark(NamedTuple):
    """Everything before the sample `position` is to become final, because of `reason`."""

    position: int
    reason: Reason


@dataclass(frozen=True, slots=True)
class LiveWindow:
    """Audio to decode: `samples` (16 kHz mono int16, at most 30 s) begin at `start` of the
    stream. A `final` window must be answered; others are for partial text.

    `settles` tells that all of it becomes final, `fresh` that it begins behind the final text,
    `thorough` that there is time for more than the fastest decode.
    """

    number: int
    start: int
    samples: Samples = field(repr=False)
    context: str
    prefix: str
    language: str | None
    final: bool
    settles: bool
    fresh: bool
    thorough: bool = True

    @property
    def end(self) -> int:
        return self.start + len(self.samples)

    @property
    def duration_s(self) -> float:
        return seconds(len(self.samples))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an answer gave: words that are `final` now, and the `tail` behind them."""

    final: tuple[Word, ...]
    tail: tuple[Word, ...]


class LiveListener:
    """Walks through one stream; `policy` decides within a stretch.

    `effort`: how far a window reaches back over final text.
    """

    def __init__(
        self,
        policy: Policy,
        vad: Vad,
        vad_options: VadOptions,
        *,
        effort: Effort,
        lead_s: float = LEAD_S,
        use_context: bool = True,
        language: str | None = None,
        resume: ResumePoint | None = None,
    ) -> None:
        self.policy = policy
        self.use_context = use_context
        self.language = language
        self._effort = effort
        self._lead = to_samples(lead_s)
        kept_s = max(SILENCE_KEPT_S, lead_s + vad_options.min_speech_s + NOTICED_S)
        self._silence_kept = to_samples(kept_s)
        self._vad = vad
        resume = resume or ResumePoint(committed_until=0.0)
        origin = to_samples(resume.committed_until)
        if resume.audio_from is not None:
            origin = to_samples(resume.audio_from)
        self._buffer = SampleBuffer(origin)
        self._probabilities: deque[float] = deque()
        self._speech = SpeechMap(origin, vad_options)
        self._settled = _settled(resume)
        self._in_stretch = resume.window_from is not None
        # Up to here windows for final text have been decoded.
        self._decoded = to_samples(resume.position or resume.committed_until)
        self._found_language = resume.language
        self._tail = _words(resume.tail)
        policy.remember(self._tail)
        self._asked: LiveWindow | None = None
        self._partial: LiveWindow | None = None
        self._partial_end = 0
        # What the walk will come to, and what it has passed.
        self._marks: deque[Mark] = deque()
        self._passed: list[Mark] = []
        # To be asked for before anything else.
        self._again: LiveWindow | None = None
        self._numbers = 0
        self._answer_s = 0.0

    # What goes in

    def push(self, samples: Samples) -> Probabilities:
        """More audio; returns the probabilities of the frames that are whole now."""
        self._buffer.append(samples)
        return self._take(self._vad.push(samples))

    def settle(self, reason: Reason, at: int | None = None) -> None:
        """Let everything before the sample `at`, or all that was received, become final; told
        by `passed` when it is. Marks come in the order of the stream."""
        end = self._buffer.end
        mark = Mark(end if at is None else min(at, end), reason)
        if not self._marks or self._marks[-1] != mark:
            self._marks.append(mark)

    def finish(self) -> Probabilities:
        """No more audio will come. What is to become final is still to be said."""
        return self._take(self._vad.finish())

    def answer(self, window: LiveWindow, hypothesis: Hypothesis) -> Outcome | None:
        """What the engine heard in `window`; None when nobody waits for it any more."""
        segments = speakable(hypothesis.segments)
        if window.fresh and window.settles and is_guess(segments, window.duration_s):
            segments = ()
        spoken = [segment.shifted(seconds(window.start)) for segment in segments]
        if self._partial is not None and window.number == self._partial.number:
            self._partial = None
            return Outcome((), self._before_skipped(words_of(spoken), window))
        if self._asked is None or window.number != self._asked.number:
            return None
        self._asked = None
        self._answer_s = hypothesis.stats.total_s
        self._effort.learn(self._answer_s, hypothesis.stats.queued_s)
        self._learn_language(hypothesis, window)
        return self._settle(window, spoken)

    def fail(self, window: LiveWindow) -> bool:
        """The engine could not answer; a window for final text will be asked for again.
        Returns whether anybody waited for it."""
        if self._partial is not None and window.number == self._partial.number:
            self._partial = None
            return True
        if self._asked is None or window.number != self._asked.number:
            return False
        self._asked, self._again = None, window
        return True

    def reset(self) -> None:
        """Drop what is not final, forget all text."""
        self._drop(self._buffer.end)
        self._settled.context = ""

    # What comes out

    @property
    def received(self) -> int:
        """Samples of the stream so far."""
        return self._buffer.end

    @property
    def settled(self) -> int:
        """Up to here nothing can change."""
        return self._settled.until

    def passed(self) -> list[Mark]:
        """The marks before which everything has become final since the last time."""
        passed, self._passed = self._passed, []
        return passed

    @property
    def resume_point(self) -> ResumePoint:
        settled = self._settled
        return ResumePoint(
            committed_until=_seconds(settled.until),
            context=settled.context,
            audio_from=_seconds(self._audio_from()),
            window_from=_seconds(settled.window_start) if self._in_stretch else None,
            position=_seconds(max(self._decoded, settled.until)),
            words=_known(settled.words),
            tail=_known(self._tail),
            language=self._found_language,
        )

    def next_window(self, *, partial: bool) -> LiveWindow | None:
        """The window to decode next, if one is due; `partial`: also for text that may change.

        A window for final text takes the place of a partial one that is still out.
        """
        if self._asked is not None:
            return None
        final = self._next_final()
        if final is not None:
            self._asked, self._partial = final, None
            return final
        if not partial or self._partial is not None or not self._partial_due():
            return None
        self._partial_end = self._speech.position
        self._partial = self._window(self._speech.position, final=False)
        return self._partial

    # The walk

    def _next_final(self) -> LiveWindow | None:
        if self._again is not None:
            again, self._again = self._again, None
            return again
        window = self._walk()
        self._buffer.drop_before(self._audio_from())
        return window

    def _walk(self) -> LiveWindow | None:
        """Go on to the next window, over the marks that need none. A mark within a frame is
        reached when there are no more frames."""
        while True:
            while (window := self._due()) is None and self._probabilities and not self._at_mark:
                self._step(self._probabilities.popleft())
            if window is not None or not self._marks:
                return window
            if (window := self._settling(self._marks[0].position)) is not None:
                return window
            self._pass(self._marks.popleft())

    def _pass(self, mark: Mark) -> None:
        """Nothing before `mark` is to be heard any more. Speech that goes on soon behind a silence
        is heard with what was said before it."""
        if self._in_stretch and mark.reason in IN_PASSING:
            self._leave_behind(mark.position)
        else:
            self._drop(mark.position)
        self._passed.append(mark)

    @property
    def _at_mark(self) -> bool:
        """What came behind a mark is walked through once that is settled: frames that were
        passed before would begin no stretch any more."""
        return bool(self._marks) and self._speech.position >= self._marks[0].position

    def _step(self, probability: float) -> None:
        self._speech.push(probability)
        if self._in_stretch:
            return
        last, position = self._speech.last, self._speech.position
        if last is not None and last.end > self._settled.until and position > self._decoded:
            self._in_stretch = True
            begin = max(self._settled.until, last.start - self._lead)
            self._settled.until = self._decoded = self._partial_end = begin
            self._settled.start_window_at(begin)
        elif position > self._decoded:
            silent = position - self._silence_kept
            self._settled.until = max(self._settled.until, silent)
            self._decoded = max(self._decoded, self._settled.until)

    def _due(self) -> LiveWindow | None:
        position = self._speech.position
        if not self._in_stretch or position <= self._decoded:
            return None
        last = self._speech.last
        spoken_until = last.end if last else position
        if position - spoken_until >= to_samples(MAX_PAUSE_S):
            end = min(position, spoken_until + to_samples(TAIL_S))
            if (window := self._settling(end)) is None:
                self._drop(end)
            return window
        if position - self._settled.window_start >= to_samples(MAX_WINDOW_S):
            return self._window(position, settles=True)
        if self.policy.is_due(self._progress(position)):
            return self._window(position)
        return None

    def _settling(self, end: int) -> LiveWindow | None:
        """A window that settles what is before `end`, unless nothing is left to hear."""
        if not self._in_stretch or end <= self._settled.until:
            return None
        missed = self._speech.speech_between(self._settled.until, end) > to_samples(MAX_UNHEARD_S)
        new = self._speech.speech_between(self._decoded, end) > 0
        if not (self._tail or new or missed):
            return None
        return self._window(max(end, self._decoded), settles=True)

    def _progress(self, position: int) -> Progress:
        return Progress(
            new_s=seconds(position - self._decoded),
            new_speech_s=seconds(self._speech.speech_between(self._decoded, position)),
            silence_s=seconds(position - self._speech.silent_from),
            answer_s=self._answer_s,
        )

    def _partial_due(self) -> bool:
        position = self._speech.position
        since = max(self._partial_end, self._decoded)
        return (
            self._in_stretch
            and position - since >= to_samples(PARTIAL_STEP_S)
            and self._speech.speech_between(since, position) > 0
        )

    def _window(
        self, end: int, *, final: bool = True, settles: bool = False, fresh: bool = False
    ) -> LiveWindow:
        settled = self._settled
        start = settled.until if fresh else settled.window_start
        context = settled.whole_context if fresh else settled.context
        self._numbers += 1
        return LiveWindow(
            number=self._numbers,
            start=start,
            samples=self._buffer.slice(start, min(end, self._buffer.end)),
            context=last_words(context, self._effort.context_chars) if self.use_context else "",
            prefix="" if fresh else settled.text,
            language=self.language or self._found_language,
            final=final,
            settles=settles,
            fresh=fresh,
            thorough=final and self._effort.is_thorough,
        )

    # Settling

    def _settle(self, window: LiveWindow, spoken: Sequence[Segment]) -> Outcome:
        before = self._settled.until
        words = self._before_skipped(words_of(spoken), window)
        count = len(words)
        if not window.settles:
            count = self.policy.final_words(words, self._ending(window))
        final = self._settled.add(words[:count])
        self._decoded = max(self._decoded, window.end)
        if any(s.temperature > MAX_CONTEXT_TEMPERATURE for s in spoken):
            self._settled.forget_text()
        self._tail = words[count:]
        missed = self._missed(window)
        progress = self._settled.until - before >= to_samples(MIN_PROGRESS_S)
        if window.settles:
            if missed and (progress or not window.fresh):
                self._again = self._window(self._decoded, settles=True, fresh=True)
            else:
                self._end_window(window)
        elif missed and not words and not window.fresh:
            # Nothing was heard where there is speech: let the next window begin behind it.
            self._settled.start_window_at(self._settled.until)
        self._settled.move_window(self._speech, self._reach())
        self._speech.forget_before(self._audio_from())
        return Outcome(final, self._tail)

    def _ending(self, window: LiveWindow) -> Ending:
        silence = max(0, window.end - self._speech.silent_from)
        return Ending(seconds(window.end), seconds(silence))

    def _missed(self, window: LiveWindow) -> bool:
        unheard = self._speech.speech_between(self._settled.until, window.end)
        return unheard > to_samples(MAX_UNHEARD_S)

    def _end_window(self, window: LiveWindow) -> None:
        """All of a window that settles is settled."""
        last = self._speech.last
        if self._at_mark and self._marks[0].reason in IN_PASSING:
            self._leave_behind(window.end)
        elif last is None or window.end > last.end or self._at_mark:
            self._drop(window.end)
        else:
            self._leave_behind(window.end)
            self._settled.start_window_at(self._settled.until)

    def _leave_behind(self, position: int) -> None:
        """Nothing before `position` will change; the stretch goes on."""
        self._settled.until = max(self._settled.until, position)
        self._decoded = max(self._decoded, self._settled.until)
        self._tail = ()
        self.policy.remember(())

    def _drop(self, position: int) -> None:
        """Nothing before `position` is to be heard any more, and no stretch goes on."""
        self._settled.until = max(self._settled.until, position)
        self._settled.start_window_at(self._settled.until)
        self._decoded = max(self._decoded, self._settled.until)
        self._in_stretch, self._again = False, None
        self._asked = self._partial = None
        self._tail = ()
        self.policy.remember(())

    def _before_skipped(self, words: Sequence[Word], window: LiveWindow) -> tuple[Word, ...]:
        """The new words up to the first place where the decode skipped speech."""
        reached, kept = self._settled.until, []
        new = words[self._settled.repeated(words) :]
        for word in (_within(word, window) for word in new):
            end = to_samples(word.end)
            if self._speech.speech_between(reached, end) > to_samples(MAX_WORD_S):
                break
            reached = max(reached, end)
            kept.append(word)
        return tuple(kept)

    def _learn_language(self, hypothesis: Hypothesis, window: LiveWindow) -> None:
        if not hypothesis.segments or self._found_language is not None:
            return
        enough = CERTAIN_LANGUAGE if window.duration_s >= LANGUAGE_S else BEYOND_DOUBT
        if hypothesis.language_probability >= enough:
            self._found_language = hypothesis.language

    def _reach(self) -> int:
        """How far a window may reach back so that what comes will have room behind it."""
        room_s = MAX_WINDOW_S - self.policy.room_s
        return to_samples(max(0.0, min(self._effort.reach_s, room_s)))

    def _audio_from(self) -> int:
        """The first sample that may still be needed, on the grid of frames."""
        kept = self._settled.window_start - to_samples(WARM_UP_S)
        return max(self._buffer.start, kept // FRAME_SAMPLES * FRAME_SAMPLES)

    def _take(self, probabilities: Probabilities) -> Probabilities:
        self._probabilities.extend(probabilities.tolist())
        return probabilities


def _within(word: Word, window: LiveWindow) -> Word:
    """`word` with times that do not reach beyond its window."""
    first, last = seconds(window.start), seconds(window.end)
    return replace(
        word, start=min(max(word.start, first), last), end=min(max(word.end, first), last)
    )


def _settled(resume: ResumePoint) -> Settled:
    until = to_samples(resume.committed_until)
    start = until if resume.window_from is None else to_samples(resume.window_from)
    return Settled(until, start, resume.context, _words(resume.words))


def _known(words: Sequence[Word]) -> tuple[KnownWord, ...]:
    return tuple(KnownWord(word.text, _milli(word.start), _milli(word.end)) for word in words)


def _words(known: Sequence[KnownWord]) -> tuple[Word, ...]:
    return tuple(Word(word.text, word.start, word.end, 1.0) for word in known)


def _milli(time_s: float) -> float:
    return max(0.0, round(time_s, 3))


def _seconds(sample: int) -> float:
    return round(sample / SAMPLE_RATE, 5)
