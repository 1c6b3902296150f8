"""Readers: one file a source layout, each yields `SourceRow`s."""
