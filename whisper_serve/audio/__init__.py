"""Samples: decoding, voice activity and windows."""
