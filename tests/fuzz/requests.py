"""Requests, right and wrong, made from what the service says of itself in `/openapi.json`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from hypothesis import strategies as st

from tests.audio.clips import tone, wav
from tests.fuzz.asgi import Headers, Request, Target
from tests.fuzz.damage import Edit, as_json, odd_texts, odd_values, spoiled, spoiling

BOUNDARY = b"fuzz-boundary"
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "X-ODD")
CLIP = wav(tone(0.2))
CLIPS = (CLIP, CLIP, CLIP, wav(tone(0.2))[:60], b"", b"no sound", b"OggS" + bytes(40), bytes(300))
SAFE = "".join(map(chr, range(0x21, 0x7F)))
FILE_NAMES = ("audio_file", "file", "audio", "")
# Beside what is described.
FURTHER_PATHS = (
    *("/", "/docs", "/redoc", "/openapi.json", "/web/index.html", "/web/", "/web", "/nothing"),
    *("/transcribe/", "//transcribe", "/stream", "/v1/realtime", "/v1/", "/v1", "/metrics"),
    *("/web/../config.py", "/web/%2e%2e/%2e%2e/setup.py", "/web/a%00b", "/web/" + "a" * 300),
    *("/web/%ff", "/web/index.html/x", "/v1/models/" + "m" * 5_000, "/health/", "/%", "*", ""),
    *("/v1/status", "/v1/jobs", "/v1/tokens", "/v1/jobs/x/result", "/v1/audio/speech"),
)
TYPES = (
    *(b"application/json", b"audio/wav", b"application/octet-stream", b"text/plain", b""),
    *(b"multipart/form-data", b"multipart/form-data; boundary=", b"multipart/mixed; boundary=x"),
    *(b"application/x-www-form-urlencoded", b"audio/", b"/", b";", b"application/json; charset=x"),
    *(b"multipart/form-data; boundary=" + b"b" * 300, b"\xff\xfe", b"audio/wav;" * 50),
)
FORM = b"multipart/form-data; boundary=" + BOUNDARY
ODD_HEADERS: tuple[tuple[bytes, bytes], ...] = (
    *((b"content-length", value) for value in (b"-1", b"abc", b"9" * 30, b"0", b"1e3", b"\xb2")),
    *((b"range", value) for value in (b"bytes=0-0", b"bytes=9-1", b"bytes=", b"bytes=-", b"x")),
    *((b"range", value) for value in (b"bytes=0-1,3-4,-1", b"bytes=99999999999-", b"\xff")),
    *((b"accept", value) for value in (b"text/html", b"*/*;q=x", b",,;", b"\xff", b"q" * 5_000)),
    *((b"content-encoding", value) for value in (b"gzip", b"x", b"\x80")),
    *((b"transfer-encoding", b"chunked"), (b"expect", b"100-continue"), (b"te", b"trailers")),
    *((b"x-request-id", value) for value in (b"ok-1", b"\x80\xff", b"x" * 10_000, b"", b"a b")),
    *((b"if-none-match", b'"x"'), (b"if-modified-since", b"never"), (b"if-range", b"\xff")),
    *((b"authorization", value) for value in (b"Bearer ek_x.y", b"Token", b"Bearer \xff", b"")),
    *((b"idempotency-key", value) for value in (b"1", b"k" * 3_000, b"\xff")),
    *((b"host", b"\xff"), (b"origin", b"null"), (b"cookie", b"a=\xff"), (b"upgrade", b"websocket")),
    *((b"x-forwarded-for", b"\xff, 1"), (b"forwarded", b"for=;"), (b"connection", b"close")),
)


@dataclass(frozen=True, slots=True)
class Operation:
    """A path as it is described, a method of it, and values that its fields may have."""

    path: str
    method: str
    fields: Mapping[str, Sequence[str]]


def operations_of(description: Mapping[str, Any]) -> list[Operation]:
    return [
        Operation(path, method.upper(), dict(_fields(operation)))
        for path, methods in description["paths"].items()
        for method, operation in methods.items()
    ]


def _fields(operation: Mapping[str, Any]) -> Iterator[tuple[str, Sequence[str]]]:
    for parameter in operation.get("parameters", ()):
        yield parameter["name"], _values(parameter.get("schema", {}))
    for content in operation.get("requestBody", {}).get("content", {}).values():
        for name, schema in content.get("schema", {}).get("properties", {}).items():
            yield name, _values(schema)


def _values(schema: Mapping[str, Any]) -> Sequence[str]:
    parts = [schema, *schema.get("anyOf", ())]
    named = [value for part in parts for value in part.get("enum", ())]
    return [str(value) for value in (*named, schema.get("default") or "1", "true", "en", "2")]


def requests(operations: Sequence[Operation]) -> st.SearchStrategy[Request]:
    """Those that send something are tried more often."""
    made = [_request_for(operation) for operation in operations]
    often = [at for at, operation in enumerate(operations) if operation.method == "POST"]
    return st.sampled_from([*range(len(made)), *4 * often]).flatmap(made.__getitem__)


def _request_for(operation: Operation) -> st.SearchStrategy[Request]:
    return st.builds(
        _request,
        st.just(operation),
        st.sampled_from([operation.method] * 50 + [*METHODS]),
        st.sampled_from([None] * 200 + [*FURTHER_PATHS]),
        st.just([]) | _pairs(operation),
        st.just([]) | _pairs(operation),
        st.just([]) | st.lists(st.sampled_from(ODD_HEADERS), max_size=2),
        st.sampled_from([None] * 30 + [*TYPES]),
        st.sampled_from(["form", "form", "clip", "json"]),
        st.sampled_from(CLIPS),
        st.just([]) | spoiling,
        st.sampled_from([7, 500, 1 << 20]),
        st.sampled_from([True] * 9 + [False]),
    )


def _pairs(operation: Operation) -> st.SearchStrategy[list[tuple[str, str]]]:
    known = [
        st.tuples(st.just(name), st.sampled_from(values) | odd_texts)
        for name, values in operation.fields.items()
    ]
    return st.lists(st.one_of(*known, st.tuples(odd_texts, odd_texts)), max_size=2)


def _request(  # noqa: PLR0917 - drawn one by one
    operation: Operation,
    method: str,
    elsewhere: str | None,
    query: Sequence[tuple[str, str]],
    fields: Sequence[tuple[str, str]],
    headers: Headers,
    media_type: bytes | None,
    kind: str,
    clip: bytes,
    changes: list[Edit],
    piece: int,
    stays: bool,
) -> Request:
    path = elsewhere if elsewhere is not None else _filled(operation.path, query)
    needed = [("model", "whisper-1")] if operation.path.startswith("/v1/audio") else []
    body, right_type = _body(kind, [*needed, *fields], clip)
    body = spoiled(body, changes)
    kept = right_type if media_type is None else media_type
    return Request(
        method,
        Target(path.encode("ascii", "replace"), _query(query)),
        [(b"content-type", kept), *headers],
        [body[at : at + piece] for at in range(0, min(len(body), 50 * piece), piece)],
        stays,
    )


def _filled(path: str, values: Sequence[tuple[str, str]]) -> str:
    """A path with something for each of the names in its braces."""
    given = quote(values[0][1] if values else "x", safe="", errors="replace")
    return "/".join(given if part.startswith("{") else part for part in path.split("/"))


def _query(pairs: Sequence[tuple[str, str]]) -> bytes:
    """As clients write it that forget to quote, now and then; only what servers refuse by
    themselves is always quoted."""
    written = ("=".join(_quoted(part) for part in pair) for pair in pairs)
    return "&".join(written).encode()


def _quoted(text: str) -> str:
    safe = "/" if len(text) % 3 else SAFE
    return quote(text, safe=safe, errors="replace")


def _body(kind: str, fields: Sequence[tuple[str, str]], clip: bytes) -> tuple[bytes, bytes]:
    """A body that is right in itself, and its media type."""
    if kind == "form":
        return _form(fields, clip), FORM
    if kind == "json":
        return as_json(dict(fields)).encode(), b"application/json"
    return clip, b"audio/wav"


def _form(fields: Sequence[tuple[str, str]], clip: bytes) -> bytes:
    parts = [
        b'Content-Disposition: form-data; name="%s"\r\n\r\n%s' % (_raw(name), _raw(value))
        for name, value in fields
    ]
    name = FILE_NAMES[len(clip) % len(FILE_NAMES) if len(clip) < 300 else 0].encode()
    head = b'Content-Disposition: form-data; name="%s"; filename="a.wav"\r\n' % name
    parts.append(head + b"Content-Type: audio/wav\r\n\r\n" + clip)
    begin = b"--" + BOUNDARY
    return b"".join(begin + b"\r\n" + part + b"\r\n" for part in parts) + begin + b"--\r\n"


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


# Bodies of JSON for the routes that take one.
json_bodies = st.one_of(
    st.recursive(
        odd_values,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(odd_texts, inner, max_size=3),
        max_leaves=6,
    ).map(as_json),
    st.sampled_from(["[" * 5_000, '{"a":' * 5_000, "", "{", "\x00", "NaN", "{}{}", "\ufeff{}"]),
)


def json_request(path: str, body: str, changes: list[Edit]) -> Request:
    data = spoiled(body.encode("utf-8", "surrogatepass"), changes)
    return Request("POST", Target(path.encode()), [(b"content-type", b"application/json")], [data])


def near(example: Mapping[str, Any]) -> st.SearchStrategy[str]:
    """JSON of `example` with some of its values, at any depth, replaced by odd ones."""
    places = list(_places(example))

    def changed(changes: list[tuple[tuple[Any, ...], Any]]) -> str:
        value: Any = json.loads(json.dumps(example))
        for place, odd in changes:
            _put(value, place, odd)
        return as_json(value)

    return st.lists(st.tuples(st.sampled_from(places), odd_values), max_size=2).map(changed)


def _places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The ways to all parts of `value`, and to a key beside those of each object."""
    if isinstance(value, Mapping):
        yield (*at, "odd")
        for key, part in value.items():
            yield (*at, key)
            yield from _places(part, (*at, key))
    elif isinstance(value, list):
        for index, part in enumerate(value):
            yield (*at, index)
            yield from _places(part, (*at, index))


def _put(value: Any, place: tuple[Any, ...], odd: Any) -> None:
    """Where an earlier change took the place away, nothing is put."""
    with suppress(LookupError, TypeError):
        for key in place[:-1]:
            value = value[key]
        value[place[-1]] = odd
