"""The Python client: whole files and jobs over REST, live audio over the WebSocket.

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
from whisper_serve.client.jobs import AsyncJobs, Job, JobError, WebhookState
from whisper_serve.client.recorder import Microphone, microphone
from whisper_serve.client.stream import Stream
from whisper_serve.client.sync_client import Client, Jobs
from whisper_serve.client.webhooks import verify_webhook

__all__ = [
    "AsyncClient",
    "AsyncJobs",
    "Client",
    "Done",
    "Endpoint",
    "Event",
    "Failed",
    "Final",
    "Job",
    "JobError",
    "Jobs",
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
    "WebhookState",
    "Word",
    "microphone",
    "verify_webhook",
]
