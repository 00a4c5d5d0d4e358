"""Whisper engines behind one interface: a `DecodeTask` goes in, a `Hypothesis` comes out."""
