from __future__ import annotations

import numpy as np
import pytest

from loadtest.formats import KINDS, encoded
from tests.audio.clips import tone
from whisper_serve.audio.decode import decode


@pytest.mark.parametrize("kind", KINDS)
def test_a_recording_is_the_same_in_every_kind_of_file(kind: str) -> None:
    samples = tone(1.3)
    file = encoded(samples, KINDS[kind])
    accepted = (".wav", ".flac", ".mp3", ".ogg")
    heard = decode(file, accepted=accepted, max_duration_s=60.0)
    assert len(heard) == len(samples)
    # Lossy kinds swing in and out at the ends.
    middle = slice(2_000, -2_000)
    assert np.corrcoef(samples[middle], heard[middle])[0, 1] > 0.99
