"""What becomes of a job that went wrong. Plain arithmetic: nothing here waits or looks at a
clock."""

from __future__ import annotations

from dataclasses import dataclass

from whisper_serve.errors import DeadlineExceeded, WhisperServeError

FIRST_DELAY_S = 5.0
LONGEST_DELAY_S = 600.0
# How long a job is put off for faults that are not its own before they count.
PATIENCE_S = 6 * 3600.0


@dataclass(frozen=True, slots=True)
class Again:
    """Put the job back for `delay_s`. `counts`: it was one of its attempts."""

    delay_s: float
    counts: bool


def next_try(
    error: WhisperServeError, *, attempts: int, max_attempts: int, claims: int, waited_s: float
) -> Again | None:
    """None when the job has failed for good.

    `attempts` counts this one, `claims` every beginning, `waited_s` is the time since the job
    was queued. What the client did wrong is wrong the next time too. What says when to come
    back, or took too long in a queue, says something of the service's load and nothing of the
    job.
    """
    retry_after_s: float | None = getattr(error, "retry_after_s", None)
    if retry_after_s is not None or isinstance(error, DeadlineExceeded):
        delay_s = max(retry_after_s or 0.0, delay(claims))
        if waited_s < PATIENCE_S:
            return Again(delay_s, counts=False)
    elif error.http_status < 500:
        return None
    else:
        delay_s = delay(attempts)
    return Again(delay_s, counts=True) if attempts < max_attempts else None


def delay(
    tries: int, *, grows: float = 2.0, longest_s: float = LONGEST_DELAY_S, jitter: float = 0.0
) -> float:
    """Seconds until the next try after `tries`, each `grows` times those before it. `jitter`,
    0 to 1, shortens them by up to half, so that what failed together does not come back
    together."""
    seconds = min(longest_s, FIRST_DELAY_S * grows ** min(tries - 1, 32))
    return seconds * (1.0 - jitter / 2)
