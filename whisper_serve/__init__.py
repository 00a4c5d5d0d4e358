"""Self-hosted speech to text: FastAPI in front, Ray Serve behind, OpenAI Whisper inside."""

__version__ = "0.1.0"
