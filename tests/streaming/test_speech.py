from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from whisper_serve.audio.vad import FRAME_SAMPLES, Region, VadOptions
from whisper_serve.streaming.speech import SpeechMap

FRAME_S = FRAME_SAMPLES / 16_000
# Frames of: silence, speech, silence, speech.
PATTERN = [0.0] * 10 + [1.0] * 20 + [0.0] * 15 + [1.0] * 20


def mapped(probabilities: list[float], origin: int = 0) -> SpeechMap:
    speech = SpeechMap(origin, VadOptions())
    for probability in probabilities:
        speech.push(probability)
    return speech


def frames(*numbers: int) -> list[int]:
    return [number * FRAME_SAMPLES for number in numbers]


def test_regions_are_where_speech_is_the_one_that_goes_on_included() -> None:
    speech = mapped(PATTERN)
    assert speech.regions == [Region(*frames(10, 30)), Region(*frames(45, 65))]
    assert speech.last == Region(*frames(45, 65))
    assert speech.position == 65 * FRAME_SAMPLES


def test_positions_count_from_the_origin() -> None:
    speech = mapped(PATTERN, origin=5_120)
    assert speech.regions[0] == Region(5_120 + 10 * 512, 5_120 + 30 * 512)
    assert speech.silent_from == speech.position == 5_120 + 65 * 512


def test_speech_between_two_positions_is_counted() -> None:
    speech = mapped(PATTERN)
    assert speech.speech_between(0, speech.position) == 40 * FRAME_SAMPLES
    assert speech.speech_between(*frames(20, 50)) == 15 * FRAME_SAMPLES
    assert speech.speech_between(*frames(31, 44)) == 0
    assert speech.speech_between(*frames(50, 20)) == 0


def test_a_pause_is_found_by_its_middle() -> None:
    speech = mapped(PATTERN)
    middle = (30 + 45) * FRAME_SAMPLES // 2
    assert speech.pauses_between(0, speech.position) == [middle]
    assert speech.pauses_between(middle + 1, speech.position) == []
    assert mapped([1.0] * 20 + [0.0] * 5 + [1.0] * 20).pauses_between(0, 1 << 20) == []


def test_a_sound_that_may_become_speech_ends_the_silence() -> None:
    speech = mapped([1.0] * 20 + [0.0] * 20 + [1.0])
    assert speech.last == Region(*frames(0, 20))
    assert speech.silent_from == speech.position


def test_before_the_first_sound_silence_lasts_from_the_origin() -> None:
    assert mapped([0.0] * 10, origin=512).silent_from == 512


def test_what_is_past_is_forgotten() -> None:
    speech = mapped(PATTERN)
    speech.forget_before(30 * FRAME_SAMPLES)
    assert speech.regions == [Region(*frames(45, 65))]


@given(st.lists(st.sampled_from([0.0, 0.4, 1.0]), max_size=200))
def test_regions_are_in_order_and_within_what_was_looked_at(probabilities: list[float]) -> None:
    speech = mapped(probabilities)
    edges = [edge for region in speech.regions for edge in (region.start, region.end)]
    assert all(a < b for a, b in pairwise(edges))
    assert all(0 <= edge <= speech.position for edge in edges)
    assert speech.speech_between(0, speech.position) == sum(
        region.end - region.start for region in speech.regions
    )
