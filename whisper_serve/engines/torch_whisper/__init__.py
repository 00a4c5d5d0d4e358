"""Whisper on torch: openai-whisper's network, decoding rules and word alignment."""
