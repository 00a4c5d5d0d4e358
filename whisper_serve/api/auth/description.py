"""What the service's description says about keys."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from whisper_serve.api.auth.rules import Rule, rule_for

SCHEMES: dict[str, Any] = {
    "key": {
        "type": "http",
        "scheme": "bearer",
        "description": "A key or a token. `Authorization: Token KEY` is the same.",
    },
    "keyHeader": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
REFUSALS = {
    "401": "No key is shown, or none that is known.",
    "403": "The key is not for this.",
    "429": "The key's limits are reached; `Retry-After` says when to come back.",
}


def describe_keys(document: dict[str, Any]) -> dict[str, Any]:
    """An OpenAPI document with what `AuthMiddleware` asks for and how it refuses. One that has
    it already stays as it is, since documents are kept and given again."""
    components = document.setdefault("components", {})
    if "securitySchemes" in components:
        return document
    components["securitySchemes"] = SCHEMES
    for rule, operation in _operations(document):
        if rule.is_public:
            operation["security"] = []
            continue
        operation["security"] = [{name: []} for name in SCHEMES]
        if rule.scope is not None:
            scope = f"Needs a key with the scope `{rule.scope}`."
            operation["description"] = f"{operation.get('description', '')}\n\n{scope}".strip()
        _refuse(operation["responses"])
    return document


def _operations(document: dict[str, Any]) -> Iterator[tuple[Rule, dict[str, Any]]]:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            yield rule_for(method.upper(), path), operation


def _refuse(responses: dict[str, Any]) -> None:
    """Refusals have the shape of the operation's other failures."""
    failures = (responses[status] for status in sorted(responses) if status >= "400")
    content = next((failure["content"] for failure in failures if "content" in failure), None)
    shape = {"content": content} if content else {}
    for status, description in REFUSALS.items():
        responses.setdefault(status, {"description": description, **shape})
