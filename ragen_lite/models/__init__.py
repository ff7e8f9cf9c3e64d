"""Models: loading one, making one from nothing, and the embedded one's files."""
