"""The Python client: whole files over REST, live audio over the WebSocket.

`AsyncClient` does the work, `Client` is the same without `await`. See `docs/client.md`.
"""

from whisper_serve.client.answers import Segment, Transcription, Word
from whisper_serve.client.async_client import AsyncClient
from whisper_serve.client.events import (
    Done,
    Endpoint,
    Event,
    Failed,
    Final,
    Partial,
    Progress,
    Ready,
    Reconnecting,
    SpeechStarted,
    SpeechStopped,
    UtteranceEnd,
    Warned,
)
from whisper_serve.client.recorder import Microphone, microphone
from whisper_serve.client.stream import Stream
from whisper_serve.client.sync_client import Client

__all__ = [
    "AsyncClient",
    "Client",
    "Done",
    "Endpoint",
    "Event",
    "Failed",
    "Final",
    "Microphone",
    "Partial",
    "Progress",
    "Ready",
    "Reconnecting",
    "Segment",
    "SpeechStarted",
    "SpeechStopped",
    "Stream",
    "Transcription",
    "UtteranceEnd",
    "Warned",
    "Word",
    "microphone",
]
