"""Ending the service without losing what it was given: the driver's part."""

from __future__ import annotations

import logging
import time

from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

logger = logging.getLogger(__name__)

ASK_EVERY_S = 0.25
ANSWER_S = 5.0
# Behind the time that what is under way may take: streams are settled and told.
LAST_WORDS_S = 25.0
# Ingress replicas that cannot be reached so often in a row have nothing to lose.
MOST_FAILURES = 3


def drain(app: str, timeout_s: float) -> None:
    """Have the ingress replicas of `app` end what they have, and refuse what is new. Returns when
    nothing is under way any more, and at the latest `LAST_WORDS_S` after `timeout_s`."""
    ends_at = time.monotonic() + timeout_s
    failures = 0
    while failures < MOST_FAILURES and time.monotonic() < ends_at + LAST_WORDS_S:
        try:
            left = _ask(serve.get_app_handle(app), max(0.0, ends_at - time.monotonic()))
        except (RayError, RayServeException, TimeoutError) as exc:
            logger.warning("the ingress cannot be told to drain: %s", exc)
            failures += 1
        else:
            failures = 0
            if not left:
                return
        time.sleep(ASK_EVERY_S)


def _ask(ingress: DeploymentHandle, timeout_s: float) -> int:
    """What all replicas have under way; one that died meanwhile has nothing."""
    told = ingress.broadcast("drain", timeout_s)
    answers = told.results(timeout_s=ANSWER_S, return_exceptions=True)
    return sum(answer for answer in answers if isinstance(answer, int))
