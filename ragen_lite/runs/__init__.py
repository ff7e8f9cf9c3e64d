"""A run on disk, what its numbers mean, and what is shown of it."""
