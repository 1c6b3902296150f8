"""The searchable index."""
