"""A query log whose truth is known, from the home sample's names and pictures."""
