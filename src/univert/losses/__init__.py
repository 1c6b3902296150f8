"""Losses: one a file, a pure function plus a thin module."""
