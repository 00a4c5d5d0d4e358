"""What each route asks of a caller."""

from __future__ import annotations

from typing import NamedTuple

from whisper_serve.config import KeyScope


class Rule(NamedTuple):
    """For the route at `path` and all below it. `method` is that of HTTP, `WS` for a WebSocket,
    `*` for any. Without a `scope` any key will do; `is_public`: none is asked for; `key_only`:
    nothing that stands for a key, so that what ends soon cannot be made to last."""

    method: str
    path: str
    scope: KeyScope | None = None
    is_public: bool = False
    key_only: bool = False

    def fits(self, method: str, path: str) -> bool:
        if self.method not in {method, "*"}:
            return False
        return path == self.path or (self.path != "/" and path.startswith(f"{self.path}/"))


PUBLIC = ("/", "/web", "/health", "/livez", "/readyz", "/docs", "/redoc", "/openapi.json")
# The first that fits counts.
RULES = (
    *(Rule("GET", path, is_public=True) for path in PUBLIC),
    Rule("POST", "/transcribe", "transcribe"),
    Rule("POST", "/v1/transcribe", "transcribe"),
    Rule("WS", "/stream", "stream"),
    Rule("WS", "/v1/stream", "stream"),
    Rule("POST", "/v1/audio", "transcribe"),
    Rule("WS", "/v1/realtime", "stream"),
    Rule("POST", "/v1/realtime", "stream", key_only=True),
    Rule("GET", "/v1/models"),
    Rule("POST", "/v1/listen", "transcribe"),
    Rule("WS", "/v1/listen", "stream"),
    Rule("POST", "/v1/auth/grant", key_only=True),
    Rule("POST", "/v1/tokens", key_only=True),
    Rule("*", "/v1/jobs", "jobs"),
    Rule("GET", "/v1/status", "admin"),
    Rule("GET", "/metrics", "admin"),
)
# What is not there is nobody's business who has no key.
ANY_KEY = Rule("*", "/")


def rule_for(method: str, path: str) -> Rule:
    """`path` within the application."""
    method = "GET" if method == "HEAD" else method
    return next((rule for rule in RULES if rule.fits(method, path or "/")), ANY_KEY)
