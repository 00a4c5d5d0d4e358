"""Load for a service that runs, and what it makes of it.

    python -m loadtest rest --rate 2 --duration 60
    python -m loadtest stream --rate 0.5 --duration 120
    python -m loadtest sweep stream --rates 0.25,0.5,1,2
    python -m loadtest concurrency --levels 4,8,16,32,64,128,192,256,512 --patient

Exit codes: 0 when all went as it may, 1 when too much failed, 2 for wrong options, 3 when the
figures are not to be believed because this program could not keep up or did not send all.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from benchmarks.load import allow_many_sockets
from loadtest.options import parsed
from loadtest.programs import PROGRAMS, told
from loadtest.speech import NoSpeech
from whisper_serve.errors import WhisperServeError

WRONG_OPTIONS = 2


def main(arguments: Sequence[str] | None = None) -> int:
    options = parsed(arguments)
    allow_many_sockets()
    try:
        return told(options, PROGRAMS[options.program](options))
    except (WhisperServeError, NoSpeech, OSError) as exc:
        print(f"loadtest: {exc}", file=sys.stderr)
        return WRONG_OPTIONS


if __name__ == "__main__":
    sys.exit(main())
