"""Keys: making them, and the file that lists them."""
