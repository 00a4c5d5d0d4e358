"""Recordings that are taken now and transcribed later, whatever happens in between."""
