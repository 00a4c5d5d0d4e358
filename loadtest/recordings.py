"""Whole recordings as files: each from its beginning to its end, so that all that was said in it
is known exactly."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.corpus import Passage, Recording, read_corpus
from loadtest.files import Clip, form_of
from loadtest.formats import KINDS, encoded
from loadtest.speech import BESIDE, MANIFEST, NoSpeech, Speech, find_speech
from whisper_serve.audio.pcm import seconds

# What is taken of recordings that have no manifest.
LENGTH_S = 10.0


def whole_recordings(corpus: Path | None, shortest_s: float, longest_s: float) -> list[Speech]:
    """Those of a length. `corpus`: as for `find_speech`. Raises `NoSpeech`."""
    folder = corpus or BESIDE
    if not (folder / MANIFEST).exists():
        return find_speech(corpus, min(longest_s, max(shortest_s, LENGTH_S)))
    entries = read_corpus(folder, "utterances")
    found = list(_whole(each for each in entries if shortest_s <= each.seconds <= longest_s))
    if not found:
        raise NoSpeech(f"corpus: no recording in {folder} has {shortest_s:g} to {longest_s:g} s")
    return found


def _whole(recordings: Iterator[Recording]) -> Iterator[Speech]:
    for recording in recordings:
        samples = recording.samples()
        said = (Passage(0.0, seconds(len(samples)), recording.text),)
        yield Speech(replace(recording, passages=said), samples, "en")


def clips(
    speeches: Sequence[Speech], kind: str, language: str | None, fields: Mapping[str, str]
) -> list[Clip]:
    """As files of one of `KINDS`. `language`: None takes that of the speech; `fields` go with
    each."""
    return [_clip(each, kind, language or each.language, fields) for each in speeches]


def _clip(speech: Speech, kind: str, language: str | None, fields: Mapping[str, str]) -> Clip:
    wanted = KINDS[kind]
    file = encoded(speech.samples, wanted)
    given = {**fields, **({} if language is None else {"language": language})}
    name = f"{speech.name}.{wanted.container}"
    return Clip(speech, form_of(file, name, wanted.media_type, given))
