"""Webhooks on their way: signed after the Standard Webhooks specification, and sent until
somebody takes them.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from datetime import datetime, timezone

from standardwebhooks import Webhook as Signer

from whisper_serve.config import JobsConfig
from whisper_serve.errors import UrlNotAllowed, UrlUnreachable
from whisper_serve.jobs.outbox import Outbox, Webhook
from whisper_serve.jobs.retries import delay
from whisper_serve.jobs.urls import Outside
from whisper_serve.observability.metrics import Metrics

logger = logging.getLogger(__name__)

# As the specification proposes; less than the time for which others leave a webhook alone.
TIMEOUT_S = 20.0
# 5 s, 30 s, 3 min, 18 min, 2 h, 4 h, ...
GROWS = 6.0
LONGEST_DELAY_S = 4 * 3600.0


class WebhookSender:
    """Sends what is in the outbox, one after the other."""

    def __init__(
        self,
        outbox: Outbox,
        config: JobsConfig,
        outside: Outside,
        metrics: Metrics | None = None,
    ) -> None:
        self._outbox, self._config, self._outside = outbox, config, outside
        self._metrics = metrics or Metrics()

    async def send_next(self, now: float) -> bool:
        """Whether there was one to be sent. Raises `StorageUnavailable`."""
        webhook = await self._outbox.take(now)
        if webhook is None:
            return False
        refusal = await self._refusal(webhook, now)
        if refusal is None:
            await self._outbox.sent(webhook)
            self._metrics.webhook_sent("delivered")
            return True
        wait_s = delay(
            webhook.attempts,
            grows=GROWS,
            longest_s=LONGEST_DELAY_S,
            jitter=random.random(),  # noqa: S311 - no secret
        )
        again = await self._outbox.not_sent(webhook, now + wait_s)
        self._metrics.webhook_sent("put_off" if again else "failed")
        logger.warning(
            "a webhook was not taken at attempt %d (%s), %s",
            webhook.attempts,
            refusal,
            f"it is sent again in {wait_s:.0f} s" if again else "which was the last",
        )
        return True

    async def _refusal(self, webhook: Webhook, now: float) -> str | None:
        """Why it did not arrive; None when it did."""
        body = webhook.body.encode()
        secret = self._config.webhook_secret
        if secret is None:
            return "jobs.webhook_secret is not set"
        headers = signed(webhook.id, webhook.body, secret.get_secret_value(), now)
        try:
            status = await self._outside.post(
                webhook.url, self._config.webhook_hosts, body, headers, timeout_s=TIMEOUT_S
            )
        except (UrlNotAllowed, UrlUnreachable) as exc:
            return str(exc)
        return None if 200 <= status < 300 else f"the answer was {status}"


def signed(message_id: str, body: str, secret: str, now: float) -> Sequence[tuple[str, str]]:
    """The headers of a webhook that is sent at `now`."""
    at = datetime.fromtimestamp(int(now), timezone.utc)
    return (
        ("Content-Type", "application/json"),
        ("webhook-id", message_id),
        ("webhook-timestamp", str(int(now))),
        ("webhook-signature", Signer(secret).sign(message_id, at, body)),
    )
