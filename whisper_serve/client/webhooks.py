"""What the service sends to a webhook when a job is over, checked by whoever receives it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError
from standardwebhooks import Webhook, WebhookVerificationError
from standardwebhooks.webhooks import EmptyWebhookSecretError

from whisper_serve.client.jobs import Job
from whisper_serve.errors import InvalidParameter, UnexpectedAnswer, WebhookNotVerified


@dataclass(frozen=True, slots=True)
class _Message:
    data: Job


MESSAGE = TypeAdapter(_Message)


def verify_webhook(body: bytes | str, headers: Mapping[str, str], secret: str) -> Job:
    """The job that a webhook tells of.

    `body`: as it came, not parsed and written again. `secret`: the service's
    `jobs.webhook_secret`, `whsec_...`. The same webhook may come more than once.

    Raises `WebhookNotVerified` when the signature is not the service's or is more than five
    minutes old (https://www.standardwebhooks.com), `InvalidParameter` for a `secret` that is
    none, and `UnexpectedAnswer` when what was signed is not about a job.
    """
    try:
        webhook = Webhook(secret)
    except (ValueError, EmptyWebhookSecretError) as exc:
        raise InvalidParameter("secret", "it is not like whsec_ and base64") from exc
    try:
        webhook.verify(body, dict(headers), json_parse=False)
    except (WebhookVerificationError, ValueError) as exc:  # the latter for what is no signature
        raise WebhookNotVerified(f"the webhook cannot be trusted: {exc}") from exc
    try:
        message: _Message = MESSAGE.validate_json(body)
    except ValidationError as exc:
        raise UnexpectedAnswer("the webhook tells of something else than a job") from exc
    return message.data
