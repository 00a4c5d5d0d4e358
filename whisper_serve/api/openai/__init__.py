"""OpenAI's speech API: files at `/v1/audio`, live streams at `/v1/realtime`."""
