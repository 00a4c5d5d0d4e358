"""Live streams without I/O: audio and answers go in, windows and messages come out."""
