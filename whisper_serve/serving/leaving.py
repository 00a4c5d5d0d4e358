"""What a machine of a cluster does before it is taken away.

`python -m whisper_serve.serving.leaving SECONDS` is what a pod runs when it is told to end, before
anything in it is (`preStop` of Kubernetes). It has Ray drain the machine: Serve starts the replicas
elsewhere, and then stops those that are here as it stops any, so that they hand their sessions
over. Ray ends here by itself once nothing is left.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

import psutil

# To reach the control store. It may have gone already, with the whole cluster.
ASK_S = 30.0
REASON = "DRAIN_NODE_REASON_PREEMPTION"
GONE, STILL_HERE, NOT_ASKED = 0, 1, 2


def leave(
    seconds: float,
    machine: Sequence[str] = (),
    raylets: Sequence[psutil.Process] | None = None,
) -> int:
    """Have this machine drained, for so long at most. Returns what became of it, as an exit code.

    Where one host stands for several machines, `machine` are options of `ray drain-node` that say
    which, and `raylets` are Ray's processes of it.
    """
    here = _raylets() if raylets is None else raylets
    if not here:
        return GONE
    if not _ask(seconds, machine):
        return NOT_ASKED
    _, alive = psutil.wait_procs(here, timeout=seconds)
    return STILL_HERE if alive else GONE


def _raylets() -> list[psutil.Process]:
    """All that this process can see; a pod sees its own."""
    return [each for each in psutil.process_iter(["name"]) if each.info["name"] == "raylet"]


def _ask(seconds: float, machine: Sequence[str]) -> bool:
    asking = [sys.executable, "-m", "ray.scripts.scripts", "drain-node", *machine]
    why = ["--reason", REASON, "--reason-message", "the pod is told to end"]
    until = ["--deadline-remaining-seconds", str(int(seconds))]
    try:
        subprocess.run([*asking, *why, *until], timeout=ASK_S, check=True)  # noqa: S603
    except (subprocess.TimeoutExpired, subprocess.CalledProcessError):
        return False
    return True


if __name__ == "__main__":
    sys.exit(leave(float(sys.argv[1])))
