"""Measuring retrieval and showing it."""
