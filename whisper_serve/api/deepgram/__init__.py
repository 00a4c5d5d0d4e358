"""Deepgram's speech API at `/v1/listen`, for files and for live streams."""
