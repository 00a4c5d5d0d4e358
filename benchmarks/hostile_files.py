"""What files that were made to do harm cost the service: time, and memory of the process that
decodes them.

    .venv/bin/python -m benchmarks.hostile_files --timeout 10
"""

from __future__ import annotations

import argparse
import io
import time
from contextlib import closing

from tests.audio.clips import tone, wav
from tests.audio.decoding import Peak
from tests.audio.hostile import HOSTILE
from whisper_serve.audio.containers import FORMATS
from whisper_serve.audio.isolation import IsolatedDecoder
from whisper_serve.audio.pcm import seconds
from whisper_serve.errors import WhisperServeError

MAX_AUDIO_S = 7_200.0


def outcome_of(decoder: IsolatedDecoder, data: bytes) -> str:
    try:
        samples = decoder(
            io.BytesIO(data),
            accepted=tuple(names[0] for names in FORMATS.values()),
            max_duration_s=MAX_AUDIO_S,
        )
    except WhisperServeError as exc:
        return f"{exc.http_status} {exc.code}"
    return f"{seconds(len(samples)):.1f} s of audio"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--timeout", type=float, default=10.0, help="limits.decode_timeout_s")
    files = {"an ordinary recording of 60 s": lambda: wav(tone(60.0)), **HOSTILE}
    print("| file | MB | s | MiB | outcome |\n| --- | --- | --- | --- | --- |")
    for name, make in files.items():
        data = make()
        with closing(IsolatedDecoder(timeout_s=parser.parse_args().timeout)) as decoder:
            with Peak() as peak:
                began = time.monotonic()
                outcome = outcome_of(decoder, data)
            took_s, peak_mib = time.monotonic() - began, peak.bytes / 2**20
        print(f"| {name} | {len(data) / 1e6:.2f} | {took_s:.1f} | {peak_mib:.0f} | {outcome} |")


if __name__ == "__main__":
    main()
