"""Base networks: one file each."""
