from __future__ import annotations

import ssl

import pytest

from whisper_serve.client.connection import Loss, http_url, judge, refusal_of, ws_url
from whisper_serve.errors import ConnectionLost


@pytest.mark.parametrize(
    ("base_url", "url"),
    [
        ("http://127.0.0.1:8000", "ws://127.0.0.1:8000/stream"),
        ("http://host/", "ws://host/stream"),
        ("https://host/a/b/", "wss://host/a/b/stream"),
        ("https://user:secret@host:1", "wss://user:secret@host:1/stream"),
        ("http://[::1]:8000", "ws://[::1]:8000/stream"),
    ],
)
def test_a_stream_lies_beside_the_rest(base_url: str, url: str) -> None:
    assert ws_url(base_url, "/stream") == url
    assert http_url(base_url, "/stream") == url.replace("ws", "http", 1)


def test_a_certificate_that_is_not_trusted_is_not_tried_again() -> None:
    failure = ssl.SSLCertVerificationError(1, "certificate verify failed")
    with pytest.raises(ConnectionLost, match="certificate verify failed"):
        judge(failure, None)


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (ConnectionRefusedError(111, "Connection refused"), "Connection refused"),
        (OSError("Multiple exceptions"), "Multiple exceptions"),
        (TimeoutError("timed out during opening handshake"), "timed out during opening handshake"),
        (TimeoutError(), "the server did not answer in time"),
    ],
)
def test_a_network_that_fails_is_tried_again(failure: Exception, reason: str) -> None:
    assert judge(failure, None) == Loss(reason)


@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [("3", 3.0), ("0", 0.0), (None, None), ("-1", None), ("nan", None), ("inf", None)],
)
def test_retry_after_is_a_number_of_seconds(retry_after: str | None, seconds: float | None) -> None:
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    assert refusal_of(503, headers, b"").retry_after_s == seconds
