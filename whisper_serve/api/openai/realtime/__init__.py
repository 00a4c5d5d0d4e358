"""Transcription sessions of OpenAI's Realtime API; see `docs/realtime.md`."""
