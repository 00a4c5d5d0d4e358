"""Live streams in the words of earlier systems; see `docs/dialects.md`."""
