"""The dialects are there beside the service's own protocol."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from starlette.types import Message

from tests.api.fakes import app_with


class Cable:
    """A WebSocket of the whole application: says `frames`, and leaves when it got an answer."""

    def __init__(self, path: str, frames: Sequence[bytes | str]) -> None:
        self._path = path
        self._incoming: list[Message] = [{"type": "websocket.connect"}]
        self._incoming += [
            {"type": "websocket.receive", "bytes" if isinstance(frame, bytes) else "text": frame}
            for frame in frames
        ]
        self.texts: list[str] = []

    async def receive(self) -> Message:
        gone: Message = {"type": "websocket.disconnect", "code": 1000}
        return self._incoming.pop(0) if self._incoming else gone

    async def send(self, message: Message) -> None:
        if message["type"] == "websocket.send":
            self.texts.append(message["text"])

    async def run(self) -> None:
        scope = {
            "type": "websocket",
            "path": self._path,
            "raw_path": self._path.encode(),
            "query_string": b"",
            "headers": [],
            "client": ("127.0.0.1", 1),
            "extensions": {"websocket.http.response": {}},
        }
        await app_with()(scope, self.receive, self.send)


async def answer_to(path: str, *frames: bytes | str) -> Any:
    cable = Cable(path, frames)
    await cable.run()
    return json.loads(cable.texts[0])


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/stream", {"code": "invalid_parameter", "seq": 0}),
        ("/stream/voicestream", {"code": "invalid_message"}),
        ("/stream/anybody", {"code": "invalid_parameter"}),
    ],
)
async def test_each_path_has_its_dialect(path: str, told: dict[str, Any]) -> None:
    answer = await answer_to(path, '{"samplewidth": 4}')
    assert answer["type"] == "error"
    assert {key: answer.get(key) for key in ("code", "seq")} == {"seq": None, **told}
