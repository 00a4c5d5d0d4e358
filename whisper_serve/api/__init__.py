"""The HTTP front: requests in, transcripts out. It knows the engines through a port only."""
