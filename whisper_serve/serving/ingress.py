"""What runs in an ingress replica: audio decoding, windows and HTTP, no Whisper weights."""

from __future__ import annotations

from fastapi import FastAPI
from ray.serve.handle import DeploymentHandle

from whisper_serve.api.app import create_app
from whisper_serve.api.services import Services
from whisper_serve.audio.silero import SileroVad
from whisper_serve.config import Config
from whisper_serve.observability.logs import configure_logging
from whisper_serve.pipeline import Transcriber
from whisper_serve.serving.client import ReplicaClient


class Ingress:
    """Builds the FastAPI application in the replica, around a handle to the engines."""

    def __init__(self, config: Config, asr: DeploymentHandle, signing_key: str) -> None:
        configure_logging(config.logging, "ingress")
        SileroVad()  # loads the network now rather than in the first request
        client = ReplicaClient(asr)
        self._services = Services(config, Transcriber(client, config), client, client, signing_key)

    def __serve_build_asgi_app__(self) -> FastAPI:
        # Serve's proxy sends the request's id back by itself.
        return create_app(self._services, send_request_id=False)
